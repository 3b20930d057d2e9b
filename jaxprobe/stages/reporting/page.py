"""Findings and the run's record -> one self-contained HTML page.

The page needs no network and says the same without JavaScript, which only adds sorting, search and
tooltips. Its style and script are the files beside this module, put inline; a content security
policy admits these two by hash and nothing else.
"""

import base64
import dataclasses
import hashlib
import importlib.resources
from collections.abc import Mapping, Sequence

from jaxprobe.stages.reporting import findings, records, regime_section, verdict, words
from jaxprobe.stages.reporting import leaks as leak_report
from jaxprobe.stages.reporting.html_table import escape


@dataclasses.dataclass(frozen=True, kw_only=True)
class Downloads:
    """Files that the page offers.

    Attributes:
        beside: Names of files one folder above the page.
        inside: Text of CSV files by name, which the page carries with it.
    """

    beside: Sequence[str]
    inside: Mapping[str, str]


def render(
    found: findings.Findings, run: Mapping[str, object], solver: str, downloads: Downloads
) -> str:
    """The whole page.

    Args:
        found: What the rows say.
        run: The content of `run.json`, {} where there is none.
        solver: How the probes were solved.
        downloads: The files it offers.
    """
    style, script = _resource("style.css"), _resource("script.js")
    rates = leak_rates(run)
    sections = [
        ("verdict", "Verdict", verdict.section(found)),
        *(
            (regime, words.regime_name(regime), regime_section.section(found, regime, rates))
            for regime in found.regimes
        ),
        ("leaks", "Leaks", records.leak_section(found, run)),
        ("flagged", "Flagged fits", records.flagged_section(found)),
        ("run", "What was run", records.run_section(found, run, solver)),
        ("method", "How to read this", records.method_section(found, solver)),
        ("downloads", "Downloads", _downloads(downloads)),
    ]
    sections = [section for section in sections if section[2]]
    nav = "".join(f'<li><a href="#{name}">{escape(title)}</a></li>' for name, title, _ in sections)
    body = "".join(
        f'<section id="{name}" aria-labelledby="{name}-head"><h2 id="{name}-head">{escape(title)}</h2>'
        f"{content}</section>"
        for name, title, content in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_policy(style, script))}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{escape(f'jaxprobe: {found.model} at {found.site}')}</title>"
        f"<style>{style}</style></head><body>"
        '<a class="skip" href="#verdict">Skip to the verdict</a>'
        f'{_header(found)}<nav aria-label="Sections"><ol>{nav}</ol></nav><main>{body}</main>'
        f"<footer><p>Made by jaxprobe from {found.num_rows:,} evaluated probes.</p></footer>"
        f"<script>{script}</script></body></html>\n"
    )


def leak_rates(run: Mapping[str, object]) -> dict[str, float]:
    """Leak rate by dataset, where `run.json` has one."""
    leaks = run.get("leaks")
    records = leaks.items() if isinstance(leaks, Mapping) else ()
    found = {
        str(name): record.get(leak_report.RATE)
        for name, record in records
        if isinstance(record, Mapping)
    }
    return {name: float(rate) for name, rate in found.items() if isinstance(rate, int | float)}


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )


def _header(found: findings.Findings) -> str:
    facts = {
        "Model": found.model,
        "Site": found.site,
        "SAE" if len(found.saes) < 2 else "SAEs": words.some(found.saes, 3),
        "Datasets": str(len(found.datasets)),
        "Probes": f"{found.num_rows:,}",
    }
    if found.published:
        facts["Source"] = "the paper's published result files"
    shown = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in facts.items()
    )
    return (
        '<header><p class="kicker">jaxprobe report</p>'
        "<h1>Does a sparse autoencoder help to detect concepts?</h1>"
        '<p class="lede">Each dataset is a concept. Probes that read a model\'s activations are compared'
        " with probes that read a few latents of a sparse autoencoder (SAE), on the same rows.</p>"
        f'<dl class="facts">{shown}</dl></header>'
    )


def _downloads(downloads: Downloads) -> str:
    beside = "".join(
        f'<li><a href="../{escape(name)}" download>{escape(name)}</a></li>'
        for name in downloads.beside
    )
    inside = "".join(
        f'<li><a href="{_data_link(content)}" download="{escape(name)}">{escape(name)}</a>'
        f" ({content.count(chr(10)) - 1:,} rows)</li>"
        for name, content in downloads.inside.items()
    )
    return (
        f"<h3>Inside this page</h3><p>These travel with it.</p><ul>{inside}</ul>"
        f"<h3>Beside this page</h3><p>These need the work directory around it.</p><ul>{beside}</ul>"
    )


def _data_link(content: str) -> str:
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(content.encode()).decode()}"


def _resource(name: str) -> str:
    folder = importlib.resources.files("jaxprobe.stages.reporting")
    return folder.joinpath(name).read_text(encoding="utf-8")


def _hash(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
