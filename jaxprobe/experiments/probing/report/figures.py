"""Findings -> drawings of single datasets: AUROC by k, the quiver, best against best."""

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from jaxprobe import quiver
from jaxprobe.experiments.probing.report import per_dataset
from jaxprobe.experiments.probing.report.effect_figures import Series, spans
from jaxprobe.rendering import svg
from jaxprobe.rendering.svg import Drawing

MANY = 30  # single lines; more of them are drawn fainter
MAX_CURVES = 4  # as many as there are colours


def curve_series(curve: per_dataset.Curve) -> list[Series]:
    """The lines of a curve figure: the random SAE first (drawn below), then the first SAEs."""
    found = []
    if curve.random_GK is not None:
        effects = _mean_effects(curve.random_GK)
        found.append(Series("random SAE (control)", "random", effects))
    for place, (sae, auroc_GK) in enumerate(list(curve.auroc_GK.items())[:MAX_CURVES]):
        found.append(Series(f"SAE {sae}", f"sae sae{place}", _mean_effects(auroc_GK)))
    return found


def curve_figure(
    curve: per_dataset.Curve, name: str, title: str, scaled: Sequence[per_dataset.Curve]
) -> Drawing:
    """AUROC by k: each SAE's mean with its interval, single datasets thin, baseline and control.

    Args:
        curve: The curve to draw.
        name: Unique name on the page.
        title: Title for screen readers.
        scaled: Curves that the vertical axis must hold, so that several figures can share it.
    """
    x, shown = svg.steps(len(curve.num_latents)), list(curve.auroc_GK.values())[:MAX_CURVES]
    y = svg.y_scale([*(v for one in scaled for v in _values(one)), 1.0], top=1.0, count=7)
    places = [(x(i), str(k)) for i, k in enumerate(curve.num_latents)]
    parts = svg.axes(y, "Latents read by the probe, k", "Test AUROC", places)
    if len(shown) == 1:
        thin = "thin many" if len(curve.datasets) > MANY else "thin"
        for dataset, auroc_K in zip(curve.datasets, shown[0], strict=True):
            parts.append(svg.line(x, y, auroc_K, thin, dataset))
    said = []
    for one in curve_series(curve):
        parts += svg.band(x, y, spans(one.effects), one.tone)
        said.append(f"{one.label} from {one.effects[0].mean:.3f} to {one.effects[-1].mean:.3f}")
    level = float(np.mean(curve.base_G))
    parts.append(svg.path(f"M{x.start - 8:.1f} {y(level):.1f}H{x.end + 8:.1f}", "baseline"))
    said.append(f"best baseline {level:.3f}")
    words = f"Means over {len(curve.datasets)} datasets: {'; '.join(said)}."
    return svg.picture(name, title, words, parts)


def _values(curve: per_dataset.Curve) -> np.ndarray:
    shown = list(curve.auroc_GK.values())[:MAX_CURVES]
    random = [] if curve.random_GK is None else [curve.random_GK]
    return np.concatenate([*(one.ravel() for one in (*shown, *random)), curve.base_G])


def _mean_effects(auroc_GK: np.ndarray) -> list[quiver.Effect]:
    effects = []
    for auroc_G in auroc_GK.T:
        kept = np.flatnonzero(np.isfinite(auroc_G))
        effects.append(quiver.estimate(auroc_G[kept], [str(i) for i in kept]))
    return effects


def quiver_figure(
    shots: Sequence[per_dataset.Shot], name: str, title: str, scaled: Sequence[per_dataset.Shot]
) -> Drawing:
    """The quiver: per dataset an arrow from the best baseline to the best with SAE probes.

    Args:
        shots: The arrows, from left to right.
        name: Unique name on the page.
        title: Title for screen readers.
        scaled: Shots that the vertical axis must hold, so that several figures can share it.
    """
    y = svg.y_scale([v for shot in scaled for v in shot[1:]] + [1.0], top=1.0, count=7)
    x = svg.steps(len(shots))
    parts = svg.axes(y, "Datasets, from the largest loss to the largest gain", "Test AUROC", [])
    for place, shot in enumerate(shots):
        change = quiver.signed(shot.with_sae - shot.base)
        words = (
            f"{shot.dataset}: best baseline {shot.base:.3f}, with SAE probes {shot.with_sae:.3f}"
            f" ({change})"
        )
        inside = _shot(x(place), y(shot.base), y(shot.with_sae))
        parts.append(svg.named(words, *inside, first=not place, tone="dot arrow"))
    lower = sum(round(shot.with_sae - shot.base, 9) < 0 for shot in shots)
    higher = sum(round(shot.with_sae - shot.base, 9) > 0 for shot in shots)
    words = f"{len(shots)} datasets: lower on {lower}, higher on {higher}, the same on the others."
    return svg.picture(name, title, words, parts)


def _shot(x: float, start: float, end: float) -> list[Markup]:
    """An arrow, or a dot where nothing changes, with a larger hover target."""
    top, height = min(start, end) - 8, abs(start - end) + 16
    hit = svg.element("rect", class_="hit", x=x - 6, y=top, width=12, height=height)
    if abs(end - start) < 0.05:
        return [hit, svg.element("circle", cx=x, cy=start, r=3)]
    tone, way = ("gain", -1) if end < start else ("loss", 1)
    head = [(x, end), (x - 4, end - 7 * way), (x + 4, end - 7 * way)]
    return [
        hit,
        svg.path(f"M{x:.1f} {start:.1f}V{end:.1f}", f"shaft {tone}"),
        svg.polygon(head, f"head {tone}"),
    ]


def scatter_figure(
    lines: Sequence[per_dataset.Line], name: str, title: str, scaled: Sequence[per_dataset.Line]
) -> Drawing:
    """Best baseline against best SAE probe, a dot per dataset that shows its name on hover and focus.

    Args:
        lines: The dots.
        name: Unique name on the page.
        title: Title for screen readers.
        scaled: Lines that the axes must hold, so that several figures can share them.
    """
    shown = [line for line in lines if not math.isnan(line.difference)]
    values = [v for line in scaled for v in (line.baseline.auroc, line.probe.auroc)]
    size = svg.HEIGHT + 60
    y = svg.y_scale([*values, 1.0], size, top=1.0)
    x = y._replace(start=svg.LEFT + 4, end=svg.WIDTH - svg.RIGHT)
    places = [(x(tick), f"{tick:.2f}") for tick in x.ticks]
    above = [(x.start, y.start), (x.start, y.end), (x.end, y.end)]
    names = ("Best baseline, test AUROC", "Best SAE probe, test AUROC")
    parts = [
        svg.polygon(above, "better"),
        *svg.axes(y, *names, places, height=size),
        *(svg.path(f"M{x(t):.1f} {y.start:.1f}V{y.end:.1f}", "grid") for t in x.ticks),
        svg.path(f"M{x.start:.1f} {y.start:.1f}L{x.end:.1f} {y.end:.1f}", "diagonal"),
        svg.text(x.start + 8, y.end + 18, "SAE probe higher", "region", "start"),
        svg.text(x.end - 8, y.start - 10, "baseline higher", "region", "end"),
    ]
    for place, line in enumerate(shown):
        base, probe = line.baseline.auroc, line.probe.auroc
        words = f"{line.dataset}: baseline {base:.3f}, SAE probe {probe:.3f}"
        parts.append(svg.dot(x(base), y(probe), words, first=not place))
    higher = sum(line.difference > 0 for line in shown)
    said = f"{len(shown)} datasets; the SAE probe scores higher on {higher}. The table below has the numbers."
    return svg.picture(name, title, said, parts, size)
