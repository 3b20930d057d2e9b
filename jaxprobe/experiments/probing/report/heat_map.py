"""The matrix of settings and SAEs as a drawing."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from jaxprobe import quiver
from jaxprobe.experiments.probing.report.effect_figures import numbers
from jaxprobe.experiments.probing.report.words import shortened
from jaxprobe.rendering import svg
from jaxprobe.rendering.svg import Drawing

LEFT, TOP, WIDE, HIGH = 150, 40, 76, 30  # pixels: row names, column names, a cell


def heat_map(
    places: Sequence[str],
    kinds: Sequence[str],
    effects: Sequence[Sequence[quiver.Effect | None]],
    name: str,
    title: str,
) -> Drawing:
    """Differences as coloured cells that show their name on hover: rows are places, columns SAEs.

    Args:
        places: Names of the rows.
        kinds: Names of the columns.
        effects: Per row and column; None leaves the cell empty.
        name: Unique name on the page.
        title: Title for screen readers.
    """
    known = [abs(effect.mean) for row in effects for effect in row if effect]
    most = max([size for size in known if math.isfinite(size)], default=0) or 1.0
    parts = [
        svg.text(LEFT + WIDE * (i + 0.5), TOP - 10, shortened(kind, 11), "tick")
        for i, kind in enumerate(kinds)
    ]
    count = 0
    for row, (place, found) in enumerate(zip(places, effects, strict=True)):
        y = TOP + HIGH * row
        parts.append(svg.text(LEFT - 8, y + 20, shortened(place, 22), "row", "end"))
        for column, (kind, effect) in enumerate(zip(kinds, found, strict=True)):
            if effect is None or math.isnan(effect.mean):
                continue
            words = f"{place}, {kind}: {numbers(effect)}"
            inside = _heat_cell(LEFT + WIDE * column, y, WIDE - 3, HIGH - 3, effect, most)
            parts.append(svg.named(words, *inside, first=not count))
            count += 1
    said = f"{len(places)} places by {len(kinds)} SAEs, {count} cells; the table below has the numbers."
    width = max(LEFT + WIDE * len(kinds) + svg.RIGHT, svg.WIDTH)
    return svg.picture(name, title, said, parts, TOP + HIGH * len(places) + 8, width)


def _heat_cell(
    x: float, y: float, width: float, height: float, effect: quiver.Effect, most: float
) -> list[Markup]:
    """A cell whose hue shows the sign and whose opacity the size; bold where distinguishable from zero."""
    tone = "gain" if effect.mean > 0 else "loss"
    shape = {"x": x, "y": y, "width": width, "height": height}
    opacity = f"{0.45 * abs(effect.mean) / most:.2f}"
    fill = svg.element("rect", class_=f"heat {tone}", fill_opacity=opacity, **shape)
    strength = "cell told" if quiver.direction(effect) else "cell"
    number = svg.text(x + width / 2, y + height / 2 + 4, quiver.signed(effect.mean), strength)
    return [fill, svg.element("rect", class_="hit", **shape), number]
