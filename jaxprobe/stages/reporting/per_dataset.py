"""Findings dataset by dataset: the table's lines, AUROC by k, controls."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from jaxprobe import base, quiver
from jaxprobe.stages.reporting import arrow_rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """One dataset's line; means over its levels and seeds where it has several.

    Attributes:
        dataset: Name.
        base: Test AUROC of the best baseline (by valid AUROC); NaN where there is none.
        base_method: Which it was; "" where it differs between levels.
        sae: Test AUROC of the best SAE probe (by valid AUROC over SAEs and k); NaN likewise.
        sae_arrow: Its SAE and k, and `num_latents` its k; "" and 0 where they differ.
        num_latents: k.
        random_sae: Test AUROC of the best random-SAE probe; NaN where it was not run.
    """

    dataset: str
    base: float
    base_method: str
    sae: float
    sae_arrow: str
    num_latents: int
    random_sae: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """Test AUROC by number of latents, means over levels: [G, K] per features, [G] per baseline."""

    datasets: tuple[str, ...]
    num_latents: tuple[int, ...]
    auroc_GK: dict[str, np.ndarray]
    base_G: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Control:
    """A control's test AUROC over datasets.

    Attributes:
        label: What it is.
        chance: Whether it should stand at 0.5.
        auroc: Mean over datasets and its interval, as an `Effect`.
        lowest: Lowest dataset.
        highest: Highest dataset.
        sae_minus_control: The best SAE probe minus this control, on the datasets with both.
    """

    label: str
    chance: bool
    auroc: quiver.Effect
    lowest: float
    highest: float
    sae_minus_control: quiver.Effect


def _best(arrows: quiver.Arrows, of_A: np.ndarray) -> dict[str, tuple[float, str]]:
    """Per dataset: mean test AUROC of the chosen arrow and its name ("" where it differs)."""
    arrow_G = quiver.shoot(arrows.valid_GA, np.flatnonzero(of_A))
    cases: dict[str, list[tuple[float, str]]] = {}
    for case, arrow in enumerate(arrow_G):
        if arrow >= 0:
            found = (float(arrows.test_GA[case, arrow]), arrows.names[arrow])
            cases.setdefault(arrows.datasets[case], []).append(found)
    best = {}
    for dataset, found in cases.items():
        names = {name for _, name in found}
        best[dataset] = (
            float(np.mean([x for x, _ in found])),
            names.pop() if len(names) == 1 else "",
        )
    return best


def lines(wide: quiver.Arrows, random: quiver.Arrows) -> tuple[Line, ...]:
    """One line per dataset.

    Args:
        wide: Baselines and the SAE arrows of every k.
        random: The random SAE's arrows of every k.
    """
    nothing = (math.nan, "")
    baseline, sae = _best(wide, ~wide.is_sae_A), _best(wide, wide.is_sae_A)
    control = _best(random, random.is_sae_A)
    lines = []
    for dataset in dict.fromkeys(wide.datasets):
        sae_auroc, sae_arrow = sae.get(dataset, nothing)
        base_auroc, base_method = baseline.get(dataset, nothing)
        lines.append(
            Line(
                dataset=dataset,
                base=base_auroc,
                base_method=base_method,
                sae=sae_auroc,
                sae_arrow=sae_arrow,
                num_latents=int(sae_arrow.rpartition("k=")[2] or 0),
                random_sae=control.get(dataset, nothing)[0],
            )
        )
    return tuple(lines)


def curve(rows: Sequence[base.ResultRow], wide: quiver.Arrows) -> Curve | None:
    """AUROC by k of each SAE and the random SAE; None where fewer than three k were run."""
    kept = [
        row for row in rows if row.features != base.ACTIVATIONS and row.method == quiver.SAE_METHOD
    ]
    ks = tuple(sorted({row.num_latents for row in kept}))
    best = _best(wide, ~wide.is_sae_A)
    datasets = tuple(dataset for dataset in dict.fromkeys(wide.datasets) if dataset in best)
    if len(ks) < 3 or not datasets:
        return None
    cells: dict[tuple[str, str, int], list[float]] = {}
    for row in kept:
        cells.setdefault((row.features, row.dataset, row.num_latents), []).append(row.test_auroc)
    auroc_GK = {}
    for features in dict.fromkeys(row.features for row in kept):
        means = [
            [np.mean(cells.get((features, dataset, k), [math.nan])) for k in ks]
            for dataset in datasets
        ]
        auroc_GK[features] = np.array(means)
    return Curve(
        datasets=datasets,
        num_latents=ks,
        auroc_GK=auroc_GK,
        base_G=np.array([best[dataset][0] for dataset in datasets]),
    )


def controls(rows: Sequence[base.ResultRow], wide: quiver.Arrows) -> tuple[Control, ...]:
    """Each control's AUROC, its k chosen by valid AUROC as the SAE probes' k is."""
    groups: dict[tuple[str, str], list[base.ResultRow]] = {}
    for row in rows:
        if quiver.is_control(row.features, row.method):
            groups.setdefault((row.features, row.method), []).append(row)
    sae = _best(wide, wide.is_sae_A)
    controls = []
    for (features, method), members in groups.items():
        members.sort(key=lambda row: row.num_latents)
        names = tuple(dict.fromkeys(arrow_rows.arrow_name(row) for row in members))
        arrows = quiver.gather((arrow_rows.score(row) for row in members), (), names)
        best = _best(arrows, arrows.is_sae_A)
        shared = [dataset for dataset in best if dataset in sae]
        gap_G = np.array([sae[dataset][0] - best[dataset][0] for dataset in shared])
        auroc_G = np.array([auroc for auroc, _ in best.values()])
        controls.append(
            Control(
                label=_control_label(features, method),
                chance=method.endswith(quiver.SHUFFLED_LABELS),
                auroc=quiver.estimate(auroc_G, list(best)),
                lowest=float(auroc_G.min(initial=math.inf)),
                highest=float(auroc_G.max(initial=-math.inf)),
                sae_minus_control=quiver.estimate(gap_G, shared),
            )
        )
    return tuple(controls)


def _control_label(features: str, method: str) -> str:
    where = {base.ACTIVATIONS: "activations", quiver.RANDOM_SAE: "random SAE"}.get(
        features, features
    )
    if method.endswith(quiver.SHUFFLED_LABELS):
        return f"shuffled labels, {method.removesuffix(quiver.SHUFFLED_LABELS)} on {where}"
    if method.endswith(quiver.RANDOM_LATENTS):
        return f"random latents of {where}"
    return where if method == quiver.SAE_METHOD else f"{where}, {method}"
