"""From splits to scores: every fold, strength and latent count of a probe in one program.

A problem is a split in padded arrays. Its folds are weight vectors over the same rows, so all fits
share one matrix; strengths are walked warm; latent counts are masks over the same columns.
Sizes are padded into few buckets, so few programs are compiled.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprobe import base, metrics
from jaxprobe.probes import l1_logistic, logistic, path, reduction

C_GRID = np.logspace(-5, 5, 10)
DEFAULT_C = 1.0  # of probes with too few rows to validate
# Each combination of sizes is a compiled program, so there are few sizes.
TRAIN_BUCKETS = (16, 64, 128, 256, 512, 768, 1024)
FOLD_BUCKETS = (1, 6, 36)
TEST_BUCKETS = (5120,)
# Columns of a program for k latents, and how many values of k it takes at once.
LATENT_BUCKETS = {32: 6, 512: 4}


class Problem(NamedTuple):
    """A split in padded arrays.

    Attributes:
        train_N: Row numbers of the feature matrix; padding repeats row 0.
        y_N: Training labels.
        weight_N: 1 for real rows, 0 for padding.
        valid_FN: 1 where a row validates in a fold.
        fold_F: 1 for real folds, 0 for padding.
        test_M, y_test_M, weight_M: The same for test rows.
    """

    train_N: np.ndarray
    y_N: np.ndarray
    weight_N: np.ndarray
    valid_FN: np.ndarray
    fold_F: np.ndarray
    test_M: np.ndarray
    y_test_M: np.ndarray
    weight_M: np.ndarray


class Scores(NamedTuple):
    """What a probe achieved; arrays share one leading shape.

    Attributes:
        valid_auroc: Mean AUROC over validation folds at the chosen C (training AUROC where
            there are no folds).
        test_auroc, test_f1, test_accuracy: On the test rows; NaN AUROC where they hold one class.
        best_c: The chosen C.
        converged: Whether every fit that the result rests on reached its optimum.
        residual: The largest certificate among those fits, see `path.Fit`.
    """

    valid_auroc: jax.Array | np.ndarray
    test_auroc: jax.Array | np.ndarray
    test_f1: jax.Array | np.ndarray
    test_accuracy: jax.Array | np.ndarray
    best_c: jax.Array | np.ndarray
    converged: jax.Array | np.ndarray
    residual: jax.Array | np.ndarray


def problem(split: base.Split, y_train_N: np.ndarray | None = None) -> Problem:
    """Pads a split into bucket sizes.

    Args:
        split: Rows, labels and folds.
        y_train_N: Labels to train on instead of the split's (controls).
    """
    y_train_N = split.y_train_N if y_train_N is None else y_train_N
    num_train, num_test = len(split.train_N), len(split.test_N)
    padded_N = _bucket(num_train, TRAIN_BUCKETS)
    num_folds = _bucket(max(len(split.folds), 1), FOLD_BUCKETS)
    padded_M = _bucket(num_test, TEST_BUCKETS)
    valid_FN = np.zeros((num_folds, padded_N), np.float32)
    for f, fold in enumerate(split.folds):
        valid_FN[f, fold.valid] = 1
    return Problem(
        train_N=_pad(split.train_N, padded_N, np.int32),
        y_N=_pad(y_train_N, padded_N, np.float32),
        weight_N=_pad(np.ones(num_train), padded_N, np.float32),
        valid_FN=valid_FN,
        fold_F=_pad(np.ones(len(split.folds)), num_folds, np.float32),
        test_M=_pad(split.test_N, padded_M, np.int32),
        y_test_M=_pad(split.y_test_N, padded_M, np.float32),
        weight_M=_pad(np.ones(num_test), padded_M, np.float32),
    )


def fit_activations(x_train_ND, x_test_MD, problem: Problem, dtype: str = "auto") -> Scores:
    """L2 logistic probe on activations as they are: all folds and strengths, refit, test.

    Args:
        x_train_ND: Features that `problem.train_N` numbers.
        x_test_MD: Features that `problem.test_M` numbers; the same array, except under shift.
        problem: The split.
        dtype: Arithmetic: `float64`, `float32`, or `auto`: float64 on CPUs.
    """
    dtype = resolve_dtype(dtype)
    with jax.enable_x64(dtype == "float64"):
        scores = _fit_activations(jnp.asarray(x_train_ND), jnp.asarray(x_test_MD), problem, dtype)
        return jax.device_get(scores)


def fit_latents(
    z_train_NK,
    z_test_MK,
    problem: Problem,
    num_latents: Sequence[int],
    penalty: str = "l1",
    dtype: str = "auto",
) -> Scores:
    """k-sparse logistic probes on the first k columns, for every k.

    Args:
        z_train_NK: Latents in rank order, best first, that `problem.train_N` numbers.
        z_test_MK: Latents that `problem.test_M` numbers.
        problem: The split.
        num_latents: The values of k; one beyond K reads all K.
        penalty: `l1` or `l2`.
        dtype: As in `fit_activations`.

    Returns:
        Scores with one entry per k.
    """
    dtype = resolve_dtype(dtype)
    found = {}
    for width, counts in _by_width(num_latents).items():
        train_NK, test_MK = (_columns(z, width) for z in (z_train_NK, z_test_MK))
        # Filled up with k = 0, which costs next to nothing, to a size compiled once.
        size = -(-len(counts) // LATENT_BUCKETS.get(width, 1)) * LATENT_BUCKETS.get(width, 1)
        mask_PK = np.arange(width) < _pad(counts, size, np.int64)[:, None]
        with jax.enable_x64(dtype == "float64"):
            scores = _fit_latents(train_NK, test_MK, mask_PK, problem, penalty, dtype)
            scores = jax.device_get(scores)
        for p, count in enumerate(counts):
            found[count] = Scores(*(field[p] for field in scores))
    return Scores(
        *(np.stack(field) for field in zip(*(found[k] for k in num_latents), strict=True))
    )


@functools.partial(jax.jit, static_argnames=("dtype",))
def _fit_activations(x_train_ND, x_test_MD, problem: Problem, dtype: str) -> Scores:
    x_ND = x_train_ND[problem.train_N].astype(dtype)
    x_MD = x_test_MD[problem.test_M].astype(dtype)
    z_NK, z_MK = reduction.reduce(x_ND, problem.weight_N, x_MD)
    return _fit(z_NK, z_MK, problem, logistic)


@functools.partial(jax.jit, static_argnames=("penalty", "dtype"))
def _fit_latents(z_train_NK, z_test_MK, mask_PK, problem, penalty: str, dtype: str) -> Scores:
    z_NK = z_train_NK[problem.train_N].astype(dtype)
    z_MK = z_test_MK[problem.test_M].astype(dtype)
    weight_N = problem.weight_N.astype(dtype)
    mean_K = weight_N @ z_NK / jnp.maximum(jnp.sum(weight_N), 1)
    z_NK, z_MK = (z_NK - mean_K[None, :]) * weight_N[:, None], z_MK - mean_K[None, :]
    solver = {"l1": l1_logistic, "l2": logistic}[penalty]

    def one(mask_K):
        mask_K = mask_K.astype(dtype)
        return _fit(z_NK * mask_K[None, :], z_MK * mask_K[None, :], problem, solver)

    return jax.lax.map(one, mask_PK)


def _fit(z_NK, z_MK, problem: Problem, solver) -> Scores:
    """Walks the path in every fold, chooses C, refits on all rows, scores the test rows."""
    dtype = z_NK.dtype
    c_R = jnp.asarray(C_GRID, dtype)
    y_N, weight_N, valid_FN, fold_F, y_M, weight_M = (
        jnp.asarray(field).astype(dtype)
        for field in (*problem[1:5], problem.y_test_M, problem.weight_M)
    )

    def walk(valid_N):
        train_N = weight_N * (1 - valid_N)
        fit_R = solver.fit_path(z_NK, y_N, train_N, c_R)
        score_RN = fit_R.coef_K @ z_NK.T + fit_R.intercept[:, None]
        auroc_R = jax.vmap(metrics.auroc, (0, None, None))(score_RN, y_N, valid_N)
        pos, total = jnp.sum(train_N * y_N), jnp.sum(train_N)
        one_class = (pos == 0) | (pos == total)
        return jnp.where(one_class, 0.5, auroc_R), fit_R, one_class

    auroc_FR, fit_FR, one_class_F = jax.lax.map(walk, valid_FN)
    real_F = fold_F > 0
    num_folds = jnp.sum(fold_F)
    valid_R = jnp.sum(jnp.where(real_F[:, None], auroc_FR, 0), axis=0) / jnp.maximum(num_folds, 1)
    # Ties go to the larger C, which stands later.
    best = valid_R.shape[0] - 1 - jnp.argmax(valid_R[::-1])
    best_c = jnp.where(num_folds > 0, c_R[best], DEFAULT_C)
    start = _best_start(fit_FR, lambda fit: solver.value(fit, z_NK, y_N, weight_N, best_c))
    refit = solver.fit(z_NK, y_N, weight_N, best_c, start)
    train_auroc = metrics.auroc(z_NK @ refit.coef_K + refit.intercept, y_N, weight_N)
    logit_M = z_MK @ refit.coef_K + refit.intercept
    probability_M = jax.nn.sigmoid(logit_M)
    counted_FR = (real_F & ~one_class_F)[:, None]
    residual_FR = jnp.where(counted_FR, fit_FR.residual, 0)
    return Scores(
        valid_auroc=jnp.where(num_folds > 0, valid_R[best], train_auroc),
        test_auroc=metrics.auroc(logit_M, y_M, weight_M),
        test_f1=metrics.f1(probability_M, y_M, weight_M),
        test_accuracy=metrics.accuracy(probability_M, y_M, weight_M),
        best_c=best_c,
        converged=refit.converged & jnp.all(fit_FR.converged | ~counted_FR),
        residual=jnp.maximum(refit.residual, jnp.max(residual_FR)),
    )


def _best_start(fit_FR: path.Fit, value: Callable[[path.Fit], jax.Array]) -> path.Fit:
    """Of all fits of all folds, the one with the lowest objective in the refit's problem.

    Not simply the fold's fit at the chosen C: a row that it left out can stand far on the wrong
    side, where the loss has no curvature left for Newton's method to go by.
    """
    fit_P = jax.tree.map(lambda field: field.reshape(-1, *field.shape[2:]), fit_FR)
    best = jnp.argmin(jax.vmap(value)(fit_P))
    return jax.tree.map(lambda field: field[best], fit_P)


def resolve_dtype(dtype: str) -> str:
    """What `auto` stands for: float64 costs a CPU twice float32 and buys a sharp certificate; accelerators differ."""
    if dtype == "auto":
        return "float64" if jax.default_backend() == "cpu" else "float32"
    return dtype


def _by_width(num_latents: Sequence[int]) -> dict[int, list[int]]:
    """Groups latent counts by the padded width that their program runs at."""
    widths: dict[int, list[int]] = {}
    for count in num_latents:
        widths.setdefault(_bucket(count, LATENT_BUCKETS), []).append(count)
    return widths


def _columns(z_NS, width: int) -> np.ndarray:
    """The first `width` columns; absent ones are zero, which no penalised weight leaves."""
    z_NK = np.asarray(z_NS)[:, :width]
    return np.pad(z_NK, ((0, 0), (0, width - z_NK.shape[1])))


def _bucket(size: int, buckets: Iterable[int]) -> int:
    return next((bucket for bucket in buckets if bucket >= size), size)


def _pad(array, size: int, dtype) -> np.ndarray:
    padded = np.zeros(size, dtype)
    padded[: len(array)] = array
    return padded
