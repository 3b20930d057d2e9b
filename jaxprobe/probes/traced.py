"""`fit_probe` inside a caller's compiled program: folds, ranking and the run on traced arrays."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from jaxprobe import metrics, regimes, selection
from jaxprobe.probes import grid
from jaxprobe.probes.probe import Array, Model, Probe
from jaxprobe.probes.running import Asked, Lane, run
from jaxprobe.probes.scores import Scores


def ranked(z_NS: jax.Array, y_N: jax.Array, num_latents: int | None, ranking: str) -> jax.Array:
    """The best latents of training rows, best first, by a call to the host: ties are decided in float64."""
    width = min(num_latents or z_NS.shape[1], z_NS.shape[1])
    shape = jax.ShapeDtypeStruct((width,), jnp.int32)

    def rank(z_NS, y_N):
        z_NS, y_N = np.asarray(z_NS, np.float32), np.asarray(y_N)
        counted = (np.arange(len(y_N)), y_N)
        if len(np.unique(y_N)) < 2:
            return np.arange(width, dtype=np.int32)
        weights = selection.class_weights(len(z_NS), [counted])
        order_S = np.argsort(-selection.score(z_NS, weights, ranking)[0], kind="stable")
        return order_S[:width].astype(np.int32)

    return jax.pure_callback(rank, shape, z_NS, y_N, vmap_method="sequential")


def fit(
    probe: Probe,
    x_train: jax.Array,
    y_train: jax.Array,
    x_test: jax.Array,
    y_test: jax.Array,
    seed: int,
    dtype: str,
) -> tuple[Scores, Model]:
    """Fits and tests one probe; arguments as of `fit_probe`, any of them traced.

    Returns:
        Its scores, and the model that was tested.
    """
    num_train, num_test = x_train.shape[0], x_test.shape[0]
    y_train = jnp.asarray(y_train)
    valid_FN, fold_F, smallest = folds(y_train, seed)
    value_H = np.asarray(probe.values(num_train, x_train.shape[1], smallest), float)
    with jax.default_matmul_precision("highest"):
        x_MD = jnp.concatenate([jnp.asarray(x_train), jnp.asarray(x_test)])
        lane = Lane(
            train_N=np.arange(num_train),
            y_N=y_train.astype(dtype),
            weight_N=np.ones(num_train),
            valid_FN=valid_FN.astype(dtype),
            fold_F=fold_F.astype(dtype),
            test_M=np.arange(num_train, num_train + num_test),
            y_test_M=jnp.asarray(y_test).astype(dtype),
            weight_TM=np.ones((1, num_test)),
            group_M=np.full(num_test, -1, np.int32),
            column_K=np.zeros(0, np.int32),
            count=np.asarray(0, np.int32),
            value_H=value_H,
            num_values=np.asarray(len(value_H), np.int32),
            default=np.asarray(probe.default(num_train, x_train.shape[1]), np.float64),
            seed=np.asarray(seed, np.uint32),
        )
        asked = Asked(tuple(metrics.chosen(metrics.DEFAULT).items()), models=True)
        outcome = run(probe, x_MD, lane, asked, grid.map_folds, dtype)
    scores = Scores(
        valid_auroc=outcome.valid_auroc,
        best_value=outcome.best_value,
        converged=outcome.converged,
        residual=outcome.residual,
        metrics=outcome.metric_T,
        test_sets=((regimes.TEST,),),
    )
    return scores, outcome.model


def folds(y_N: jax.Array, seed: int) -> tuple[Array, Array, int]:
    """Validation rows per fold, which folds are real, and the smallest fold's training size.

    As `regimes.validation_folds`; the number of folds depends only on the number of rows, so it is static.
    """
    num = y_N.shape[0]
    if num <= 3:
        return jnp.zeros((1, num), jnp.float32), jnp.zeros(1, jnp.float32), num
    if num <= 12:
        pair_F2 = np.array(list(itertools.combinations(range(num), 2)))
        valid_FN = np.zeros((len(pair_F2), num), np.float32)
        np.put_along_axis(valid_FN, pair_F2, 1, axis=1)
        both_F = y_N[pair_F2[:, 0]] != y_N[pair_F2[:, 1]]
        return jnp.asarray(valid_FN), both_F.astype(jnp.float32), num - 2
    if num >= 128:
        valid_FN = np.zeros((1, num), np.float32)
        valid_FN[0, num - min(num // 5, 100) :] = 1
        return jnp.asarray(valid_FN), jnp.ones(1, jnp.float32), int(num - valid_FN.sum())
    num_folds = regimes.NUM_FOLDS

    def stratified(y_N):
        valid_FN = np.zeros((num_folds, num), np.float32)
        for f, fold in enumerate(regimes.validation_folds(np.asarray(y_N).astype(int), seed)):
            valid_FN[f, fold.valid] = 1
        return valid_FN

    shape = jax.ShapeDtypeStruct((num_folds, num), jnp.float32)
    valid_FN = jax.pure_callback(stratified, shape, y_N, vmap_method="sequential")
    real_F = jnp.max(valid_FN, axis=1)
    return valid_FN, real_F, num - -(-num // num_folds)
