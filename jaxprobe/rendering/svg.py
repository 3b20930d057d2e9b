"""Drawings: scales, elements, axes, marks, without JavaScript.

Colours come from the page's style sheet through class names (`tone`), so that light, dark and print
follow the page. Every text goes through `element`, which escapes it.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

WIDTH, HEIGHT = 440, 330
LEFT, RIGHT, TOP, BOTTOM = 64, 14, 12, 44

Drawing = Markup


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


def nice_scale(
    values: Iterable[float], start: float, end: float, *, top: float | None = None, count: int = 5
) -> Scale:
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


def steps(count: int, width: float = WIDTH) -> Scale:
    """The scale of `count` positions side by side."""
    return Scale(0, max(count - 1, 1), LEFT + 14, width - RIGHT - 10, ())


def y_scale(values: Iterable[float], height: float = HEIGHT, **more) -> Scale:
    """The vertical scale of a drawing, as `nice_scale`."""
    return nice_scale(values, height - BOTTOM, TOP, **more)


# --- elements


def element(tag: str, *inside: str, **attributes: object) -> Markup:
    """One element. In attribute names `_` becomes `-`, and is dropped at the end; numbers get one decimal."""
    shown = Markup("").join(
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), _number(value))
        for name, value in attributes.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(tag, shown, Markup("").join(inside))


def _number(value: object) -> object:
    return f"{value:.1f}" if isinstance(value, float) else value


def picture(
    name: str,
    title: str,
    words: str,
    parts: Sequence[Markup],
    height: int = HEIGHT,
    width: int = WIDTH,
) -> Drawing:
    """A picture with its title and description for screen readers; `name` is unique on the page."""
    return element(
        "svg",
        element("title", title, id=f"{name}-title"),
        element("desc", words, id=f"{name}-desc"),
        *parts,
        viewBox=f"0 0 {width} {height}",
        role="group",
        aria_labelledby=f"{name}-title {name}-desc",
    )


def text(x: float, y: float, words: str, tone: str, anchor: str = "middle") -> Markup:
    """A text; `anchor` is start, middle or end."""
    return element("text", words, class_=tone, x=float(x), y=float(y), text_anchor=anchor)


def path(d: str, tone: str) -> Markup:
    """A path."""
    return element("path", class_=tone, d=d)


def line(x: Scale, y: Scale, values: Sequence[float], tone: str, name: str = "") -> Markup:
    """A line through values at 0, 1, 2 ... of `x`; NaN is left out."""
    points = [(x(i), y(v)) for i, v in enumerate(values) if not math.isnan(v)]
    title = [element("title", name)] if name else []
    return element("polyline", *title, class_=tone, points=_points(points))


def polygon(points: Iterable[tuple[float, float]], tone: str) -> Markup:
    """A filled shape."""
    return element("polygon", class_=tone, points=_points(points))


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def mark(x: float, y: float, tone: str) -> Markup:
    """A point of a line; both its shape and its colour distinguish tones."""
    if {"random", "alone", "dashed"} & set(tone.split()):
        return element("rect", class_=f"mark {tone}", x=x - 3.5, y=y - 3.5, width=7, height=7)
    return element("circle", class_=f"mark {tone}", cx=x, cy=y, r=4)


def named(words: str, *inside: Markup, first: bool, tone: str = "dot") -> Markup:
    """Marks that show their name on hover and focus; the Tab key reaches the `first` of a figure."""
    title = element("title", words)
    tab = 0 if first else -1
    return element("g", title, *inside, class_=tone, role="img", tabindex=tab, aria_label=words)


def dot(x: float, y: float, words: str, *, first: bool) -> Markup:
    """A dot that shows its name, with a larger circle around it as the hover target."""
    hit = element("circle", class_="hit", cx=x, cy=y, r=11)
    return named(words, hit, element("circle", cx=x, cy=y, r=5), first=first)


def band(
    x: Scale, y: Scale, spans: Sequence[tuple[float, float, float]], tone: str
) -> list[Markup]:
    """A line of means with its marks, over the band of its intervals.

    Args:
        x: The horizontal scale of the points 0, 1, 2 ...
        y: The vertical scale of their values; values beyond it are clipped.
        spans: Mean, lower and upper end of each point; NaN where there is none.
        tone: CSS classes.
    """
    ended = [(i, low, high) for i, (_, low, high) in enumerate(spans) if not math.isnan(low)]
    drawn = []
    if len(ended) > 1:
        ring = [(i, low) for i, low, _ in ended] + [(i, high) for i, _, high in reversed(ended)]
        inside = [(x(i), min(max(y(v), y.end), y.start)) for i, v in ring]
        drawn.append(polygon(inside, f"band {tone}"))
    means = [mean for mean, *_ in spans]
    drawn.append(line(x, y, means, f"mean {tone}"))
    known = [(i, mean) for i, mean in enumerate(means) if not math.isnan(mean)]
    return drawn + [mark(x(i), y(mean), tone) for i, mean in known]


# --- axes


def axes(
    y: Scale,
    label_x: str,
    label_y: str,
    places: Sequence[tuple[float, str]],
    *,
    decimals: int = 2,
    width: int = WIDTH,
    height: int = HEIGHT,
) -> list[Markup]:
    """Horizontal grid lines with ticks, the labels below the drawing, and both axes' names.

    Args:
        y: The vertical scale.
        label_x: Name of the horizontal axis.
        label_y: Name of the vertical axis.
        places: Pixel and text of each mark of the horizontal axis.
        decimals: Decimals of the vertical axis' ticks.
        width: Width of the drawing.
        height: Height of the drawing.
    """
    middle = f"translate(11 {(height - BOTTOM + TOP) / 2:.0f}) rotate(-90)"
    drawn = [path(f"M{LEFT} {y(tick):.1f}H{width - RIGHT}", "grid") for tick in y.ticks]
    drawn += [text(LEFT - 8, y(t) + 4, f"{t:.{decimals}f}", "tick", "end") for t in y.ticks]
    drawn += [text(x, height - BOTTOM + 18, words, "tick") for x, words in places]
    drawn.append(text((LEFT + width) / 2, height - 6, label_x, "label"))
    drawn.append(element("text", label_y, class_="label", transform=middle, text_anchor="middle"))
    return drawn
