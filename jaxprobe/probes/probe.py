"""What a probe is: pure functions of one split's padded arrays, and the protocol that runs them.

A probe fits every candidate value of its hyperparameter in every fold, the mean validation AUROC chooses
one, a refit on all training rows is tested. `run` does that for any probe; a probe's file says only how
its candidates are fitted and scored.

References:
    Kantamneni et al., Are Sparse Autoencoders Useful?, arXiv 2502.16681.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprobe import metrics, regimes

ROWS_AT_ONCE = 256  # of those that are tested


class Problem(NamedTuple):
    """A split in padded arrays, for one probe.

    Attributes:
        train_N: Row numbers of the feature matrix; padding repeats row 0.
        y_N: Training labels.
        weight_N: 1 for real rows, 0 for padding.
        valid_FN: 1 where a row validates in a fold.
        fold_F: 1 for real folds, 0 for padding.
        test_M, y_test_M, weight_M: The same for test rows.
        column_K: Columns of the feature matrix that the probe reads, best first; empty: all of them.
        count: How many of `column_K` are real.
        value_H: Candidate values of the hyperparameter; padding repeats the last.
        num_values: How many of them are real.
        default: The value where there is nothing to validate with.
        seed: Of the probe's own randomness.
    """

    train_N: Any
    y_N: Any
    weight_N: Any
    valid_FN: Any
    fold_F: Any
    test_M: Any
    y_test_M: Any
    weight_M: Any
    column_K: Any
    count: Any
    value_H: Any
    num_values: Any
    default: Any
    seed: Any


class Scores(NamedTuple):
    """What a probe achieved; arrays share one leading shape.

    Attributes:
        valid_auroc: Mean AUROC over validation folds at the chosen value (training AUROC where
            there are no folds).
        test_auroc, test_f1, test_accuracy: On the test rows; NaN AUROC where they hold one class.
        best_value: The chosen value: C, k, a number of components.
        converged: Whether every fit that the result rests on reached its optimum.
        residual: The largest certificate among those fits, see `path.Fit`.
        test_average_precision, test_log_loss, test_calibration_error: Also on the test rows.
    """

    valid_auroc: Any
    test_auroc: Any
    test_f1: Any
    test_accuracy: Any
    best_value: Any
    converged: Any
    residual: Any
    test_average_precision: Any
    test_log_loss: Any
    test_calibration_error: Any


class Linear(NamedTuple):
    """A fitted linear probe: scores are `x @ coef_D + intercept`, in log-odds where that has meaning."""

    coef_D: jax.Array
    intercept: jax.Array
    residual: jax.Array
    converged: jax.Array


class Probe(NamedTuple):
    """A method, as functions that can be traced, vmapped and sharded.

    Attributes:
        prepare: `(x_ND, weight_N, seed) -> prepared`: what all folds share.
        path: `(prepared, y_N, weight_N, value_H) -> (models_H, score_HN)`: one model a candidate, and
            its scores of all N rows. Models have the fields `residual` and `converged`.
        fit: `(prepared, y_N, weight_N, value, models_FH) -> model`: at the chosen value; `models_FH`
            are all folds' models, to start from.
        score: `(prepared, model, x_MD) -> logit_M`.
        values: `(num_train, num_features, smallest_fold) -> candidates`, on the host: rising numbers.
        default: `(num_train, num_features) -> value` where nothing validates.
        larger_wins: Whether ties go to the larger candidate, not to the smaller.
    """

    prepare: Callable
    path: Callable
    fit: Callable
    score: Callable
    values: Callable[[int, int, int], np.ndarray]
    default: Callable[[int, int], float]
    larger_wins: bool = False


def linear(coef_D, intercept) -> Linear:
    """A linear model from a closed form: nothing that could fail to converge."""
    return Linear(coef_D, intercept, jnp.zeros_like(intercept), jnp.full(intercept.shape, True))


def linear_score(prepared, model: Linear, x_MD):
    """`score` of probes whose models are linear in the raw features."""
    del prepared
    return x_MD @ model.coef_D + model.intercept


def one_value(num_train: int, num_features: int, smallest_fold: int) -> np.ndarray:
    """`values` of probes without a hyperparameter."""
    del num_train, num_features, smallest_fold
    return np.zeros(1)


def no_value(num_train: int, num_features: int) -> float:
    """`default` of probes without a hyperparameter."""
    del num_train, num_features
    return 0.0


def map_rows(score: Callable, row_M, count, size: int = ROWS_AT_ONCE):
    """`score` of the rows of the first `count` row numbers, `size` at a time; what no call reaches is 0.

    What it takes grows with `count`, not with how far the row numbers are padded.

    Args:
        score: `row_B -> score_B` or more axes behind, B = `size`.
        row_M: Row numbers.
        count: How many of them are wanted; may be traced.
        size: Rows of a call.
    """
    num_rows = row_M.shape[0]
    size = min(size, num_rows)
    row_M = jnp.pad(jnp.asarray(row_M), (0, -num_rows % size))

    def advance(i, score_M):
        row_B = jax.lax.dynamic_slice(row_M, (i * size,), (size,))
        return jax.lax.dynamic_update_slice_in_dim(score_M, score(row_B), i * size, axis=0)

    one = jax.eval_shape(score, row_M[:size])
    blank = jnp.zeros((row_M.shape[0], *one.shape[1:]), one.dtype)
    calls = (jnp.asarray(count).astype(jnp.int32) + size - 1) // size
    return jax.lax.fori_loop(0, calls, advance, blank)[:num_rows]


def run(probe: Probe, x_MD, problem: Problem, map_folds: Callable, dtype: str) -> Scores:
    """Fits all candidates in every fold, chooses one, refits, tests.

    Args:
        probe: The method.
        x_MD: Features of all rows, in any precision; widened only where they are read.
        problem: The split; rows of weight 0 stand last among the test rows.
        map_folds: `(function, folds) -> results`: `jax.lax.map`, or a vmap of it.
        dtype: Precision of the arithmetic.
    """
    y_N, weight_N, valid_FN, fold_F, y_M, weight_M, value_H = (
        jnp.asarray(field).astype(dtype)
        for field in (*problem[1:5], problem.y_test_M, problem.weight_M, problem.value_H)
    )
    read = functools.partial(_read, x_MD, problem, dtype)
    prepared = probe.prepare(read(problem.train_N), weight_N, problem.seed)
    fold = _fold(probe, prepared, y_N, weight_N, value_H)
    auroc_FH, models_FH, one_class_F = map_folds(fold, (valid_FN, fold_F))
    num_folds = jnp.sum(fold_F)
    valid_H = jnp.sum(jnp.where(fold_F[:, None] > 0, auroc_FH, 0), 0) / jnp.maximum(num_folds, 1)
    best = _choose(valid_H, problem.num_values, probe.larger_wins)
    value = jnp.where(num_folds > 0, value_H[best], jnp.asarray(problem.default, dtype))
    model = probe.fit(prepared, y_N, weight_N, value, models_FH)

    def score(row_B):
        return probe.score(prepared, model, read(row_B))

    logit_M = map_rows(score, problem.test_M, jnp.sum(weight_M > 0))
    valid_auroc = jax.lax.cond(
        num_folds > 0,
        lambda: valid_H[best],
        lambda: metrics.auroc(y_N, score(problem.train_N), weight_N),
    )
    counted_F1 = ((fold_F > 0) & ~one_class_F)[:, None]
    residual = jnp.max(jnp.where(counted_F1, models_FH.residual, 0))
    return Scores(
        valid_auroc=valid_auroc,
        best_value=value,
        converged=model.converged & jnp.all(models_FH.converged | ~counted_F1),
        residual=jnp.maximum(model.residual, residual),
        **_test_scores(logit_M, y_M, weight_M),
    )


def _fold(probe: Probe, prepared, y_N, weight_N, value_H):
    """`(valid_N, real) -> (auroc_H, models_H, one_class)`; zeros for a fold that only pads."""

    def fit(valid_N):
        train_N = weight_N * (1 - valid_N)
        models_H, score_HN = probe.path(prepared, y_N, train_N, value_H)
        auroc_H = jax.vmap(metrics.auroc, (None, 0, None))(y_N, score_HN, valid_N)
        pos, total = jnp.sum(train_N * y_N), jnp.sum(train_N)
        one_class = (pos == 0) | (pos == total)
        # A hold-out of one class ranks nothing: neither better nor worse than chance.
        neutral_H = one_class | jnp.isnan(auroc_H)
        return jnp.where(neutral_H, 0.5, auroc_H), models_H, one_class

    def fold(given):
        valid_N, real = given
        shapes = jax.eval_shape(fit, valid_N)
        blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.cond(real > 0, fit, lambda valid_N: blank, valid_N)

    return fold


def _test_scores(logit_M, y_M, weight_M) -> dict[str, jax.Array]:
    """Fields of `Scores` that test rows give."""
    probability_M = jax.nn.sigmoid(logit_M)
    # Not of the probability, which is 1/2 in print where log-odds are small, and 1 where they are large.
    guess_M = jnp.heaviside(logit_M, jnp.zeros_like(logit_M))
    return {
        "test_auroc": metrics.auroc(y_M, logit_M, weight_M),
        "test_f1": metrics.f1(y_M, guess_M, weight_M),
        "test_accuracy": metrics.accuracy(y_M, guess_M, weight_M),
        "test_average_precision": metrics.average_precision(y_M, logit_M, weight_M),
        "test_log_loss": metrics.log_loss(y_M, logit_M, weight_M),
        "test_calibration_error": metrics.expected_calibration_error(y_M, probability_M, weight_M),
    }


def _read(x_MD, problem: Problem, dtype: str, row_B):
    """Rows in the columns that the probe reads; those beyond its count are zero, which no probe weighs."""
    x_BD = x_MD[row_B]
    width = problem.column_K.shape[0]
    if width == 0:
        return x_BD.astype(dtype)
    mask_K = (jnp.arange(width, dtype=jnp.int32) < problem.count).astype(dtype)
    return x_BD[:, problem.column_K].astype(dtype) * mask_K[None, :]


def _choose(valid_H, num_values, larger_wins: bool):
    """The first, or the last, of the best candidates; see `regimes.SAME_AUROC`."""
    real_H = jnp.arange(valid_H.shape[0], dtype=jnp.int32) < num_values
    valid_H = jnp.where(real_H, valid_H, -1)
    best_H = valid_H >= jnp.max(valid_H) - regimes.SAME_AUROC
    if larger_wins:
        return valid_H.shape[0] - 1 - jnp.argmax(best_H[::-1])
    return jnp.argmax(best_H)
