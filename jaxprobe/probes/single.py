"""One probe on rows that the caller has: `fit_probe`, also under jit, vmap and shard_map."""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprobe import arguments, base, checks, regimes, selection
from jaxprobe.probes import grid, table
from jaxprobe.probes.host import HostProbe
from jaxprobe.probes.probe import Problem, Scores, run

FEATURES = (base.ACTIVATIONS, "latents")
PENALTIES = ("l1", "l2")


class ProbeResult(NamedTuple):
    """How a probe did; see `probe.Scores` for what each number means."""

    valid_auroc: Any
    test_auroc: Any
    test_f1: Any
    test_accuracy: Any
    best_value: Any
    converged: Any
    residual: Any

    @property
    def best_c(self):
        """The chosen C of a logistic probe."""
        return self.best_value


def fit_probe(
    method: str,
    x_train,
    y_train,
    x_test,
    y_test,
    *,
    seed: int = 42,
    features: str = base.ACTIVATIONS,
    num_latents: int | None = None,
    penalty: str | None = None,
    ranking: str | None = None,
    dtype: str = "auto",
) -> ProbeResult:
    """Fits one probe by the protocol: folds by training size, best hyperparameter, refit, test.

    Args:
        method: A key of `table.PROBES`.
        x_train: [N, D] activations, or [N, S] latents: finite numbers, of any array-like; read as
            float32.
        y_train: [N] labels, both classes: 0 and 1, booleans, or two other whole numbers or texts, of
            which the smaller (the first in the order of characters) is class 0.
        x_test: [M, D] or [M, S].
        y_test: [M] labels, among those of `y_train`.
        seed: Seed of the validation folds and of the probe's own randomness.
        features: `activations`, or `latents`: the k best by class-mean difference are read.
        num_latents: k, of latents; all where None.
        penalty: Of `logistic`: `l2` or `l1`; by default `l2` for activations and `l1` for latents.
        ranking: Of latents, see `selection.score`; by default `normalised`.
        dtype: Arithmetic: `float64`, `float32`, or `auto`: float64 on CPUs. Traced, `auto` follows
            `jax_enable_x64`, and so must what is asked for. Methods of host libraries take `auto` only.

    Returns:
        Validation AUROC at the chosen value; test AUROC, support-weighted F1 and accuracy at
        probability 0.5. `converged` is False where a fit stopped before its optimum. Python
        numbers; scalar arrays where an argument is traced (values are then not checked: labels
        of one class alone give an AUROC of 0.5, or NaN in the test).

    Raises:
        ValueError: Unknown names, shapes that disagree, labels that are not binary, one class only,
            features that are not finite, or arguments that have no effect on this method.

    Example:
        >>> import jax, numpy as np
        >>> import jaxprobe as jp
        >>> y = np.arange(300) % 2
        >>> x = np.random.default_rng(0).normal(size=(300, 8)) + y[:, None]
        >>> score = jp.fit_probe("logistic", x[:200], y[:200], x[200:], y[200:])
        >>> score.converged and score.test_auroc > 0.95
        True

    References:
        Kantamneni et al., Are Sparse Autoencoders Useful?, arXiv 2502.16681.
    """
    probe = table.PROBES[_method(method, features, penalty)]
    seed = arguments.whole("seed", seed, 0, 2**32 - 1)
    num_latents, ranking = _latents(features, num_latents, ranking)
    if isinstance(probe, HostProbe) and dtype != "auto":
        raise ValueError(f"`dtype` has no effect on {method}, a library's; leave it out")
    arrays = _checked(x_train, y_train, x_test, y_test)
    x_train, y_train, x_test, y_test = arrays
    if not arguments.traced(*arrays):
        x_ND, split = _split(*arrays, seed)
        columns = None
        if features == "latents":
            columns = [_ranked(x_ND[split.train_N], split.y_train_N, num_latents, ranking)]
        count = () if columns is None else (len(columns[0]),)
        fit = functools.partial(grid.fit_grid, columns=columns, num_latents=count, dtype=dtype)
        scores = fit(probe, x_ND, [split])
        return ProbeResult(*(np.ravel(field)[0].item() for field in scores[:7]))
    if isinstance(probe, HostProbe):
        raise ValueError(f"{method} runs on the host and cannot be traced; call it outside of jit")
    if features == "latents":
        index_K = _ranked_traced(x_train, y_train, num_latents, ranking)
        x_train, x_test = x_train[:, index_K], x_test[:, index_K]
    scores = _trace(probe, *(x_train, y_train, x_test, y_test), seed, grid.traced_dtype(dtype))
    return ProbeResult(*scores[:7])


