"""Findings -> SVG figures, drawn without JavaScript.

Each function returns one `<svg>` with a title and a description. Colours come from the page's style
sheet through class names, so that light, dark and print follow the page. All text is escaped here.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxprobe import quiver
from jaxprobe.stages.reporting import per_dataset, svg

MANY = 30  # single lines; more of them are drawn fainter
MAX_CURVES = 4  # as many as there are colours


def curve_figure(curve: per_dataset.Curve, figure_id: str, title: str) -> str:
    """AUROC by k: each SAE's mean with its interval, single datasets thin, baseline and control."""
    x = svg.Scale(0, len(curve.num_latents) - 1, svg.LEFT + 14, svg.WIDTH - svg.RIGHT - 10, ())
    shown = [
        curve.auroc_GK[name]
        for name in (*shown_saes(curve), quiver.RANDOM_SAE)
        if name in curve.auroc_GK
    ]
    values = np.concatenate([*(auroc_GK.ravel() for auroc_GK in shown), curve.base_G])
    y = svg.nice_scale([*values, 1.0], svg.HEIGHT - svg.BOTTOM, svg.TOP, top=1.0, count=7)
    parts = [svg.grid_y(y, 2), svg.axis_label_y("Test AUROC")]
    parts += [
        svg.text(x(i), svg.HEIGHT - svg.BOTTOM + 18, str(k), "tick", "middle")
        for i, k in enumerate(curve.num_latents)
    ]
    parts.append(
        svg.text(
            (svg.LEFT + svg.WIDTH) / 2,
            svg.HEIGHT - 6,
            "Latents read by the probe, k",
            "label",
            "middle",
        )
    )
    trained = shown_saes(curve)
    said = []
    thin = "thin many" if len(curve.datasets) > MANY else "thin"
    if len(trained) == 1:
        for dataset, auroc_K in zip(curve.datasets, curve.auroc_GK[trained[0]], strict=True):
            parts.append(svg.line(x, y, auroc_K, thin, dataset))
    for name in [quiver.RANDOM_SAE, *trained]:
        if name in curve.auroc_GK:
            tone = "random" if name == quiver.RANDOM_SAE else f"sae sae{trained.index(name) % 4}"
            effects = _mean_effects(curve.auroc_GK[name])
            parts += _band(x, y, effects, tone)
            said.append(f"{name} from {effects[0].mean:.3f} to {effects[-1].mean:.3f}")
    level = float(np.mean(curve.base_G))
    parts.append(svg.path(f"M{x.start - 8:.1f} {y(level):.1f}H{x.end + 8:.1f}", "baseline"))
    said.append(f"best baseline {level:.3f}")
    return svg.picture(
        figure_id, title, f"Means over {len(curve.datasets)} datasets: {'; '.join(said)}.", parts
    )


def shown_saes(curve: per_dataset.Curve) -> list[str]:
    """The SAEs whose curves are drawn."""
    return [name for name in curve.auroc_GK if name != quiver.RANDOM_SAE][:MAX_CURVES]


def _mean_effects(auroc_GK: np.ndarray) -> list[quiver.Effect]:
    effects = []
    for auroc_G in auroc_GK.T:
        kept = np.flatnonzero(np.isfinite(auroc_G))
        effects.append(quiver.estimate(auroc_G[kept], [str(i) for i in kept]))
    return effects


