"""Findings dataset by dataset: the table's lines, the quiver's arrows, AUROC by k, controls."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxprobe import base, quiver
from jaxprobe.base import Arrow
from jaxprobe.experiments.probing.report.choice import Choice

CONTROLS = {
    base.RANDOM_SAE: "random SAE",
    "random_latents": "random latents",
    "shuffled_labels": "shuffled labels",
}


class Best(NamedTuple):
    """A dataset's mean test AUROC of the arrow chosen on each case, and the arrow; None where it differs."""

    auroc: float = math.nan
    arrow: Arrow | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """One dataset's line in the table; means over its levels and seeds where it has several.

    Attributes:
        dataset: Name.
        baseline: The best baseline (by valid AUROC).
        probe: The best SAE probe (by valid AUROC over SAEs and k).
        controls: Test AUROC of each kind of control (its k chosen as the SAE's is), by `CONTROLS`.
    """

    dataset: str
    baseline: Best
    probe: Best
    controls: Mapping[str, float]

    @property
    def difference(self) -> float:
        """SAE probe minus baseline; NaN where one is missing."""
        return self.probe.auroc - self.baseline.auroc


class Shot(NamedTuple):
    """One dataset's arrow of the quiver: from the best baseline to the best with SAE probes."""

    dataset: str
    base: float
    with_sae: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """Test AUROC by number of latents, means over levels: [G, K] per SAE, [G] of the best baseline.

    `random_GK` is the random SAE's, None where it was not run.
    """

    datasets: tuple[str, ...]
    num_latents: tuple[int, ...]
    auroc_GK: Mapping[str, np.ndarray]
    random_GK: np.ndarray | None
    base_G: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Control:
    """A control's test AUROC over datasets.

    Attributes:
        arrow: One of its arrows, with `k` 0 where they differ.
        auroc: Mean over datasets and its interval, as an `Effect`.
        standard_error: Standard error of that mean: the standard deviation over datasets / sqrt(n).
        lowest: AUROC of the lowest dataset.
        highest: AUROC of the highest dataset.
        sae_minus_control: The best SAE probe minus this control, on the datasets with both.
    """

    arrow: Arrow
    auroc: quiver.Effect
    standard_error: float
    lowest: float
    highest: float
    sae_minus_control: quiver.Effect


def best(arrows: quiver.Arrows) -> dict[str, Best]:
    """Per dataset the arrow chosen on its cases by valid AUROC; the first wins ties."""
    arrow_G = quiver.shoot(arrows, np.arange(len(arrows.arrows)))
    cases: dict[str, list[tuple[float, Arrow]]] = {}
    for case in np.flatnonzero(arrow_G >= 0):
        found = (float(arrows.test_GA[case, arrow_G[case]]), arrows.arrows[arrow_G[case]])
        cases.setdefault(arrows.datasets[case], []).append(found)
    return {
        dataset: Best(
            float(np.mean([auroc for auroc, _ in found])),
            found[0][1] if len({arrow for _, arrow in found}) == 1 else None,
        )
        for dataset, found in cases.items()
    }


def lines(table: quiver.Arrows, choice: Choice) -> tuple[Line, ...]:
    """One line per dataset that has a baseline or an SAE probe."""
    baseline = best(table.only(choice.baselines, ()))
    probe = best(table.only((), choice.wide))
    controls = {
        kind: best(table.only((), members)) for kind, members in _by_kind(table, choice).items()
    }
    return tuple(
        Line(
            dataset=dataset,
            baseline=baseline.get(dataset, Best()),
            probe=probe.get(dataset, Best()),
            controls={kind: of.get(dataset, Best()).auroc for kind, of in controls.items()},
        )
        for dataset in dict.fromkeys(table.only(choice.baselines, choice.wide).datasets)
    )


def _by_kind(table: quiver.Arrows, choice: Choice) -> dict[str, list[Arrow]]:
    """The arrows of each kind of control that was run, small k first; for a random SAE of one method."""
    kinds: dict[str, list[Arrow]] = {kind: [] for kind in CONTROLS}
    for arrow in sorted(table.arrows, key=lambda arrow: arrow.k):
        if arrow.control and (arrow.control != base.RANDOM_SAE or arrow in choice.random):
            kinds[arrow.control].append(arrow)
    return {kind: members for kind, members in kinds.items() if members}


