"""Probes that a library fits on the host, one split at a time: their type, and what they share.

They cannot be traced; stages run them on threads while the device works. They return predictions, and metrics
are computed from these as for all other methods.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxprobe import base, checks, metrics
from jaxprobe.probes import scaling


class HostProbe(NamedTuple):
    """A method that a library fits.

    Attributes:
        fit: `(x_ND, split, seed) -> base.Prediction`; the split numbers rows of `x_ND`, float32. Raises
            ValueError where the library is missing.
        weighted: Whether it takes weights of training rows.
    """

    fit: Callable[[np.ndarray, base.Split, int], base.Prediction]
    weighted: bool = True

    @property
    def on_host(self) -> bool:
        """Whether a library fits it on the host: true."""
        return True


class Rows(NamedTuple):
    """A split's rows, float32: the training rows, and those of all test sets, concatenated."""

    train_ND: np.ndarray
    test_MD: np.ndarray


def rows(x_ND: np.ndarray, split: base.Split) -> Rows:
    """The rows that a split numbers."""
    checks.check_shape("x_ND", x_ND, (None, None))
    x_ND = np.asarray(x_ND, np.float32)
    return Rows(x_ND[split.train_N], x_ND[np.concatenate([test.row_M for test in split.tests])])


def weights(split: base.Split, part: np.ndarray | slice = slice(None)) -> np.ndarray | None:
    """Weights of the training positions in `part`, as libraries take them; None where all are 1."""
    return None if split.weight_train_N is None else np.asarray(split.weight_train_N)[part]


def standardised(found: Rows) -> Rows:
    """Both sets minus the training mean, divided by the training deviation (1 for a constant feature)."""
    wide_ND = found.train_ND.astype(np.float64)
    mean_D, variance_D = wide_ND.mean(axis=0), wide_ND.var(axis=0)
    scale_D = scaling.deviation(np, mean_D, variance_D, len(wide_ND))
    return Rows(*(((x_MD - mean_D) / scale_D).astype(np.float32) for x_MD in found))


class Validated(NamedTuple):
    """A candidate's mean AUROC over folds, and log-odds of each fold's validation rows (NaN elsewhere)."""

    auroc: float
    score_FN: np.ndarray


def unvalidated(split: base.Split) -> Validated:
    """The value before any candidate is tried, and where there are no folds."""
    return Validated(float("nan"), np.full((len(split.folds), len(split.train_N)), np.nan))


def validate(
    split: base.Split, predict: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Validated:
    """Scores every fold's validation rows by a model of its training rows.

    Args:
        split: Labels, weights and folds, at least one.
        predict: `(train positions, valid positions) -> log-odds`.

    Returns:
        The mean AUROC and the log-odds; a fold whose training or validation rows hold one class only
        counts as an AUROC of 1/2.
    """
    y_N = np.asarray(split.y_train_N)
    score_FN = np.full((len(split.folds), len(y_N)), np.nan)
    aurocs = []
    for score_N, fold in zip(score_FN, split.folds, strict=True):
        if len(np.unique(y_N[fold.train])) == 2:
            score_N[fold.valid] = predict(fold.train, fold.valid)
        aurocs.append(_fold_auroc(split, y_N, score_N, fold))
    return Validated(float(np.mean(aurocs)), score_FN)


def _fold_auroc(split: base.Split, y_N: np.ndarray, score_N: np.ndarray, fold: base.Fold) -> float:
    if min(len(np.unique(y_N[part])) for part in (fold.train, fold.valid)) < 2:
        return 0.5
    return auroc(y_N[fold.valid], score_N[fold.valid], weights(split, fold.valid))


def auroc(y_N: np.ndarray, score_N: np.ndarray, weight_N: np.ndarray | None = None) -> float:
    """`metrics.auroc` of host arrays, in float64."""
    found = metrics.evaluate(
        metrics.chosen(("auroc",)),
        np.asarray(y_N),
        np.asarray(score_N, np.float64),
        np.ones(len(y_N)) if weight_N is None else weight_N,
    )
    return float(found["auroc"])


def tied(logit_M: np.ndarray, probability_M: np.ndarray) -> np.ndarray:
    """Log-odds that tie where the library's probabilities, which the published code ranks by, do.

    Probabilities near 1 round to the same number where log-odds still differ.
    """
    _, first_P, number_M = np.unique(probability_M, return_index=True, return_inverse=True)
    return np.asarray(logit_M, np.float64)[first_P][number_M]


def by_set(tests: Sequence[base.TestSet], score_M: np.ndarray) -> dict[str, np.ndarray]:
    """Splits the concatenated scores of all test sets by the sets' names."""
    ends = np.cumsum([len(test.row_M) for test in tests])[:-1]
    return {test.name: part_M for test, part_M in zip(tests, np.split(score_M, ends), strict=True)}
