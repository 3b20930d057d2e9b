"""The protocol that runs any probe on one split: all candidates in every fold, a choice, a refit, a test.

References:
    Kantamneni et al., Are Sparse Autoencoders Useful?, arXiv 2502.16681.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxprobe import metrics, regimes
from jaxprobe.probes.probe import Array, Probe, map_rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lane:
    """A split in padded arrays, for one probe.

    Attributes:
        train_N: Row numbers of the feature matrix; padding repeats row 0.
        y_N: Training labels.
        weight_N: Weights of training rows, 1 where the split has none; 0 for padding.
        valid_FN: 1 where a row validates in a fold.
        fold_F: 1 for real folds, 0 for padding.
        test_M, y_test_M: Rows of all test sets, concatenated, and their labels.
        weight_TM: Per test set, 1 for its rows; 0 for all others and for padding, which comes last.
        group_M: A group's code per test row, from 0; -1 for none.
        column_K: Columns of the feature matrix that the probe reads, best first; empty: all of them.
        count: How many of `column_K` are real.
        value_H: Candidate values of the hyperparameter; padding repeats the last.
        num_values: How many of them are real.
        default: The value where there are no folds.
        seed: Seed of the probe's own randomness.
    """

    train_N: Array
    y_N: Array
    weight_N: Array
    valid_FN: Array
    fold_F: Array
    test_M: Array
    y_test_M: Array
    weight_TM: Array
    group_M: Array
    column_K: Array
    count: Array
    value_H: Array
    num_values: Array
    default: Array
    seed: Array


class Asked(NamedTuple):
    """What a run returns besides its validation scores; hashable, because a program is compiled for it.

    Attributes:
        metrics: Names and metrics to evaluate on each test set.
        scores: Whether to return every row's log-odds.
        models: Whether to return the model that was tested.
    """

    metrics: tuple[tuple[str, metrics.Metric], ...]
    scores: bool = False
    models: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a lane.

    Attributes:
        valid_auroc, best_value, converged, residual: As in `Scores`.
        metric_T: Per metric, by name, a number for each test set.
        score_M: Log-odds of all test rows, and
        valid_score_FN: of training rows by each fold's model at the chosen value: as in
            `base.Prediction`. None where scores were not asked for.
        model: The model that scored the test rows, over the lane's columns; None where not asked for.
    """

    valid_auroc: Array
    best_value: Array
    converged: Array
    residual: Array
    metric_T: Mapping[str, Array]
    score_M: Array | None = None
    valid_score_FN: Array | None = None
    model: Any = None


for _kind in (Lane, Outcome):
    jax.tree_util.register_dataclass(_kind, [field.name for field in dataclasses.fields(_kind)], [])


def run(
    probe: Probe, x_MD: Array, lane: Lane, asked: Asked, map_folds: Callable, dtype: str
) -> Outcome:
    """Fits all candidates in every fold, chooses one, refits, tests.

    Args:
        probe: The method.
        x_MD: Features of all rows, in any precision; widened only where they are read.
        lane: The split.
        asked: What to evaluate, and what to return.
        map_folds: `(function, folds) -> results`: `jax.lax.map`, or `jax.vmap` applied to them.
        dtype: Precision of the arithmetic.
    """
    lane = _widened(lane, dtype)
    y_N, weight_N, fold_F = lane.y_N, lane.weight_N, lane.fold_F
    read = functools.partial(_read, x_MD, lane, dtype)
    prepared = probe.prepare(read(lane.train_N), weight_N, lane.seed)
    fold = _fold(probe, prepared, lane)
    found_F = map_folds(fold, (lane.valid_FN, fold_F))
    num_folds = jnp.sum(fold_F)
    total_H = jnp.sum(jnp.where(fold_F[:, None] > 0, found_F.auroc_H, 0), 0)
    valid_H = total_H / jnp.maximum(num_folds, 1)
    best = choose(valid_H, lane.num_values, probe.larger_wins)
    value = jnp.where(num_folds > 0, lane.value_H[best], lane.default)
    fit = probe.fit(prepared, y_N, weight_N, value, found_F.models_H)
    model = probe.finish(prepared, fit)

    def score(row_B):
        return model(read(row_B))

    logit_M = map_rows(score, lane.test_M, jnp.sum(lane.weight_TM > 0))
    valid_auroc = jax.lax.cond(
        num_folds > 0,
        lambda: valid_H[best],
        lambda: metrics.auroc(y_N, score(lane.train_N), weight_N),
    )
    counted_F = (fold_F > 0) & ~found_F.one_class
    residual_FH = jnp.where(counted_F[:, None], found_F.models_H.residual, 0)
    converged_FH = found_F.models_H.converged | ~counted_F[:, None]
    held_out_FN = _held_out(probe, lane, found_F.score_HN[:, best], counted_F)
    return Outcome(
        valid_auroc=valid_auroc,
        best_value=value,
        converged=fit.converged & jnp.all(converged_FH),
        residual=jnp.maximum(fit.residual, jnp.max(residual_FH)),
        metric_T=_on_tests(asked, lane, logit_M, held_out_FN),
        score_M=logit_M if asked.scores else None,
        valid_score_FN=held_out_FN if asked.scores else None,
        model=model if asked.models else None,
    )


