"""All metrics by name, one line each: functions of a probe's log-odds on the test rows."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprobe import arguments, checks
from jaxprobe.metrics import decisions, kernels


class Metric(NamedTuple):
    """A figure of merit.

    Attributes:
        evaluate: `(y_M, score_M, weight_M, group_M) -> scalar`: labels in {0, 1}, log-odds of class 1,
            weights (0 leaves a row out), and a group's code per row or None. It is traced and vmapped.
        threshold: `(y_V, score_V, weight_V) -> scalar`, where decisions are not made at log-odds 0: it
            is given the validation rows, scored by models that were not fitted on them, and its result
            is subtracted from `score_M` first. Without folds it is NaN, and so is the metric.
        larger_is_better: Whether larger values are better.
    """

    evaluate: Callable[..., Any]
    threshold: Callable[..., Any] | None = None
    larger_is_better: bool = True


class HeldOut(NamedTuple):
    """Validation rows, scored by models that were not fitted on them; a row may occur more than once.

    Attributes:
        y_V: Labels.
        score_V: Log-odds.
        weight_V: Weights; 0 for padding.
    """

    y_V: Any
    score_V: Any
    weight_V: Any


def _by_score(kernel: Callable) -> Metric:
    return Metric(lambda y_M, score_M, weight_M, group_M: kernel(y_M, score_M, weight_M))


def _by_guess(kernel: Callable) -> Metric:
    """A metric of decisions at log-odds 0.

    Not at probability 1/2, to which small log-odds would round.
    """

    def evaluate(y_M, score_M, weight_M, group_M):
        return kernel(y_M, jnp.heaviside(score_M, jnp.zeros_like(score_M)), weight_M)

    return Metric(evaluate)


def _calibration_error(y_M, score_M, weight_M, group_M):
    return kernels.expected_calibration_error(y_M, jax.nn.sigmoid(score_M), weight_M)


def _recall_at_fpr(rate: float) -> Metric:
    return _by_score(decisions.recall)._replace(
        threshold=functools.partial(decisions.threshold_at_fpr, rate=rate)
    )


METRICS: dict[str, Metric] = {
    "auroc": _by_score(kernels.auroc),
    "f1": _by_guess(kernels.f1),
    "accuracy": _by_guess(kernels.accuracy),
    "average_precision": _by_score(kernels.average_precision),
    "log_loss": _by_score(kernels.log_loss)._replace(larger_is_better=False),
    "calibration_error": Metric(_calibration_error, larger_is_better=False),
    "recall_at_fpr_01": _recall_at_fpr(0.01),
    "recall_at_fpr_05": _recall_at_fpr(0.05),
    "recall_at_fpr_10": _recall_at_fpr(0.10),
    "worst_group_accuracy": Metric(decisions.worst_group_accuracy),
}
DEFAULT = ("auroc", "f1", "accuracy", "average_precision", "log_loss", "calibration_error")


def chosen(names: Iterable[str]) -> dict[str, Metric]:
    """The metrics of these names, in their order.

    Raises:
        ValueError: A single string instead of several names, or an unknown name.
    """
    if isinstance(names, str):
        raise ValueError(f"`metrics` must be several names, got one text; write ({names!r},)")
    names = tuple(names)
    for name in names:
        checks.check_choice("metric", name, METRICS)
    return {name: METRICS[name] for name in names}


def evaluate(
    metrics: Mapping[str, Metric], y_M, score_M, weight_M, group_M=None, held_out=None
) -> dict[str, Any]:
    """Evaluates several metrics on one test set.

    Args:
        metrics: By name, as `chosen` returns them.
        y_M: Labels in {0, 1}.
        score_M: Log-odds of class 1.
        weight_M: Non-negative weights; 0 leaves a row out.
        group_M: A group's code per row, -1 for none; None where there are no groups.
        held_out: A `HeldOut`, for metrics that set a threshold on it.

    Returns:
        A scalar per name.

    Raises:
        ValueError: A metric has a threshold, and `held_out` is missing.

    Example:
        >>> import numpy as np
        >>> from jaxprobe import metrics
        >>> y, score = np.array([0, 1, 1]), np.array([-1.0, 2.0, -0.5])
        >>> found = metrics.evaluate(metrics.chosen(("auroc", "accuracy")), y, score, np.ones(3))
        >>> float(found["auroc"]), round(float(found["accuracy"]), 4)
        (1.0, 0.6667)
    """
    concrete = not arguments.traced(y_M, score_M, weight_M, group_M, *(held_out or ()))
    # In float64 concrete scores keep their order, whatever precision JAX uses elsewhere.
    with jax.enable_x64(True) if concrete else contextlib.nullcontext():
        found = {}
        for name, metric in metrics.items():
            moved_M = score_M
            if metric.threshold is not None:
                if held_out is None:
                    raise ValueError(
                        f"metric {name!r} sets its threshold on validation rows: give `held_out`"
                    )
                moved_M = score_M - metric.threshold(*held_out).astype(score_M.dtype)
            # So that a metric may multiply a comparison by a weight, also under strict promotion.
            with jax.numpy_dtype_promotion("standard"):
                value = metric.evaluate(y_M, moved_M, weight_M, group_M)
            found[name] = np.asarray(value) if concrete else value
    return found
