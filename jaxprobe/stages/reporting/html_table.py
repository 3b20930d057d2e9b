"""HTML tables: cells, and a table in a container that scrolls.

Every table has a caption and header scopes. A header cell with `data-sort` becomes a sort button where
JavaScript runs; cells carry the sort value in `data-value` where their text is not it. All text is
escaped here.
"""

import html
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

TALL = 25  # rows; longer tables scroll inside their container


class Cell(NamedTuple):
    """One cell: its HTML, its sort value, its class."""

    body: str
    value: str = ""
    tone: str = ""


NOTHING = Cell('<span class="none">n/a</span>', "", "num")


def text(words: object) -> Cell:
    """A cell of plain text."""
    return Cell(html.escape(str(words), quote=True))


def number(x: float, decimals: int = 3, sign: str = "", tone: str = "") -> Cell:
    """A cell of one number, right-aligned; NaN is shown as n/a and sorts last."""
    if math.isnan(x):
        return NOTHING
    return Cell(f"{x:{sign}.{decimals}f}", repr(float(x)), f"num {tone}".strip())


def difference(x: float, decimals: int = 3, *, told_apart: bool = True) -> Cell:
    """A signed number, coloured unless it cannot be told apart from zero."""
    if math.isnan(x) or round(x, decimals) == 0:
        return number(abs(x), decimals)
    tone = ("up" if x > 0 else "down") if told_apart else ""
    return number(x, decimals, "+", tone)


def table(
    caption: str,
    heads: Sequence[tuple[str, str]],
    rows: Iterable[Sequence[Cell]],
    *,
    groups: Sequence[tuple[str, int]] = (),
    table_id: str = "",
    tone: str = "",
    sortable: bool = False,
    foot: Sequence[Cell] = (),
) -> str:
    """A table in its own scrolling container.

    Args:
        caption: What the table shows.
        heads: Per column its name and class ("num" or "").
        rows: Cells; the first of each row is its header.
        groups: Names above the columns with the number of columns each spans.
        table_id: Id of the table.
        tone: Class of the table.
        sortable: Whether headers become sort buttons.
        foot: A last row of means.
    """
    rows, above = list(rows), ""
    if groups:
        spans = (
            f'<th scope="colgroup" colspan="{span}">{escape(name)}</th>'
            if name
            else f'<td colspan="{span}"></td>'
            for name, span in groups
        )
        above = f"<tr>{''.join(spans)}</tr>"
    sort = " data-sort" if sortable else ""
    titles = "".join(
        f'<th scope="col"{_class(tone)}{sort}>{escape(name)}</th>' for name, tone in heads
    )
    body = "".join(_row(cells) for cells in rows)
    end = f"<tfoot>{_row(foot)}</tfoot>" if foot else ""
    name = f' id="{table_id}"' if table_id else ""
    return (
        f'<div class="scroll{" tall" if len(rows) > TALL else ""}" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f"<table{name}{_class(tone)}><caption>{escape(caption)}</caption><thead>{above}<tr>{titles}</tr></thead>"
        f"<tbody>{body}</tbody>{end}</table></div>"
    )


def _row(cells: Sequence[Cell]) -> str:
    first, *rest = cells
    shown = [f'<th scope="row">{first.body}</th>']
    for cell in rest:
        value = f' data-value="{escape(cell.value)}"' if cell.value else ""
        shown.append(f"<td{_class(cell.tone)}{value}>{cell.body}</td>")
    return f"<tr>{''.join(shown)}</tr>"


def _class(tone: str) -> str:
    return f' class="{tone}"' if tone else ""


def escape(words: object) -> str:
    """Text that stays text inside an element or an attribute."""
    return html.escape(str(words), quote=True)
