"""Outcomes of lanes as one table of scores, without the lanes' padding."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jaxprobe import arguments, base
from jaxprobe.probes import exact
from jaxprobe.probes.running import Asked, Outcome
from jaxprobe.probes.scores import Scores


def shaped(
    outcomes: Sequence[Outcome],
    splits: Sequence[base.Split],
    columns: Sequence[np.ndarray] | None,
    counts: Sequence[int],
    asked: Asked,
) -> Scores:
    """All outcomes in arrays [splits], or [splits, k]."""
    traced = arguments.traced(*(one.valid_auroc for one in outcomes))
    xp = jnp if traced else np
    shape = (len(splits), len(counts)) if columns is not None else (len(splits),)
    of_split = [split for split in splits for _ in counts]
    valid_L = [one.valid_auroc for one in outcomes]
    if not traced:
        valid_L = [exact.valid_auroc(*pair) for pair in zip(valid_L, of_split, strict=True)]
    most = max(len(split.tests) for split in splits)

    def stacked(values: Sequence):
        return xp.stack(values).reshape(*shape, *np.shape(values[0]))

    def on_sets(name: str):
        values = [one.metric_T[name] for one in outcomes]
        blank = ((0, most - len(value_T)) for value_T in values)
        return stacked(
            [
                xp.pad(value_T, room, constant_values=np.nan)
                for value_T, room in zip(values, blank, strict=True)
            ]
        )

    predictions = None
    if asked.scores:
        one_each = [_prediction(*three) for three in zip(outcomes, of_split, valid_L, strict=True)]
        predictions = nested(one_each, shape)
    return Scores(
        valid_auroc=stacked(valid_L),
        best_value=stacked([one.best_value for one in outcomes]),
        converged=stacked([one.converged for one in outcomes]),
        residual=stacked([one.residual for one in outcomes]),
        metrics={name: on_sets(name) for name, _ in asked.metrics},
        test_sets=tuple(tuple(test.name for test in split.tests) for split in splits),
        predictions=predictions,
    )


def _prediction(outcome: Outcome, split: base.Split, valid_auroc) -> base.Prediction:
    """An outcome without its padding."""
    score_M, valid_score_FN = outcome.score_M, outcome.valid_score_FN
    if score_M is None or valid_score_FN is None:
        raise ValueError("a prediction needs an outcome's scores: ask for them with `keep_scores`")
    sizes = [len(test.row_M) for test in split.tests]
    starts = np.cumsum([0, *sizes])
    return base.Prediction(
        valid_auroc=valid_auroc,
        score_M={
            test.name: score_M[start : start + size]
            for test, start, size in zip(split.tests, starts, sizes, strict=False)
        },
        valid_score_FN=valid_score_FN[: len(split.folds), : len(split.train_N)],
        best_value=outcome.best_value,
        converged=outcome.converged,
        residual=outcome.residual,
    )


def nested(values: Sequence, shape: tuple[int, ...]) -> tuple:
    """One value per lane as a tuple of `shape`, nested where it has two axes."""
    if len(shape) == 1:
        return tuple(values)
    width = shape[1]
    return tuple(tuple(values[s * width : (s + 1) * width]) for s in range(shape[0]))