def _method(method: str, features: str, penalty: str | None) -> str:
    """The key of `PROBES` that a method and a penalty name."""
    checks.check_choice("method", method, table.PROBES)
    checks.check_choice("features", features, FEATURES)
    if penalty is not None:
        checks.check_choice("penalty", penalty, PENALTIES)
        if method != "logistic":
            raise ValueError(f"`penalty` is of `logistic` alone, got it for {method}; leave it out")
    default = "l1" if features == "latents" else "l2"
    return "logistic_l1" if method == "logistic" and (penalty or default) == "l1" else method


def _latents(features: str, num_latents, ranking: str | None) -> tuple[int | None, str]:
    """What only latents have."""
    for name, given in (("num_latents", num_latents), ("ranking", ranking)):
        if given is not None and features != "latents":
            raise ValueError(
                f"`{name}` has no effect on {features}; leave it out, or set features='latents'"
            )
    if num_latents is not None:
        num_latents = arguments.whole("num_latents", num_latents, 1)
    ranking = "normalised" if ranking is None else ranking
    checks.check_choice("ranking", ranking, selection.RANKINGS)
    return num_latents, ranking


def _checked(x_train, y_train, x_test, y_test) -> tuple[Any, Any, Any, Any]:
    """The arrays, in numbers; what is traced as it is."""
    x_train = arguments.features("x_train", x_train)
    hint = "train and test must agree"
    x_test = arguments.features("x_test", x_test, (None, x_train.shape[1]), hint)
    # Of traced ones the precision is the program's.
    x_train, x_test = (
        x if arguments.traced(x) else x.astype(np.float32) for x in (x_train, x_test)
    )
    names = None
    if not arguments.traced(y_train):
        y_train, names = arguments.labels("y_train", y_train, both=True)
    if not arguments.traced(y_test):
        # Traced training labels are 0 and 1, for nothing else can be read there.
        y_test = arguments.labels("y_test", y_test, names=names or (0, 1)).y_N
    for name, y_N, x_ND in (("y_train", y_train, x_train), ("y_test", y_test, x_test)):
        checks.check_shape(name, y_N, (x_ND.shape[0],), "one label per row")
    return x_train, y_train, x_test, y_test


def _split(x_train, y_train, x_test, y_test, seed: int) -> tuple[np.ndarray, base.Split]:
    """All rows in one array, and the split that numbers them."""
    num_train = len(y_train)
    split = base.Split(
        dataset="",
        regime="standard",
        level=float("nan"),
        protocol="paper",
        seed=seed,
        train_N=np.arange(num_train),
        y_train_N=y_train,
        test_N=np.arange(num_train, num_train + len(y_test)),
        y_test_N=y_test,
        folds=regimes.validation_folds(y_train, seed),
    )
    return np.concatenate([np.asarray(x_train), np.asarray(x_test)]), split


def _ranked(z_NS, y_N, num_latents: int | None, ranking: str) -> np.ndarray:
    width = z_NS.shape[1] if num_latents is None else num_latents
    weights = selection.class_weights(len(z_NS), [(np.arange(len(y_N)), np.asarray(y_N))])
    top = selection.top_latents(
        lambda start, stop: z_NS[:, start:stop], z_NS.shape[1], weights, width, ranking
    )
    return np.asarray(top.index_PK[0])


def _ranked_traced(z_NS, y_N, num_latents: int | None, ranking: str):
    """As `_ranked`, by a call to the host: ties are decided in float64."""
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


def _trace(probe, x_train, y_train, x_test, y_test, seed: int, dtype: str) -> Scores:
    num_train, num_test = x_train.shape[0], x_test.shape[0]
    y_train = jnp.asarray(y_train)
    valid_FN, fold_F, smallest = _traced_folds(y_train, seed)
    value_H = np.asarray(probe.values(num_train, x_train.shape[1], smallest), float)
    with jax.default_matmul_precision("highest"):
        x_MD = jnp.concatenate([jnp.asarray(x_train), jnp.asarray(x_test)])
        problem = Problem(
            train_N=np.arange(num_train),
            y_N=y_train.astype(dtype),
            weight_N=np.ones(num_train),
            valid_FN=valid_FN.astype(dtype),
            fold_F=fold_F.astype(dtype),
            test_M=np.arange(num_train, num_train + num_test),
            y_test_M=jnp.asarray(y_test).astype(dtype),
            weight_M=np.ones(num_test),
            column_K=np.zeros(0, np.int32),
            count=np.int32(0),
            value_H=value_H,
            num_values=np.int32(len(value_H)),
            default=np.float64(probe.default(num_train, x_train.shape[1])),
            seed=np.uint32(seed),
        )
        return run(probe, x_MD, problem, grid.map_folds, dtype)


def _traced_folds(y_N, seed: int):
    """Validation rows per fold, which folds are real, and the smallest fold's training size.

    As `regimes.validation_folds`; their number depends on the size alone, so it is known here.
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
