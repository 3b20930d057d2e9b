"""Blocks -> one self-contained HTML page.

The page needs no network and has the same content without JavaScript, which only adds sorting, search and
tooltips. Its style sheet and script are stored with the templates and inlined; a content security policy
allows these two by hash and nothing else. Jinja2 escapes every text.
"""

import base64
import functools
import hashlib
import importlib.resources
import itertools
from collections.abc import Sequence

import jinja2
from markupsafe import Markup

from jaxprobe.rendering import forms
from jaxprobe.rendering.blocks import Column, Report, Table, cell, shown
from jaxprobe.rendering.csv import to_csv

TALL = 25  # rows; longer tables scroll inside their container


def to_html(report: Report) -> str:
    """The whole page."""
    style, script = _resource("style.css"), _resource("script.js")
    content: dict[str, object] = {
        "report": report,
        "sections": [section for section in report.sections if shown(section, "page")],
        "style": Markup(style),
        "script": Markup(script),
        "policy": _policy(style, script),
    }
    return _environment().get_template("page.html").render(content | _FUNCTIONS)


@functools.lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("jaxprobe.rendering"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _cell(column: Column, value: object) -> dict[str, object]:
    """What the template needs for a cell."""
    one, form = cell(value), column.form
    missing = forms.is_missing(one.value)
    text = "" if one.value == "" else (forms.NOTHING if missing else form.show(one.value))
    tones = (("num" if form.is_number else "key" if form.keep_whole else ""), one.tone)
    return {
        "cell": one,
        "text": text,
        "missing": missing,
        "sort": forms.sort_value(one.value) if form.is_number else "",
        "tone": " ".join(filter(None, tones)),
    }


def _groups(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """Names of the groups in order, and how many columns each spans; empty without groups."""
    columns = [column for column in columns if shown(column, "page")]
    if not any(column.group for column in columns):
        return []
    runs = itertools.groupby(columns, key=lambda column: column.group)
    return [(name, len(list(run))) for name, run in runs]


def _data_link(table: Table) -> str:
    content = base64.b64encode(to_csv(table).encode()).decode()
    return f"data:text/csv;charset=utf-8;base64,{content}"


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )


def _resource(name: str) -> str:
    folder = importlib.resources.files("jaxprobe.rendering")
    return folder.joinpath("templates", name).read_text(encoding="utf-8")


def _hash(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


_FUNCTIONS: dict[str, object] = {  # what templates may call
    "kind": lambda block: type(block).__name__.lower(),
    "shown": lambda block: shown(block, "page"),
    "cell": _cell,
    "groups": _groups,
    "data_link": _data_link,
    "count": lambda table: f"{len(table.rows):,}",
    "TALL": TALL,
}
