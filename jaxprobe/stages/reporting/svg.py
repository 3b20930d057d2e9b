"""Pieces of SVG: scales, text, lines, marks, grids. All text is escaped here."""

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 440, 330
LEFT, RIGHT, TOP, BOTTOM = 64, 14, 12, 44


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


def picture(
    figure_id: str, title: str, words: str, parts: Sequence[str], height: int = HEIGHT
) -> str:
    """A picture with its title and description for screen readers."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="group" aria-labelledby="{figure_id}-title'
        f' {figure_id}-desc"><title id="{figure_id}-title">{escape(title)}</title>'
        f'<desc id="{figure_id}-desc">{escape(words)}</desc>{"".join(parts)}</svg>'
    )


def escape(text: str) -> str:
    """Text that stays text inside an element or an attribute."""
    return html.escape(str(text), quote=True)


def text(x: float, y: float, text: str, tone: str, anchor: str) -> str:
    """A text; `tone` is its CSS class, `anchor` start, middle or end."""
    return (
        f'<text class="{tone}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def path(d: str, tone: str) -> str:
    """A path."""
    return f'<path class="{tone}" d="{d}"/>'


def line(x: Scale, y: Scale, values: Sequence[float], tone: str, name: str = "") -> str:
    """A line through values at 0, 1, 2 ... of `x`; NaN is left out."""
    points = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(values) if not math.isnan(v))
    title = f"<title>{escape(name)}</title>" if name else ""
    return f'<polyline class="{tone}" points="{points}">{title}</polyline>'


def mark(x: float, y: float, tone: str) -> str:
    """A point of a line; its shape as well as its colour tells tones apart."""
    if {"random", "alone", "dashed"} & set(
        tone.split()
    ):  # shape as well as colour tells them apart
        return (
            f'<rect class="mark {tone}" x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"/>'
        )
    return f'<circle class="mark {tone}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'


def grid_y(y: Scale, decimals: int) -> str:
    """Horizontal grid lines with their ticks."""
    return "".join(
        path(f"M{LEFT} {y(t):.1f}H{WIDTH - RIGHT}", "grid")
        + text(LEFT - 8, y(t) + 4, f"{t:.{decimals}f}", "tick", "end")
        for t in y.ticks
    )


def axis_label_y(text: str, height: int = HEIGHT) -> str:
    """The name of the vertical axis."""
    middle = (height - BOTTOM + TOP) / 2
    return (
        f'<text class="label" transform="translate(11 {middle:.0f}) rotate(-90)"'
        f' text-anchor="middle">{escape(text)}</text>'
    )
