"""The blocks that a report is made of. They hold values, not formatted text.

A block's `only` is empty, or the one back end that shows it: `page` or `terminal`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxprobe.rendering import forms
from jaxprobe.rendering.forms import Form
from jaxprobe.rendering.svg import Drawing


class Cell(NamedTuple):
    """One cell of a table.

    Attributes:
        value: A value for its column's form; None or NaN if unknown, "" for an empty cell.
        note: A remark before it.
        below: A remark on its own line.
        tone: `up` or `down`; empty where no direction may be claimed.
    """

    value: object = ""
    note: str = ""
    below: str = ""
    tone: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        title: Its heading.
        form: How its values are shown.
        key: Its heading in CSV files; `title` where empty.
        group: A heading over adjacent columns of the same group.
        only: As of a block.
    """

    title: str
    form: Form = forms.TEXT
    key: str = ""
    group: str = ""
    only: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table.

    Attributes:
        caption: What it shows.
        columns: Typed columns; the first names the row.
        rows: A value or a `Cell` per column.
        name: Unique on the page; empty where nothing refers to it.
        foot: A last row of means.
        search: What the search box finds in the first column, such as `dataset`; empty for no box.
        sortable: Whether clicking a header sorts it.
        tone: `compact`, `wrap` or both: how narrow its columns may become.
        most: Rows that the terminal shows.
        only: The one back end that shows it.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[object]]
    name: str = ""
    foot: Sequence[object] = ()
    search: str = ""
    sortable: bool = False
    tone: str = ""
    most: int = 24
    only: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prose:
    """A paragraph; `tone` is `overall`, `note`, `warning`, `small`, `code` or empty."""

    text: str
    tone: str = ""
    only: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Points:
    """A list of sentences."""

    items: Sequence[str]
    only: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Headline:
    """A prominent number, the sentence that it summarises, and what qualifies it.

    Attributes:
        title: What it is about.
        value: The number, formatted.
        unit: Its unit.
        span: Its interval.
        sentence: What follows from it.
        points: Further sentences.
        tone: `up`, `down` or `even`.
    """

    title: str
    value: str
    unit: str
    span: str
    sentence: str
    points: Sequence[str] = ()
    tone: str = "even"
    only: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing with its caption.

    Attributes:
        drawing: The drawing, with its description for screen readers.
        caption: The text below it.
        legend: Tone and label of each line.
        dots: Whether it has dots that show their names on hover and focus.
    """

    drawing: Drawing
    caption: str
    legend: Sequence[tuple[str, str]] = ()
    dots: bool = False
    only: str = "page"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Download:
    """A file next to the page; with a table, a CSV file that the page contains."""

    name: str
    table: Table | None = None
    only: str = "page"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """Blocks side by side where there is room; `kind` is figures, cards or records."""

    kind: str
    blocks: Sequence["Block"]
    only: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A titled part; sections may be nested two deep. `name` is unique: the anchor in the page's URL."""

    name: str
    title: str
    blocks: Sequence["Block"]
    only: str = ""


Block = Prose | Points | Headline | Table | Figure | Download | Grid | Section


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """A whole report.

    Attributes:
        title: Title of the browser's window.
        question: What it asks.
        sections: In order; the first one holds the answer.
        kicker: What kind of document it is.
        lede: A sentence that explains the question.
        facts: What it is about, by name.
        footer: The last line.
    """

    title: str
    question: str
    sections: Sequence[Section]
    kicker: str = ""
    lede: str = ""
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    footer: str = ""


def cell(value: object) -> Cell:
    """A plain value as a cell."""
    return value if isinstance(value, Cell) else Cell(value)


def shown(block: Block | Column, where: str) -> bool:
    """Whether a back end shows a block or column."""
    return block.only in ("", where)