def scatter_figure(
    lines: Sequence[per_dataset.Line],
    figure_id: str,
    title: str,
    scaled: Sequence[per_dataset.Line],
) -> str:
    """Best baseline against best SAE probe, a dot per dataset that names itself on hover and focus.

    Args:
        lines: The dots.
        figure_id: Unique id on the page.
        title: Title for screen readers.
        scaled: Lines that the axes must hold, so that several figures can share them.
    """
    shown = [line for line in lines if not math.isnan(line.base + line.sae)]
    values = [v for line in scaled for v in (line.base, line.sae)]
    size = svg.HEIGHT + 60
    y = svg.nice_scale([*values, 1.0], size - svg.BOTTOM, svg.TOP, top=1.0)
    x = y._replace(start=svg.LEFT + 4, end=svg.WIDTH - svg.RIGHT)
    parts = [
        (
            f'<polygon class="better" points="{x.start:.1f},{y.start:.1f} {x.start:.1f},{y.end:.1f}'
            f' {x.end:.1f},{y.end:.1f}"/>'
        ),
        svg.grid_y(y, 2),
        *(svg.path(f"M{x(t):.1f} {y.start:.1f}V{y.end:.1f}", "grid") for t in x.ticks),
        *(svg.text(x(t), size - svg.BOTTOM + 18, f"{t:.2f}", "tick", "middle") for t in x.ticks),
        svg.path(f"M{x.start:.1f} {y.start:.1f}L{x.end:.1f} {y.end:.1f}", "diagonal"),
        svg.text(x.start + 8, y.end + 18, "SAE probe higher", "region", "start"),
        svg.text(x.end - 8, y.start - 10, "baseline higher", "region", "end"),
        svg.text(
            (svg.LEFT + svg.WIDTH) / 2, size - 6, "Best baseline, test AUROC", "label", "middle"
        ),
        svg.axis_label_y("Best SAE probe, test AUROC", size),
    ]
    for place, line in enumerate(shown):
        words = f"{line.dataset}: baseline {line.base:.3f}, SAE probe {line.sae:.3f}"
        parts.append(
            f'<g class="dot" role="img" tabindex="{-1 if place else 0}" aria-label="{svg.escape(words)}">'
            f'<title>{svg.escape(words)}</title><circle class="hit" cx="{x(line.base):.1f}"'
            f' cy="{y(line.sae):.1f}" r="11"/><circle cx="{x(line.base):.1f}" cy="{y(line.sae):.1f}"'
            f' r="5"/></g>'
        )
    above = sum(line.sae > line.base for line in shown)
    said = f"{len(shown)} datasets; the SAE probe scores higher on {above}. The table below has the numbers."
    return svg.picture(figure_id, title, said, parts, size)


def effect_figure(
    effects: Sequence[tuple[str, str, quiver.Effect]],
    figure_id: str,
    title: str,
    scaled: Sequence[quiver.Effect],
) -> str:
    """Mean differences with their intervals, a row each, around a line at zero.

    Args:
        effects: Per row its label, its tone (a CSS class) and the effect.
        figure_id: Unique id on the page.
        title: Title for screen readers.
        scaled: Effects that the axis must hold, so that several figures can share it.
    """
    row_height, top = 40, 8
    size = top + row_height * len(effects) + svg.BOTTOM
    ends = [v for e in scaled for v in (e.low, e.high, e.mean)]
    x = svg.nice_scale([*ends, -0.001, 0.001], 16, svg.WIDTH - 16, count=4)
    bottom = size - svg.BOTTOM
    decimals = 2 if x.ticks[1] - x.ticks[0] >= 0.01 - 1e-9 else 3
    parts = [
        svg.text(x(t), bottom + 18, f"{t:+.{decimals}f}" if t else "0", "tick", "middle")
        for t in x.ticks
    ]
    parts.append(svg.text(svg.WIDTH / 2, size - 6, "Change of mean test AUROC", "label", "middle"))
    said = []
    for place, (label, tone, effect) in enumerate(effects):
        baseline = top + row_height * place
        band = f" {baseline + 20}v16"  # the lines leave the words above each interval clear
        parts.append(svg.path("".join(f"M{x(t):.1f}{band}" for t in x.ticks), "grid"))
        parts.append(svg.path(f"M{x(0):.1f}{band}", "zero"))
        numbers = f"{quiver.signed(effect.mean)}"
        if not math.isnan(effect.low):
            numbers += f" ({quiver.signed(effect.low)} to {quiver.signed(effect.high)})"
            span = f"M{x(effect.low):.1f} {baseline + 28}H{x(effect.high):.1f}"
            ends = "".join(f"M{x(v):.1f} {baseline + 24}v8" for v in (effect.low, effect.high))
            parts.append(svg.path(span + ends, f"interval {tone}"))
        parts.append(svg.text(16, baseline + 15, label, "row", "start"))
        parts.append(svg.text(svg.WIDTH - 16, baseline + 15, numbers, "number", "end"))
        if not math.isnan(effect.mean):
            parts.append(svg.mark(x(effect.mean), baseline + 28, tone))
        said.append(f"{label}: {numbers}")
    return svg.picture(figure_id, title, "; ".join(said) + ".", parts, size)