def shots(comparison: quiver.Comparison) -> tuple[Shot, ...]:
    """An arrow per dataset, means over its cases, the largest loss first and the largest gain last."""
    ends: dict[str, list[tuple[float, float]]] = {}
    for dataset, *pair in zip(
        comparison.datasets, comparison.base_G, comparison.with_sae_G, strict=True
    ):
        ends.setdefault(dataset, []).append((float(pair[0]), float(pair[1])))
    found = [Shot(name, *map(float, np.mean(pairs, axis=0))) for name, pairs in ends.items()]
    return tuple(sorted(found, key=lambda shot: (round(shot.with_sae - shot.base, 9), shot.base)))


def curve(table: quiver.Arrows, choice: Choice) -> Curve | None:
    """AUROC by k of each SAE and the random SAE; None where fewer than three k were run."""
    ks = tuple(sorted({arrow.k for arrow in (*choice.wide, *choice.random)}))
    base_of = best(table.only(choice.baselines, ()))
    seen = dict.fromkeys(table.only(choice.baselines, choice.wide).datasets)
    datasets = tuple(dataset for dataset in seen if dataset in base_of)
    if len(ks) < 3 or not datasets:
        return None
    by_sae: dict[str, list[Arrow]] = {}
    for arrow in choice.wide:
        by_sae.setdefault(arrow.features, []).append(arrow)
    return Curve(
        datasets=datasets,
        num_latents=ks,
        auroc_GK={sae: _by_k(table, members, datasets, ks) for sae, members in by_sae.items()},
        random_GK=_by_k(table, choice.random, datasets, ks) if choice.random else None,
        base_G=np.array([base_of[dataset].auroc for dataset in datasets]),
    )


def _by_k(
    table: quiver.Arrows, arrows: Sequence[Arrow], datasets: Sequence[str], ks: Sequence[int]
) -> np.ndarray:
    """Test AUROC [G datasets, K], means over a dataset's cases; NaN where there is none."""
    column = {arrow: place for place, arrow in enumerate(table.arrows)}
    place = {dataset: i for i, dataset in enumerate(datasets)}
    kept = [case for case, dataset in enumerate(table.datasets) if dataset in place]
    at = [place[table.datasets[case]] for case in kept]
    found_GK = np.full((len(datasets), len(ks)), math.nan)
    for arrow in arrows:
        test_N = table.test_GA[kept, column[arrow]]
        known_N = ~np.isnan(test_N)
        total_G = np.bincount(at, np.where(known_N, test_N, 0), len(datasets))
        count_G = np.bincount(at, known_N, len(datasets))
        with np.errstate(invalid="ignore"):
            found_GK[:, ks.index(arrow.k)] = total_G / count_G
    return found_GK


def controls(table: quiver.Arrows, choice: Choice) -> tuple[Control, ...]:
    """Each control's AUROC, its k chosen by valid AUROC as the SAE probes' k is."""
    groups: dict[Arrow, list[Arrow]] = {}
    for arrow in table.arrows:
        if arrow.control:
            groups.setdefault(dataclasses.replace(arrow, k=0), []).append(arrow)
    probe = best(table.only((), choice.wide))
    found = []
    for arrow, members in groups.items():
        members.sort(key=lambda member: member.k)
        of = best(table.only((), members))
        shared = [dataset for dataset in of if dataset in probe]
        gap_G = np.array([probe[dataset].auroc - of[dataset].auroc for dataset in shared])
        auroc_G = np.array([one.auroc for one in of.values()])
        known = len(auroc_G) > 1
        found.append(
            Control(
                arrow=arrow,
                auroc=quiver.estimate(auroc_G, list(of)),
                standard_error=float(auroc_G.std() / math.sqrt(len(auroc_G)))
                if known
                else math.nan,
                lowest=float(auroc_G.min(initial=math.inf)),
                highest=float(auroc_G.max(initial=-math.inf)),
                sae_minus_control=quiver.estimate(gap_G, shared),
            )
        )
    return tuple(found)
