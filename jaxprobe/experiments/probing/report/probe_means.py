"""Each probe by itself: its mean test AUROC, its difference from the reference, what it adds."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from jaxprobe import quiver
from jaxprobe.base import Arrow
from jaxprobe.experiments.probing.report.choice import Choice

BASELINE, EXTENDED, SAE, OTHER_SAE, OTHER, CONTROL = KINDS = (
    "baseline",
    "extended baseline",
    "SAE probe",
    "other SAE probe",
    "other probe",
    "control",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeMean:
    """One probe over all its cases.

    Attributes:
        arrow: The probe.
        kind: One of `KINDS`.
        auroc: Mean test AUROC over its cases.
        gap: Its test AUROC minus the reference baseline's, on the cases that both have.
        joined: Change of the best baseline's test AUROC when this probe is added to the baselines, with
            ties to the baselines; None for the baselines themselves.
        metrics: Means of further metrics.
    """

    arrow: Arrow
    kind: str
    auroc: quiver.Effect
    gap: quiver.Effect
    joined: quiver.Effect | None
    metrics: Mapping[str, float]


def probe_means(
    table: quiver.Arrows, choice: Choice, metrics: Mapping[Arrow, Mapping[str, float]]
) -> tuple[ProbeMean, ...]:
    """Every probe of one regime and protocol.

    Args:
        table: All arrows.
        choice: The role of each arrow; the first baseline (logistic where it was run) is the reference.
        metrics: Means of further metrics by arrow.
    """
    features = list(dict.fromkeys(arrow.features for arrow in table.arrows))
    order = sorted(table.arrows, key=lambda arrow: _place(arrow, choice, features))
    column = {arrow: place for place, arrow in enumerate(table.arrows)}
    reference_G = np.full(len(table.datasets), math.nan)
    if choice.baselines:
        reference_G = table.test_GA[:, column[choice.baselines[0]]]
    means = []
    for arrow in order:
        test_G, kind = table.test_GA[:, column[arrow]], _kind(arrow, choice)
        means.append(
            ProbeMean(
                arrow=arrow,
                kind=kind,
                auroc=_over(test_G, table.datasets),
                gap=_over(test_G - reference_G, table.datasets),
                joined=None if kind == BASELINE else _joined(table, choice.baselines, arrow),
                metrics=metrics.get(arrow, {}),
            )
        )
    return tuple(means)


def _joined(table: quiver.Arrows, baselines: Sequence[Arrow], guest: Arrow) -> quiver.Effect:
    """What adding one arrow to the baselines changes."""
    comparison = quiver.compare(table.only(baselines, (guest,)), quiver.TIE_RULES[0])
    return quiver.estimate(comparison.delta_G, comparison.datasets)


def _over(x_G: np.ndarray, datasets: Sequence[str]) -> quiver.Effect:
    kept_G = ~np.isnan(x_G)
    names = [dataset for dataset, kept in zip(datasets, kept_G, strict=True) if kept]
    return quiver.estimate(x_G[kept_G], names)


def _kind(arrow: Arrow, choice: Choice) -> str:
    if arrow.control:
        return CONTROL
    if arrow.kind == "baseline":
        return BASELINE if arrow in choice.baselines else EXTENDED
    if arrow.kind == "sae":
        return SAE if arrow.method == choice.sae_method else OTHER_SAE
    return OTHER


def _place(arrow: Arrow, choice: Choice, features: Sequence[str]) -> tuple:
    """Sort key: baselines in the quiver's order, then the other kinds, each SAE's probes by k."""
    kind = _kind(arrow, choice)
    order = choice.baselines.index(arrow) if kind == BASELINE else 0
    return KINDS.index(kind), order, arrow.row_method, features.index(arrow.features), arrow.k