def _widened(lane: Lane, dtype: str) -> Lane:
    """The lane with its floating-point numbers in the precision of the arithmetic."""
    real = ("y_N", "weight_N", "valid_FN", "fold_F", "y_test_M", "weight_TM", "value_H", "default")
    return dataclasses.replace(
        lane, **{name: jnp.asarray(getattr(lane, name)).astype(dtype) for name in real}
    )


class _Validated(NamedTuple):
    """A fold's candidates: AUROCs, models, scores of all rows, and whether a class was missing."""

    auroc_H: jax.Array
    models_H: Any
    score_HN: Array
    one_class: jax.Array


def _fold(probe: Probe, prepared, lane: Lane) -> Callable[[Any], _Validated]:
    """The function of (validation rows, whether the fold is real); zeros for a fold that only pads."""

    def fit(valid_N) -> _Validated:
        train_N = lane.weight_N * (1 - valid_N)
        models_H, score_HN = probe.path(prepared, lane.y_N, train_N, lane.value_H)
        # Validation rows are weighted as they are in training.
        auroc_H = jax.vmap(metrics.auroc, (None, 0, None))(
            lane.y_N, score_HN, valid_N * lane.weight_N
        )
        pos, total = jnp.sum(train_N * lane.y_N), jnp.sum(train_N)
        one_class = (pos == 0) | (pos == total)
        # A hold-out of one class cannot be ranked: it counts as chance.
        neutral_H = one_class | jnp.isnan(auroc_H)
        return _Validated(jnp.where(neutral_H, 0.5, auroc_H), models_H, score_HN, one_class)

    def fold(given) -> _Validated:
        valid_N, real = given
        shapes = jax.eval_shape(fit, valid_N)
        blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.cond(real > 0, fit, lambda valid_N: blank, valid_N)

    return fold


def _held_out(probe: Probe, lane: Lane, score_FN, counted_F):
    """Log-odds of validation rows, by models that were not fitted on them; NaN elsewhere."""
    if probe.log_odds is not None:
        train_FN = lane.weight_N[None, :] * (1 - lane.valid_FN)
        score_FN = jax.vmap(probe.log_odds, (0, None, 0))(score_FN, lane.y_N, train_FN)
    seen_FN = counted_F[:, None] & (lane.valid_FN > 0)
    return jnp.where(seen_FN, score_FN, jnp.nan)


def _on_tests(asked: Asked, lane: Lane, logit_M, held_out_FN) -> dict[str, jax.Array]:
    """Every requested metric on every test set."""
    kept_FN = ~jnp.isnan(held_out_FN)
    held_out = metrics.HeldOut(
        y_V=jnp.broadcast_to(lane.y_N, held_out_FN.shape).ravel(),
        score_V=jnp.where(kept_FN, held_out_FN, 0).ravel(),
        weight_V=jnp.where(kept_FN, lane.weight_N[None, :], 0).ravel(),
    )

    def on_set(weight_M) -> dict[str, jax.Array]:
        return metrics.evaluate(
            dict(asked.metrics), lane.y_test_M, logit_M, weight_M, lane.group_M, held_out
        )

    # A Python loop over sets (most often one), so that the program of one set has no extra axis.
    found = [on_set(weight_M) for weight_M in lane.weight_TM]
    return {name: jnp.stack([one[name] for one in found]) for name, _ in asked.metrics}


def _read(x_MD, lane: Lane, dtype: str, row_B):
    """Rows in the columns that the probe reads; columns beyond its count are zero, so they have no effect."""
    x_BD = x_MD[row_B]
    width = lane.column_K.shape[0]
    if width == 0:
        return x_BD.astype(dtype)
    mask_K = (jnp.arange(width, dtype=jnp.int32) < lane.count).astype(dtype)
    return x_BD[:, lane.column_K].astype(dtype) * mask_K[None, :]


def choose(valid_H: Array, num_values: Array | int, larger_wins: bool) -> Array:
    """The index of the first, or last, of the best candidates; see `regimes.SAME_AUROC`."""
    real_H = jnp.arange(valid_H.shape[0], dtype=jnp.int32) < num_values
    valid_H = jnp.where(real_H, valid_H, -1)
    best_H = valid_H >= jnp.max(valid_H) - regimes.SAME_AUROC
    if larger_wins:
        return valid_H.shape[0] - 1 - jnp.argmax(best_H[::-1])
    return jnp.argmax(best_H)
