"""Findings -> SVG figures, drawn without JavaScript.

Each function returns one `<svg>` with a title and a description. Colours come from the page's style
sheet through class names, so that light, dark and print follow the page. All text is escaped here.
"""

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxprobe import quiver
from jaxprobe.stages.reporting import per_dataset

WIDTH, HEIGHT = 440, 330
LEFT, RIGHT, TOP, BOTTOM = 64, 14, 12, 44
MANY = 30  # single lines; more of them are drawn fainter
MAX_CURVES = 4  # as many as there are colours


class Scale(NamedTuple):
    """A linear map from data to pixels, with the ticks that it shows."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def __call__(self, x: float) -> float:
        """Pixel of a data value."""
        return self.start + (x - self.low) / (self.high - self.low) * (self.end - self.start)


def nice_scale(values, start: float, end: float, *, top: float | None = None, count: int = 5):
    """A scale over all finite values that begins and ends on round ticks.

    Args:
        values: Data, NaN allowed.
        start: Pixel of the low end.
        end: Pixel of the high end.
        top: Highest tick that may be shown, for quantities with a maximum.
        count: About how many ticks.
    """
    finite = np.asarray(list(values), float)
    finite = finite[np.isfinite(finite)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    high = max(high, low + 1e-3)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [round(i * step, 10) for i in range(first, last + 1)]
    if top is not None:
        ticks = [tick for tick in ticks if tick <= top + 1e-9]
    return Scale(ticks[0], ticks[-1], start, end, tuple(ticks))


def curve_figure(curve: per_dataset.Curve, figure_id: str, title: str) -> str:
    """AUROC by k: each SAE's mean with its interval, single datasets thin, baseline and control."""
    x = Scale(0, len(curve.num_latents) - 1, LEFT + 14, WIDTH - RIGHT - 10, ())
    shown = [
        curve.auroc_GK[name]
        for name in (*shown_saes(curve), quiver.RANDOM_SAE)
        if name in curve.auroc_GK
    ]
    values = np.concatenate([*(auroc_GK.ravel() for auroc_GK in shown), curve.base_G])
    y = nice_scale([*values, 1.0], HEIGHT - BOTTOM, TOP, top=1.0, count=7)
    parts = [_grid_y(y, 2), _axis_label_y("Test AUROC")]
    parts += [
        _text(x(i), HEIGHT - BOTTOM + 18, str(k), "tick", "middle")
        for i, k in enumerate(curve.num_latents)
    ]
    parts.append(
        _text((LEFT + WIDTH) / 2, HEIGHT - 6, "Latents read by the probe, k", "label", "middle")
    )
    trained = shown_saes(curve)
    said = []
    thin = "thin many" if len(curve.datasets) > MANY else "thin"
    if len(trained) == 1:
        for dataset, auroc_K in zip(curve.datasets, curve.auroc_GK[trained[0]], strict=True):
            parts.append(_line(x, y, auroc_K, thin, dataset))
    for name in [quiver.RANDOM_SAE, *trained]:
        if name in curve.auroc_GK:
            tone = "random" if name == quiver.RANDOM_SAE else f"sae sae{trained.index(name) % 4}"
            effects = _mean_effects(curve.auroc_GK[name])
            parts += _band(x, y, effects, tone)
            said.append(f"{name} from {effects[0].mean:.3f} to {effects[-1].mean:.3f}")
    level = float(np.mean(curve.base_G))
    parts.append(_path(f"M{x.start - 8:.1f} {y(level):.1f}H{x.end + 8:.1f}", "baseline"))
    said.append(f"best baseline {level:.3f}")
    return _svg(
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
    size = HEIGHT + 60
    y = nice_scale([*values, 1.0], size - BOTTOM, TOP, top=1.0)
    x = y._replace(start=LEFT + 4, end=WIDTH - RIGHT)
    parts = [
        (
            f'<polygon class="better" points="{x.start:.1f},{y.start:.1f} {x.start:.1f},{y.end:.1f}'
            f' {x.end:.1f},{y.end:.1f}"/>'
        ),
        _grid_y(y, 2),
        *(_path(f"M{x(t):.1f} {y.start:.1f}V{y.end:.1f}", "grid") for t in x.ticks),
        *(_text(x(t), size - BOTTOM + 18, f"{t:.2f}", "tick", "middle") for t in x.ticks),
        _path(f"M{x.start:.1f} {y.start:.1f}L{x.end:.1f} {y.end:.1f}", "diagonal"),
        _text(x.start + 8, y.end + 18, "SAE probe higher", "region", "start"),
        _text(x.end - 8, y.start - 10, "baseline higher", "region", "end"),
        _text((LEFT + WIDTH) / 2, size - 6, "Best baseline, test AUROC", "label", "middle"),
        _axis_label_y("Best SAE probe, test AUROC", size),
    ]
    for place, line in enumerate(shown):
        words = f"{line.dataset}: baseline {line.base:.3f}, SAE probe {line.sae:.3f}"
        parts.append(
            f'<g class="dot" role="img" tabindex="{-1 if place else 0}" aria-label="{_escape(words)}">'
            f'<title>{_escape(words)}</title><circle class="hit" cx="{x(line.base):.1f}"'
            f' cy="{y(line.sae):.1f}" r="11"/><circle cx="{x(line.base):.1f}" cy="{y(line.sae):.1f}"'
            f' r="5"/></g>'
        )
    above = sum(line.sae > line.base for line in shown)
    said = f"{len(shown)} datasets; the SAE probe scores higher on {above}. The table below has the numbers."
    return _svg(figure_id, title, said, parts, size)


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
    size = top + row_height * len(effects) + BOTTOM
    ends = [v for e in scaled for v in (e.low, e.high, e.mean)]
    x = nice_scale([*ends, -0.001, 0.001], 16, WIDTH - 16, count=4)
    bottom = size - BOTTOM
    decimals = 2 if x.ticks[1] - x.ticks[0] >= 0.01 - 1e-9 else 3
    parts = [
        _text(x(t), bottom + 18, f"{t:+.{decimals}f}" if t else "0", "tick", "middle")
        for t in x.ticks
    ]
    parts.append(_text(WIDTH / 2, size - 6, "Change of mean test AUROC", "label", "middle"))
    said = []
    for place, (label, tone, effect) in enumerate(effects):
        baseline = top + row_height * place
        band = f" {baseline + 20}v16"  # the lines leave the words above each interval clear
        parts.append(_path("".join(f"M{x(t):.1f}{band}" for t in x.ticks), "grid"))
        parts.append(_path(f"M{x(0):.1f}{band}", "zero"))
        numbers = f"{quiver.signed(effect.mean)}"
        if not math.isnan(effect.low):
            numbers += f" ({quiver.signed(effect.low)} to {quiver.signed(effect.high)})"
            span = f"M{x(effect.low):.1f} {baseline + 28}H{x(effect.high):.1f}"
            ends = "".join(f"M{x(v):.1f} {baseline + 24}v8" for v in (effect.low, effect.high))
            parts.append(_path(span + ends, f"interval {tone}"))
        parts.append(_text(16, baseline + 15, label, "row", "start"))
        parts.append(_text(WIDTH - 16, baseline + 15, numbers, "number", "end"))
        if not math.isnan(effect.mean):
            parts.append(_mark(x(effect.mean), baseline + 28, tone))
        said.append(f"{label}: {numbers}")
    return _svg(figure_id, title, "; ".join(said) + ".", parts, size)


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
    x = Scale(0, max(len(levels) - 1, 1), LEFT + 14, WIDTH - RIGHT - 10, ())
    ends = [v for e in scaled for v in (e.low, e.high, e.mean)]
    more, top = ([0.0], None) if signed else ([], 1.0)
    y = nice_scale([*ends, *more], HEIGHT - BOTTOM, TOP, top=top)
    every = math.ceil(len(levels) / 10)
    parts = [
        _grid_y(y, 3 if signed else 2),
        _axis_label_y("Change of test AUROC" if signed else "Test AUROC"),
        _text((LEFT + WIDTH) / 2, HEIGHT - 6, axis, "label", "middle"),
    ]
    if signed:
        parts.append(_path(f"M{LEFT} {y(0):.1f}H{WIDTH - RIGHT}", "zero"))
    parts += [
        _text(
            x(i),
            HEIGHT - BOTTOM + 18,
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
    return _svg(figure_id, title, "; ".join(said) + ".", parts)


def _band(x: Scale, y: Scale, effects: Sequence[quiver.Effect], tone: str) -> list[str]:
    """A line of means with its marks, over the band of its intervals."""
    banded = [(i, e) for i, e in enumerate(effects) if not math.isnan(e.low)]
    ring = [(i, e.low) for i, e in banded] + [(i, e.high) for i, e in reversed(banded)]
    drawn = []
    if len(banded) > 1:
        points = " ".join(f"{x(i):.1f},{min(max(y(v), y.end), y.start):.1f}" for i, v in ring)
        drawn.append(f'<polygon class="band {tone}" points="{points}"/>')
    drawn.append(_line(x, y, [effect.mean for effect in effects], f"mean {tone}"))
    marks = [(i, e.mean) for i, e in enumerate(effects) if not math.isnan(e.mean)]
    return drawn + [_mark(x(i), y(mean), tone) for i, mean in marks]


# --- pieces of SVG


def _svg(figure_id: str, title: str, words: str, parts: Sequence[str], height: int = HEIGHT) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="group" aria-labelledby="{figure_id}-title'
        f' {figure_id}-desc"><title id="{figure_id}-title">{_escape(title)}</title>'
        f'<desc id="{figure_id}-desc">{_escape(words)}</desc>{"".join(parts)}</svg>'
    )


def _escape(text: str) -> str:
    return html.escape(str(text), quote=True)


def _text(x: float, y: float, text: str, tone: str, anchor: str) -> str:
    return f'<text class="{tone}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{_escape(text)}</text>'


def _path(d: str, tone: str) -> str:
    return f'<path class="{tone}" d="{d}"/>'


def _line(x: Scale, y: Scale, values: Sequence[float], tone: str, name: str = "") -> str:
    points = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(values) if not math.isnan(v))
    title = f"<title>{_escape(name)}</title>" if name else ""
    return f'<polyline class="{tone}" points="{points}">{title}</polyline>'


def _mark(x: float, y: float, tone: str) -> str:
    if {"random", "alone", "dashed"} & set(
        tone.split()
    ):  # shape as well as colour tells them apart
        return (
            f'<rect class="mark {tone}" x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"/>'
        )
    return f'<circle class="mark {tone}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'


def _grid_y(y: Scale, decimals: int) -> str:
    return "".join(
        _path(f"M{LEFT} {y(t):.1f}H{WIDTH - RIGHT}", "grid")
        + _text(LEFT - 8, y(t) + 4, f"{t:.{decimals}f}", "tick", "end")
        for t in y.ticks
    )


def _axis_label_y(text: str, height: int = HEIGHT) -> str:
    middle = (height - BOTTOM + TOP) / 2
    return (
        f'<text class="label" transform="translate(11 {middle:.0f}) rotate(-90)"'
        f' text-anchor="middle">{_escape(text)}</text>'
    )
