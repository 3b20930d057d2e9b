"""Blocks through the three back ends: HTML, the terminal and CSV show the same values."""

import csv
import html.parser
import io
import math

import pytest

from jaxprobe import rendering
from jaxprobe.rendering import Cell, Column, Prose, Section, Table, forms, svg

COLUMNS = [
    Column(title="Name", key="name"),
    Column(title="AUROC", form=forms.AUROC, key="auroc", group="Test"),
    Column(title="Between", form=forms.SPAN, group="Test"),
    Column(title="Far", only="page"),
]
ROWS = [
    ["<b>one</b>", Cell(0.12345, note="k 4", tone="up"), (0.1, 0.2), "x"],
    ["=SUM(1)", math.nan, (math.nan, math.nan), ""],
    ["tab\tand\x1b[31mred", -0.5, (0.0, 0.25), "y"],
]


def report(*blocks):
    sections = [Section(name="first", title="The answer", blocks=blocks)]
    return rendering.Report(
        title="t", kicker="k", question="q?", lede="l", facts={"Model": "m"}, sections=sections
    )


def table(**more):
    return Table(**({"caption": "All of them", "columns": COLUMNS, "rows": ROWS} | more))


class Texts(html.parser.HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.values, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.values += [value for name, value in attrs if name == "data-value"]

    def handle_data(self, data):
        self.text += data


def test_a_table_on_the_page():
    page = Texts(rendering.to_html(report(table())))
    assert "b" not in page.tags and "<b>one</b>" in page.text
    assert page.values == ["0.12345", "0.1", "-0.5", "0.0"]  # what a sort compares
    for shown in ("0.123", "k 4", "0.100 to 0.200", "n/a", "All of them", "Test"):
        assert shown in page.text


def test_a_table_in_the_terminal():
    text = rendering.to_terminal(report(table(most=2)))
    assert "\x1b" not in text and "\t" not in text and "Far" not in text
    assert "k 4 0.123" in text and "1 more rows are on the page" in text
    whole = rendering.to_terminal(report(table()))
    assert r"tab\tand\x1b[31mred" in whole and "-0.500" in whole


def test_a_table_as_csv():
    lines = list(csv.reader(io.StringIO(rendering.to_csv(table()))))
    assert lines[0] == ["name", "auroc", "Between", "Far"]
    assert lines[1][:2] == ["<b>one</b>", "0.12345"]
    assert lines[2][0] == "'=SUM(1)"  # no spreadsheet runs it
    assert lines[3][1] == "-0.5"


@pytest.mark.parametrize("count", [1, 3, 40])
def test_the_terminal_holds_its_width(count):
    columns = [Column(title=f"a long heading {i}") for i in range(count)]
    rows = [["x" * 300] * count]
    text = rendering.to_terminal(
        report(Prose(text="word " * 60), table(columns=columns, rows=rows))
    )
    assert max(map(len, text.splitlines())) <= 100


def test_a_block_is_shown_where_it_belongs():
    blocks = [
        Prose(text="both"),
        Prose(text="here", only="page"),
        Prose(text="there", only="terminal"),
    ]
    page, text = rendering.to_html(report(*blocks)), rendering.to_terminal(report(*blocks))
    assert "here" in page and "there" not in page
    assert "there" in text and "here" not in text.replace("there", "")


def test_a_missing_value_sorts_by_nothing():
    assert [forms.sort_value(x) for x in (None, math.nan, (math.nan, 1.0), "a", True)] == [""] * 5
    assert svg.band(svg.steps(2), svg.y_scale([0, 1]), [(math.nan,) * 3] * 2, "tone")