class Series(NamedTuple):
    """One line of a level figure: its label, its tone (CSS classes) and an effect per level."""

    label: str
    tone: str
    effects: Sequence[quiver.Effect]


def level_figure(
    levels: Sequence[float],
    series: Sequence[Series],
    figure_id: str,
    title: str,
    axis: str,
    scaled: Sequence[quiver.Effect],
    *,
    signed: bool,
) -> str:
    """Lines by level, each with the band of its intervals.

    Args:
        levels: Where the points stand, evenly spaced.
        series: The lines.
        figure_id: Unique id on the page.
        title: Title for screen readers.
        axis: What a level is.
        scaled: Effects that the axis must hold, so that several figures can share it.
        signed: Whether the values are changes around zero, else AUROCs.
    """
    x = svg.Scale(0, max(len(levels) - 1, 1), svg.LEFT + 14, svg.WIDTH - svg.RIGHT - 10, ())
    ends = [v for e in scaled for v in (e.low, e.high, e.mean)]
    more, top = ([0.0], None) if signed else ([], 1.0)
    y = svg.nice_scale([*ends, *more], svg.HEIGHT - svg.BOTTOM, svg.TOP, top=top)
    every = math.ceil(len(levels) / 10)
    parts = [
        svg.grid_y(y, 3 if signed else 2),
        svg.axis_label_y("Change of test AUROC" if signed else "Test AUROC"),
        svg.text((svg.LEFT + svg.WIDTH) / 2, svg.HEIGHT - 6, axis, "label", "middle"),
    ]
    if signed:
        parts.append(svg.path(f"M{svg.LEFT} {y(0):.1f}H{svg.WIDTH - svg.RIGHT}", "zero"))
    parts += [
        svg.text(
            x(i),
            svg.HEIGHT - svg.BOTTOM + 18,
            f"{level:.3g}" if level < 100 else f"{level:g}",
            "tick",
            "middle",
        )
        for i, level in enumerate(levels)
        if i % every == 0
    ]
    said = []
    for one in series:
        parts += _band(x, y, one.effects, one.tone)
        show = quiver.signed if signed else "{:.3f}".format
        numbers = zip(levels, one.effects, strict=True)
        said.append(f"{one.label}: " + ", ".join(f"{show(e.mean)} at {at:g}" for at, e in numbers))
    return svg.picture(figure_id, title, "; ".join(said) + ".", parts)


def _band(x: svg.Scale, y: svg.Scale, effects: Sequence[quiver.Effect], tone: str) -> list[str]:
    """A line of means with its marks, over the band of its intervals."""
    banded = [(i, e) for i, e in enumerate(effects) if not math.isnan(e.low)]
    ring = [(i, e.low) for i, e in banded] + [(i, e.high) for i, e in reversed(banded)]
    drawn = []
    if len(banded) > 1:
        points = " ".join(f"{x(i):.1f},{min(max(y(v), y.end), y.start):.1f}" for i, v in ring)
        drawn.append(f'<polygon class="band {tone}" points="{points}"/>')
    drawn.append(svg.line(x, y, [effect.mean for effect in effects], f"mean {tone}"))
    marks = [(i, e.mean) for i, e in enumerate(effects) if not math.isnan(e.mean)]
    return drawn + [svg.mark(x(i), y(mean), tone) for i, mean in marks]
