"""Findings dataset by dataset: the table's lines, AUROC by k, controls."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from jaxprobe import base, quiver
from jaxprobe.stages.reporting import arrow_rows

RANDOM_SAE, RANDOM_LATENTS, SHUFFLED = CONTROLS = (
    "random SAE",
    "random latents",
    "shuffled labels",
)


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
        controls: Test AUROC of each kind of control (its k chosen as the SAE's is), by `CONTROLS`.
    """

    dataset: str
    base: float
    base_method: str
    sae: float
    sae_arrow: str
    num_latents: int
    controls: Mapping[str, float]


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
    arrow_G = quiver.shoot(arrows, np.flatnonzero(of_A))
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


def lines(
    rows: Sequence[base.ResultRow], wide: quiver.Arrows, random_names: Sequence[str]
) -> tuple[Line, ...]:
    """One line per dataset.

    Args:
        rows: Rows of one regime and protocol.
        wide: Baselines and the SAE arrows of every k.
        random_names: The random SAE's arrows of every k.
    """
    nothing = (math.nan, "")
    baseline, sae = _best(wide, ~wide.is_sae_A), _best(wide, wide.is_sae_A)
    controls = {kind: _best_control(rows, names) for kind, names in _kinds(rows, random_names)}
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
                num_latents=_num_latents(sae_arrow),
                controls={kind: found.get(dataset, nothing)[0] for kind, found in controls.items()},
            )
        )
    return tuple(lines)


def _num_latents(arrow: str) -> int:
    return int((arrow.rpartition("k=")[2].split() or ["0"])[0]) if "k=" in arrow else 0


def _kinds(
    rows: Sequence[base.ResultRow], random_names: Sequence[str]
) -> list[tuple[str, tuple[str, ...]]]:
    """Names of the arrows of each kind of control that was run, small k first."""
    found: dict[str, dict[str, int]] = {RANDOM_LATENTS: {}, SHUFFLED: {}}
    for row in rows:
        for kind, end in (
            (RANDOM_LATENTS, quiver.RANDOM_LATENTS),
            (SHUFFLED, quiver.SHUFFLED_LABELS),
        ):
            if row.method.endswith(end):
                found[kind][arrow_rows.arrow_name(row)] = row.num_latents
    ordered = {kind: tuple(sorted(names, key=names.__getitem__)) for kind, names in found.items()}
    return [
        (kind, names)
        for kind, names in {RANDOM_SAE: tuple(random_names), **ordered}.items()
        if names
    ]


def _best_control(
    rows: Sequence[base.ResultRow], names: Sequence[str]
) -> dict[str, tuple[float, str]]:
    wanted = set(names)
    scores = (arrow_rows.score(row) for row in rows if arrow_rows.arrow_name(row) in wanted)
    arrows = quiver.gather(scores, (), names)
    return _best(arrows, arrows.is_sae_A)


def curve(
    rows: Sequence[base.ResultRow], wide: quiver.Arrows, method: str = quiver.SAE_METHOD
) -> Curve | None:
    """AUROC by k of each SAE and the random SAE; None where fewer than three k were run."""
    kept = [row for row in rows if row.features != base.ACTIVATIONS and row.method == method]
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
        penalty = method.removesuffix(quiver.RANDOM_LATENTS)
        tail = "" if penalty == quiver.SAE_METHOD else f", {penalty}"
        return f"random latents of {where}{tail}"
    return where if method == quiver.SAE_METHOD else f"{where}, {method}"
