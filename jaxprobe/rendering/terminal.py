"""Blocks -> text for a terminal, lines of at most 100 columns."""

import itertools
import textwrap
from collections.abc import Iterator, Sequence

from jaxprobe.outgoing import printable
from jaxprobe.rendering import forms
from jaxprobe.rendering.blocks import (
    Block,
    Column,
    Grid,
    Headline,
    Points,
    Prose,
    Report,
    Section,
    Table,
    cell,
    shown,
)

WIDTH = 100
GAP = "  "
_NARROWEST = 12  # of a column of words


def to_terminal(report: Report) -> str:
    """The report without its figures and files.

    Returns:
        Lines of at most 100 columns.
    """
    facts = "; ".join(f"{name}: {value}" for name, value in report.facts.items())
    lines = list(_wrap(facts))
    for section in report.sections:
        if shown(section, "terminal"):
            inside = list(_blocks(section.blocks))
            rule = "-" * min(len(section.title), WIDTH)
            lines += ["", *_wrap(section.title), rule, *inside] if inside else []
    # One empty line between blocks, never two.
    kept = [one for i, one in enumerate(lines) if one or (i and lines[i - 1])]
    return "\n".join(kept).rstrip() + "\n"


def _wrap(text: str, indent: str = "", first: str = "") -> list[str]:
    return textwrap.wrap(
        printable(text),
        WIDTH,
        initial_indent=first,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )


def _blocks(blocks: Sequence[Block]) -> Iterator[str]:
    for block in blocks:
        if not shown(block, "terminal"):
            continue
        match block:
            case Prose():
                yield from _wrap(block.text)
            case Points():
                for item in block.items:
                    yield from _wrap(item, "  ", "- ")
            case Headline():
                yield from _wrap(f"{block.title}: {block.sentence}", "  ")
                for point in block.points:
                    yield from _wrap(point, "  ", "  ")
            case Table():
                yield from ["", *_table(block), ""]
            case Grid():
                yield from _blocks(block.blocks)
            case Section():
                yield from ["", *_blocks(block.blocks)]


# --- tables


def _table(table: Table) -> list[str]:
    """A caption, headings, and the first rows; to fit, texts are shortened and last columns dropped."""
    kept = [i for i, column in enumerate(table.columns) if shown(column, "terminal")]
    columns = [table.columns[i] for i in kept]
    rows = [[row[i] for i in kept] for row in table.rows[: table.most]]
    foot = [[table.foot[i] for i in kept]] if table.foot else []
    texts = [[_text(*pair) for pair in zip(columns, row, strict=True)] for row in rows + foot]
    widths = _widths(columns, texts)
    columns = columns[: len(widths)]
    lines = _wrap(table.caption)
    if any(column.group for column in columns):
        lines.append(_group_line(columns, widths))
    lines.append(_line([column.title for column in columns], columns, widths))
    lines += [_line(row, columns, widths) for row in texts]
    if len(table.rows) > table.most:
        lines.append(f"{len(table.rows) - table.most} more rows are on the page")
    return lines


def _text(column: Column, value: object) -> str:
    one = cell(value)
    if one.value == "":
        return ""
    text = "-" if forms.is_missing(one.value) else column.form.show(one.value)
    return printable(" ".join(filter(None, (one.note, text, one.below))))


def _widths(columns: Sequence[Column], texts: Sequence[Sequence[str]]) -> list[int]:
    """A width per column shown; the widest text columns shrink first, then the last columns are dropped."""
    widths = [
        max([len(column.title), *(len(row[place]) for row in texts)])
        for place, column in enumerate(columns)
    ]
    while widths and sum(widths) + len(GAP) * (len(widths) - 1) > WIDTH:
        words = [i for i in range(len(widths)) if not columns[i].form.is_number]
        widest = max(words, key=widths.__getitem__, default=0)
        over = sum(widths) + len(GAP) * (len(widths) - 1) - WIDTH
        if words and widths[widest] > _NARROWEST:
            widths[widest] = max(_NARROWEST, widths[widest] - over)
        else:
            widths.pop()
    return widths


def _line(texts: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    cells = []
    for text, column, width in zip(texts, columns, widths, strict=False):
        fits = (
            text
            if len(text) <= width
            else f"{text[: width // 2 - 1]}..{text[-(width - width // 2 - 1) :]}"
        )
        cells.append(f"{fits:>{width}}" if column.form.is_number else f"{fits:<{width}}")
    return GAP.join(cells).rstrip()


def _group_line(columns: Sequence[Column], widths: Sequence[int]) -> str:
    parts, place = [], 0
    for name, run in itertools.groupby(columns, key=lambda column: column.group):
        count = len(list(run))
        width = sum(widths[place : place + count]) + len(GAP) * (count - 1)
        title = f" {name} " if name else ""
        parts.append(f"{title:{'-' if name else ' '}^{width}}"[:width])
        place += count
    return GAP.join(parts).rstrip()
