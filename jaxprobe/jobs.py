"""What an experiment asks for (prompts to run, predictions to make), and the result rows made from it."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxprobe.base import Arrow, Prediction, ResultRow, Site, Split, TextDataset
from jaxprobe.features.ranked import Ranking
from jaxprobe.features.read import Features
from jaxprobe.probes import FittedProbe
from jaxprobe.probes.scores import metrics_of
from jaxprobe.store import Tap, sha256_of
from jaxprobe.workspace import Workspace


@dataclasses.dataclass(frozen=True, kw_only=True)
class Need:
    """Prompts to run through the model, and where to read activations.

    Attributes:
        texts: The prompts.
        taps: Sites and poolings to read.
    """

    texts: Sequence[str]
    taps: tuple[Tap, ...]

    @property
    def hashes(self) -> Sequence[bytes]:
        """The SHA-256 of each prompt, computed once where the prompts are a dataset's."""
        known = getattr(self.texts, "sha256", None)
        return sha256_of(self.texts) if known is None else known


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """Predictions that are made together: one method on several splits of one dataset, for several k.

    Attributes:
        dataset: The table whose rows the splits number.
        site: Where activations are read.
        arrows: The methods; they differ only in k.
        splits: What they are fitted on and tested on.
        predict: `(job, workspace) -> evaluations`, split by split, and within a split arrow by arrow.
        settings: What else changes the numbers; JSON types.
        latents: All splits of the dataset whose latents are ranked together, which include `splits`.
            Empty where no latents are read.
        ranking: How these latents are ranked.
        metrics: Metrics that are recorded in addition to the columns of a row; the fit stage sets the
            experiment's.
        features: What its probes read, unless that is the activations at `site`, pooled as the arrows
            say, or ranked latents.
    """

    dataset: TextDataset
    site: Site
    arrows: tuple[Arrow, ...]
    splits: tuple[Split, ...]
    predict: "Callable[[Job, Workspace], Sequence[Evaluation]]"
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    latents: tuple[Split, ...] = ()
    ranking: Ranking | None = None
    metrics: tuple[str, ...] = ()
    features: tuple[Features, ...] = ()

    def reads(self) -> tuple[TextDataset, str, Site, tuple[Split, ...], Ranking]:
        """Which latents it reads: the arguments of `Workspace.latents`.

        Raises:
            ValueError: `latents` or `ranking` is missing.
        """
        if self.ranking is None:
            raise ValueError(
                f"a job on {self.arrow.features} must say how its latents are ranked: give `latents` and"
                " `ranking`"
            )
        return self.dataset, self.arrow.features, self.site, self.latents, self.ranking

    @property
    def arrow(self) -> Arrow:
        """The first arrow: features, method and control are the same for all."""
        return self.arrows[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of one arrow on one split.

    Attributes:
        valid_auroc: The score by which methods are chosen.
        tests: Per test set, in the split's order, its metrics by name.
        best_value: The chosen C of a logistic probe; NaN for other methods.
        converged: Whether every fit that it rests on reached its optimum.
        chosen: The latents that the probe weighs most, JSON types; empty where they are not kept.
        prediction: Every test row's log-odds, where they are kept.
        probe: The fitted probe, where it is kept.
    """

    valid_auroc: float
    tests: tuple[Mapping[str, float], ...]
    best_value: float = math.nan
    converged: bool = True
    chosen: Sequence[Mapping[str, Any]] = ()
    prediction: Prediction | None = None
    probe: FittedProbe | None = None


COLUMN_METRICS = ("auroc", "f1", "accuracy")  # columns of every result row


def evaluated(prediction: Prediction, split: Split, wanted: Sequence[str] = ()) -> Evaluation:
    """A prediction with its metrics, for methods that do not use the probe engine.

    Args:
        prediction: Log-odds of every test row.
        split: The split that was predicted.
        wanted: Metrics beyond the columns of a row.
    """
    found = metrics_of(dict.fromkeys((*COLUMN_METRICS, *wanted)), split, prediction)
    return Evaluation(
        valid_auroc=float(prediction.valid_auroc),
        tests=tuple(
            {name: float(values[at]) for name, values in found.items()}
            for at in range(len(split.tests))
        ),
        best_value=float(prediction.best_value),
        converged=bool(prediction.converged),
    )


def rows_of(
    job: Job, found_all: Sequence[Evaluation], model: str, fingerprint: str
) -> list[ResultRow]:
    """Result rows: split by split, arrow by arrow, test set by test set.

    Args:
        job: The job.
        found_all: What its `predict` returned.
        model: The model's name.
        fingerprint: Twelve hex digits of the digest of everything that decides the rows beyond their columns.
    """
    shared = {"model": model, "site": str(job.site), "fingerprint": fingerprint}
    each = iter(found_all)
    return [
        _row(split, arrow, number, found, **shared)
        for split in job.splits
        for arrow in job.arrows
        for found in [next(each)]
        for number in range(len(split.tests))
    ]


def _row(split: Split, arrow: Arrow, number: int, found: Evaluation, **shared: str) -> ResultRow:
    """The row of one test set; `shared` are the columns that are the same for the whole job."""
    test, scores = split.tests[number], found.tests[number]
    # Rounded, so that equal AUROCs summed in another order still tie.
    auroc, f1, accuracy = (round(float(scores[name]), 12) for name in COLUMN_METRICS)
    return ResultRow(
        features=arrow.features,
        method=arrow.row_method,
        num_latents=arrow.k,
        dataset=split.dataset,
        regime=split.regime,
        level=split.level,
        protocol=split.protocol,
        seed=split.seed,
        num_train=len(split.train_N),
        num_test=len(test.row_M),
        valid_auroc=round(float(found.valid_auroc), 12),
        test_auroc=auroc,
        test_f1=f1,
        test_accuracy=accuracy,
        best_c=round(float(found.best_value), 12),
        converged=found.converged,
        pooling=arrow.pooling,
        control=arrow.control,
        test_set=test.name,
        kind=arrow.kind,
        **shared,
    )


def further_metrics(
    found_all: Sequence[Evaluation], wanted: Sequence[str]
) -> Mapping[str, list[float]]:
    """Metrics beyond the columns of a row, in the order of `rows_of`."""
    return {
        name: [float(test[name]) for found in found_all for test in found.tests] for name in wanted
    }
