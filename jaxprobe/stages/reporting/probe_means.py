"""Each probe by itself: its mean test AUROC, its distance from the reference, what it adds."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from jaxprobe import base, quiver
from jaxprobe.stages.reporting import arrow_rows

BASELINE, EXTENDED, SAE, OTHER, CONTROL = KINDS = (
    "baseline",
    "extended baseline",
    "SAE probe",
    "other SAE probe",
    "control",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeMean:
    """One probe over all its cases.

    Attributes:
        name: Its arrow's name.
        kind: One of `KINDS`.
        features, method, num_latents: As in its rows.
        auroc: Mean test AUROC over its cases.
        gap: Its test AUROC minus the reference baseline's, on the cases that both have.
        joined: Change of the best baseline's test AUROC when this probe joins them, ties to the
            baselines; None for the baselines themselves.
    """

    name: str
    kind: str
    features: str
    method: str
    num_latents: int
    auroc: quiver.Effect
    gap: quiver.Effect
    joined: quiver.Effect | None


def probe_means(
    rows: Sequence[base.ResultRow], choice: arrow_rows.Choice
) -> tuple[tuple[ProbeMean, ...], str]:
    """Every probe of one regime and protocol, and the name of the reference.

    Args:
        rows: The regime's rows.
        choice: Its arrows; the first baseline, logistic where it was run, is the reference.
    """
    first = {arrow_rows.arrow_name(row): row for row in reversed(rows)}
    kinds = {name: _kind(row, choice) for name, row in first.items()}
    sae_ids = (base.ACTIVATIONS, *arrow_rows.sae_ids(rows), quiver.RANDOM_SAE)
    names = sorted(first, key=lambda name: _place(first[name], kinds[name], choice, sae_ids))
    arrows = quiver.gather(map(arrow_rows.score, rows), names, ())
    reference = choice.baselines[0] if choice.baselines else ""
    reference_G = np.full(len(arrows.datasets), math.nan)
    if reference:
        reference_G = arrows.test_GA[:, names.index(reference)]
    means = []
    for name, test_G in zip(names, arrows.test_GA.T, strict=True):
        row = first[name]
        means.append(
            ProbeMean(
                name=name,
                kind=kinds[name],
                features=row.features,
                method=row.method,
                num_latents=row.num_latents,
                auroc=_over(test_G, arrows.datasets),
                gap=_over(test_G - reference_G, arrows.datasets),
                joined=None
                if kinds[name] == BASELINE
                else joined(arrows, choice.baselines, (name,))[1],
            )
        )
    return tuple(means), reference


def joined(
    arrows: quiver.Arrows, baselines: Sequence[str], guests: Sequence[str], rule: str = ""
) -> tuple[quiver.Comparison, quiver.Effect]:
    """The quiver of the baselines alone against the baselines with guests.

    Args:
        arrows: All arrows by name.
        baselines: In order of preference.
        guests: In order of preference.
        rule: A tie rule; `baselines_first` where empty.
    """
    column = {name: i for i, name in enumerate(arrows.names)}
    kept_A = [column[name] for name in (*baselines, *guests)]
    some = dataclasses.replace(
        arrows,
        names=(*baselines, *guests),
        is_sae_A=np.arange(len(kept_A)) >= len(baselines),
        valid_GA=arrows.valid_GA[:, kept_A],
        test_GA=arrows.test_GA[:, kept_A],
    )
    comparison = quiver.compare(some, rule or quiver.TIE_RULES[0])
    return comparison, quiver.estimate(comparison.delta_G, comparison.datasets)


def _over(x_G: np.ndarray, datasets: Sequence[str]) -> quiver.Effect:
    kept_G = ~np.isnan(x_G)
    names = [dataset for dataset, kept in zip(datasets, kept_G, strict=True) if kept]
    return quiver.estimate(x_G[kept_G], names)


def _kind(row: base.ResultRow, choice: arrow_rows.Choice) -> str:
    if arrow_rows.is_control(row):
        return CONTROL
    if row.features == base.ACTIVATIONS:
        return BASELINE if row.method in choice.baselines else EXTENDED
    return SAE if row.method == choice.sae_method else OTHER


def _place(
    row: base.ResultRow, kind: str, choice: arrow_rows.Choice, sae_ids: Sequence[str]
) -> tuple:
    """Baselines in the quiver's order, then the other kinds, each SAE's probes by k."""
    order = choice.baselines.index(row.method) if kind == BASELINE else 0
    return KINDS.index(kind), order, row.method, sae_ids.index(row.features), row.num_latents
