"""A probe's scores on many splits, and metrics of predictions from any method."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from jaxprobe import base, metrics


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """A probe's scores; arrays share one leading shape, [splits] or [splits, k].

    Attributes:
        valid_auroc: Mean AUROC over validation folds at the chosen value (training AUROC where
            there are no folds).
        best_value: The chosen value: C, k, a number of components.
        converged: Whether every fit that the result rests on reached its optimum.
        residual: The largest certificate among those fits, see `c_path.Fit`.
        metrics: Per metric, by name, numbers with one more axis: the split's test sets, in order; padded
            with NaN for a split that has fewer sets than others.
        test_sets: Per split, the names of its test sets.
        predictions: Per split, or per split and k, its `base.Prediction`, where scores were kept.
        probes: In the same way its `FittedProbe`, where probes were kept; None for a method that does not
            return its model (xgboost).
        test_auroc, test_f1, test_accuracy, test_average_precision, test_log_loss,
            test_calibration_error: On the first test set; the AUROC is NaN where it holds one class.
    """

    valid_auroc: Any
    best_value: Any
    converged: Any
    residual: Any
    metrics: Mapping[str, Any]
    test_sets: tuple[tuple[str, ...], ...]
    predictions: tuple[Any, ...] | None = None
    probes: tuple[Any, ...] | None = None

    def on(self, test_set: str) -> dict[str, Any]:
        """Every metric on the test set of this name; NaN for splits without one.

        Raises:
            ValueError: No split has a test set of this name.
        """
        places = [names.index(test_set) if test_set in names else -1 for names in self.test_sets]
        if max(places) < 0:
            known = ", ".join(sorted({name for names in self.test_sets for name in names}))
            raise ValueError(f"`test_set` must be one of {known}; got {test_set!r}")
        return {
            name: np.stack(
                [
                    value_ST[s, ..., place] if place >= 0 else np.nan * value_ST[s, ..., 0]
                    for s, place in enumerate(places)
                ]
            )
            for name, value_ST in self.metrics.items()
        }

    def _first(self, name: str) -> Any:
        """A metric on the first test set of each split."""
        if name not in self.metrics:
            raise AttributeError(
                f"metric {name!r} was not asked for, only {', '.join(self.metrics)}; name it in"
                " `metrics` of fit_grid"
            )
        return self.metrics[name][..., 0]

    @property
    def test_auroc(self) -> Any:
        """Area under the ROC curve."""
        return self._first("auroc")

    @property
    def test_f1(self) -> Any:
        """F1 at log-odds 0, weighted by the classes' support."""
        return self._first("f1")

    @property
    def test_accuracy(self) -> Any:
        """Share of rows on the right side of log-odds 0."""
        return self._first("accuracy")

    @property
    def test_average_precision(self) -> Any:
        """Area under the precision-recall step curve."""
        return self._first("average_precision")

    @property
    def test_log_loss(self) -> Any:
        """Mean negative log-likelihood in nats."""
        return self._first("log_loss")

    @property
    def test_calibration_error(self) -> Any:
        """Mean gap between confidence and frequency in ten bins."""
        return self._first("calibration_error")


jax.tree_util.register_dataclass(
    Scores,
    ("valid_auroc", "best_value", "converged", "residual", "metrics", "predictions", "probes"),
    ("test_sets",),
)


def metrics_of(
    names: Iterable[str], split: base.Split, prediction: base.Prediction
) -> dict[str, np.ndarray]:
    """Metrics of a prediction from any method, computed on the host.

    Args:
        names: Names from `metrics.METRICS`.
        split: Labels, weights, groups.
        prediction: Scores of the split's rows.

    Returns:
        Per metric a float64 number for each of the split's test sets.

    Raises:
        ValueError: An unknown metric, or scores of other rows than the split's.
    """
    chosen = metrics.chosen(names)
    held_out = _held_out(split, prediction)
    found = []
    for test in split.tests:
        score_M = np.asarray(prediction.score_M[test.name], np.float64)
        found.append(
            metrics.evaluate(
                chosen,
                np.asarray(test.y_M),
                score_M,
                np.ones(len(score_M)),
                test.group_M,
                held_out,
            )
        )
    return {name: np.array([one[name] for one in found], np.float64) for name in chosen}


def _held_out(split: base.Split, prediction: base.Prediction) -> metrics.HeldOut:
    score_FN = np.asarray(prediction.valid_score_FN, np.float64)
    kept_FN = ~np.isnan(score_FN)
    weight_N = split.weight_train_N
    weight_N = np.ones(len(split.train_N)) if weight_N is None else np.asarray(weight_N)
    return metrics.HeldOut(
        y_V=np.broadcast_to(split.y_train_N, score_FN.shape)[kept_FN],
        score_V=score_FN[kept_FN],
        weight_V=np.broadcast_to(weight_N, score_FN.shape)[kept_FN],
    )
