"""Effects -> drawings: differences with their intervals, in rows or by level."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from jaxprobe import quiver
from jaxprobe.rendering import svg
from jaxprobe.rendering.svg import Drawing

EDGE = 16  # pixels left and right of drawings without a vertical axis


class Series(NamedTuple):
    """One line of a figure: its label, its tone (CSS classes) and an effect per position."""

    label: str
    tone: str
    effects: Sequence[quiver.Effect]


def effect_figure(
    effects: Sequence[tuple[str, str, quiver.Effect]],
    name: str,
    title: str,
    scaled: Sequence[quiver.Effect],
) -> Drawing:
    """Mean differences with their intervals, one per row, around a line at zero.

    Args:
        effects: Per row its label, its tone (a CSS class) and the effect.
        name: Unique name on the page.
        title: Title for screen readers.
        scaled: Effects that the axis must hold, so that several figures can share it.
    """
    row_height, top = 40, 8
    size = top + row_height * len(effects) + svg.BOTTOM
    ends = [v for effect in scaled for v in (effect.low, effect.high, effect.mean)]
    x = svg.nice_scale([*ends, -0.001, 0.001], EDGE, svg.WIDTH - EDGE, count=4)
    decimals = 2 if x.ticks[1] - x.ticks[0] >= 0.01 - 1e-9 else 3
    parts = [
        svg.text(x(t), size - svg.BOTTOM + 18, f"{t:+.{decimals}f}" if t else "0", "tick")
        for t in x.ticks
    ]
    parts.append(svg.text(svg.WIDTH / 2, size - 6, "Change of mean test AUROC", "label"))
    said = []
    for place, (label, tone, effect) in enumerate(effects):
        shown = numbers(effect)
        parts += _effect_row(x, top + row_height * place, label, shown, tone, effect)
        said.append(f"{label}: {shown}")
    return svg.picture(name, title, "; ".join(said) + ".", parts, size)


def _effect_row(
    x: svg.Scale, top: float, label: str, numbers: str, tone: str, effect: quiver.Effect
) -> list[Markup]:
    """A label and the numbers, and below them the interval on its part of the grid."""
    grid = f" {top + 20}v16"  # the grid's lines do not cross the words above each interval
    parts = [
        svg.path("".join(f"M{x(t):.1f}{grid}" for t in x.ticks), "grid"),
        svg.path(f"M{x(0):.1f}{grid}", "zero"),
        svg.text(EDGE, top + 15, label, "row", "start"),
        svg.text(svg.WIDTH - EDGE, top + 15, numbers, "number", "end"),
    ]
    if not math.isnan(effect.low):
        span = f"M{x(effect.low):.1f} {top + 28}H{x(effect.high):.1f}"
        ends = "".join(f"M{x(v):.1f} {top + 24}v8" for v in (effect.low, effect.high))
        parts.append(svg.path(span + ends, f"interval {tone}"))
    if not math.isnan(effect.mean):
        parts.append(svg.mark(x(effect.mean), top + 28, tone))
    return parts


def level_figure(
    levels: Sequence[float],
    series: Sequence[Series],
    name: str,
    title: str,
    axis: str,
    scaled: Sequence[quiver.Effect],
    *,
    signed: bool,
) -> Drawing:
    """Lines by level, each with the band of its intervals.

    Args:
        levels: The levels of the points, which are evenly spaced.
        series: The lines.
        name: Unique name on the page.
        title: Title for screen readers.
        axis: Name of the axis of levels.
        scaled: Effects that the axis must hold, so that several figures can share it.
        signed: Whether the values are changes around zero rather than AUROCs.
    """
    x = svg.steps(len(levels))
    ends = [v for effect in scaled for v in (effect.low, effect.high, effect.mean)]
    y = svg.y_scale([*ends, 0.0]) if signed else svg.y_scale(ends, top=1.0)
    places = [
        (x(i), f"{level:.3g}" if level < 100 else f"{level:g}")
        for i, level in enumerate(levels)
        if i % math.ceil(len(levels) / 10) == 0
    ]
    label = "Change of test AUROC" if signed else "Test AUROC"
    parts = svg.axes(y, axis, label, places, decimals=3 if signed else 2)
    if signed:
        parts.append(svg.path(f"M{svg.LEFT} {y(0):.1f}H{svg.WIDTH - svg.RIGHT}", "zero"))
    said = []
    for one in series:
        parts += svg.band(x, y, spans(one.effects), one.tone)
        show = quiver.signed if signed else "{:.3f}".format
        numbers = zip(levels, one.effects, strict=True)
        said.append(f"{one.label}: " + ", ".join(f"{show(e.mean)} at {at:g}" for at, e in numbers))
    return svg.picture(name, title, "; ".join(said) + ".", parts)


def spans(effects: Sequence[quiver.Effect]) -> list[tuple[float, float, float]]:
    """Mean and ends of each effect, as `svg.band` takes them."""
    return [(effect.mean, effect.low, effect.high) for effect in effects]


def numbers(effect: quiver.Effect) -> str:
    """A difference, with its interval where there is one."""
    if math.isnan(effect.low):
        return quiver.signed(effect.mean)
    ends = f"{quiver.signed(effect.low)} to {quiver.signed(effect.high)}"
    return f"{quiver.signed(effect.mean)} ({ends})"
