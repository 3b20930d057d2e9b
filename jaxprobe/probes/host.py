"""Probes that a library fits on the host, a split at a time: what they are, and their scores.

They cannot be traced; stages run them on threads beside the device's work. Metrics are the same functions
as everywhere, on the CPU, over arrays padded to few sizes so that few programs are compiled.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprobe import base, checks, metrics
from jaxprobe.probes.probe import Scores

BUCKET = 1024  # rows of scores are padded to multiples of this


class HostProbe(NamedTuple):
    """A method that a library fits.

    Attributes:
        fit: `(x_ND, split, x_test_MD, seed) -> Scores` of floats. `split.train_N` are rows of `x_ND`,
            `split.test_N` rows of `x_test_MD`; both are float32, and may be the same array. Raises
            ValueError where shapes disagree or the library is missing.
    """

    fit: Callable[..., Scores]


def rows(x_ND, split: base.Split, x_test_MD) -> tuple[np.ndarray, np.ndarray]:
    """The training and the test rows of a split, float32.

    Raises:
        ValueError: The matrices hold different features.
    """
    checks.check_shape("x_ND", x_ND, (None, None))
    checks.check_shape("x_test_MD", x_test_MD, (None, x_ND.shape[1]), "the same features")
    train_ND, test_MD = np.asarray(x_ND)[split.train_N], np.asarray(x_test_MD)[split.test_N]
    return train_ND.astype(np.float32), test_MD.astype(np.float32)


def standardised(x_ND: np.ndarray, x_test_MD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sets less the training mean, over the training deviation (1 for a constant feature)."""
    wide_ND = x_ND.astype(np.float64)
    mean_D, variance_D = wide_ND.mean(axis=0), wide_ND.var(axis=0)
    rounding = len(x_ND) * np.finfo(np.float64).eps
    constant_D = variance_D <= rounding * variance_D + (rounding * mean_D) ** 2
    scale_D = np.where(constant_D, 1, np.sqrt(variance_D))
    return tuple(((x_MD - mean_D) / scale_D).astype(np.float32) for x_MD in (wide_ND, x_test_MD))


def fold_auroc(
    y_N: np.ndarray,
    fold: base.Fold,
    predict: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> float:
    """Validation AUROC of a fold; 1/2 where its training or its validation rows hold one class.

    Args:
        y_N: Training labels.
        fold: Positions to train on and to validate.
        predict: `(train positions, valid positions) -> scores`.
    """
    if min(len(np.unique(y_N[part])) for part in (fold.train, fold.valid)) < 2:
        return 0.5
    return auroc(y_N[fold.valid], predict(fold.train, fold.valid))


def auroc(y_N: np.ndarray, score_N: np.ndarray) -> float:
    """`metrics.auroc` of host arrays."""
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        return float(_auroc(*_padded(y_N, score_N)))


def scores(score_M: np.ndarray, logit_M: np.ndarray, y_M: np.ndarray, **others) -> Scores:
    """All of a probe's scores.

    Args:
        score_M: What ranks the test rows.
        logit_M: Log-odds of class 1; 0 predicts class 0.
        y_M: Test labels.
        **others: Fields of `Scores` that do not come from test rows.
    """
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        ranked, counted = _padded(y_M, score_M), _padded(y_M, logit_M)
        found = {name: float(value) for name, value in _on_test(ranked, counted).items()}
    return Scores(**found, **others)


@jax.jit
def _auroc(y_N, score_N, weight_N):
    return metrics.auroc(y_N, score_N, weight_N)


@jax.jit
def _on_test(ranked, counted):
    y_M, logit_M, weight_M = counted
    probability_M = jax.nn.sigmoid(logit_M)
    guess_M = jnp.heaviside(logit_M, jnp.zeros_like(logit_M))
    return {
        "test_auroc": metrics.auroc(*ranked),
        "test_f1": metrics.f1(y_M, guess_M, weight_M),
        "test_accuracy": metrics.accuracy(y_M, guess_M, weight_M),
        "test_average_precision": metrics.average_precision(*ranked),
        "test_log_loss": metrics.log_loss(y_M, logit_M, weight_M),
        "test_calibration_error": metrics.expected_calibration_error(y_M, probability_M, weight_M),
    }


def _padded(y_N: np.ndarray, score_N: np.ndarray) -> list[np.ndarray]:
    """Float64 labels, scores and weights up to a multiple of `BUCKET`."""
    padding = (0, -len(score_N) % BUCKET)
    columns = (y_N, score_N, np.ones(len(score_N)))
    return [np.pad(np.asarray(column, np.float64), padding) for column in columns]
