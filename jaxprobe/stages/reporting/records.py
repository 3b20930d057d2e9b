"""The page's last sections: leaks, flagged fits, what was run, how to read it."""

import math
from collections.abc import Mapping, Sequence

from jaxprobe import base
from jaxprobe.stages.reporting import findings, terminal, words
from jaxprobe.stages.reporting import leaks as leak_report
from jaxprobe.stages.reporting.html_table import NOTHING, Cell, escape, number, table, text
from jaxprobe.stages.reporting.regime_section import search

MAX_FLAGGED = 100
# run.json's keys by the titles of their tables; any other key is shown as it is.
TITLES = {
    "sae_quality": "Quality of the SAE",
    "times": "Wall time per stage",
    "versions": "Versions",
    "seeds": "Seeds",
    "published": "Published results",
    "published_files": "Published files, SHA-256 (its start; run.json has all of it)",
    "fingerprints": "Fingerprints",
    "config": "Configuration",
}
PLACED = (*TITLES, "device", "leaks", "solver", "results", "published_notes")


def leak_section(found: findings.Findings, run: Mapping[str, object]) -> str:
    """Leak rates and conflicting labels per dataset, where the run measured them."""
    leaks = run.get("leaks")
    if not isinstance(leaks, Mapping) or not leaks:
        if not found.published:
            return ""
        return (
            "<p>Leak rates need the datasets: run the same command with"
            " <code>--source=pypi://sae-probes</code> to have them here.</p>"
        )
    kept = {name: leak for name, leak in leaks.items() if name in found.datasets} or leaks
    said = " ".join(leak_report.sentences(kept))
    return (
        f"<p>{escape(said)} The dedup split keeps all rows of one prompt on one side and drops prompts"
        f" under both labels.</p>{search('leak-table')}{leak_table(kept)}"
    )


def leak_table(leaks: Mapping[str, object]) -> str:
    """What `run.json` says of leaks, one row per dataset, one column per measure."""
    records = {
        name: leak if isinstance(leak, Mapping) else {leak_report.RATE: leak}
        for name, leak in leaks.items()
    }
    measures = list(dict.fromkeys(str(key) for record in records.values() for key in record))
    heads = [("Dataset", ""), *((measure.replace("_", " "), "num") for measure in measures)]
    rows = [
        [text(name), *(_measure(measure, record.get(measure)) for measure in measures)]
        for name, record in records.items()
    ]
    caption = "Prompts that training and test rows share"
    return table(caption, heads, rows, table_id="leak-table", sortable=True)


def _measure(name: str, value: object) -> Cell:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return NOTHING if value is None else text(value)
    if isinstance(value, float) and any(word in name for word in ("rate", "fraction")):
        return Cell(f"{100 * value:.1f} %", repr(float(value)), "num")
    return number(value, 0 if isinstance(value, int) else 3)


def flagged_section(found: findings.Findings) -> str:
    """Fits that did not converge, counted and named."""
    sentence = f"<p>{escape(terminal.flagged_sentence(found))}</p>"
    if not found.flagged or found.published:
        return sentence
    more = len(found.flagged) - MAX_FLAGGED
    tail = f'<p class="small">{more:,} more are in results.parquet.</p>' if more > 0 else ""
    return f"{sentence}{_flagged_table(found.flagged)}{tail}"


def _flagged_table(rows: Sequence[base.ResultRow]) -> str:
    """The first fits that did not converge."""
    heads = [("Dataset", ""), ("Regime", ""), ("Level", "num"), ("Split", ""), ("Features", "")]
    heads += [("Method", ""), ("k", "num"), ("C", "num"), ("Test AUROC", "num")]
    cells = [
        [
            *(text(row.dataset), text(words.regime_name(row.regime)), _short_number(row.level)),
            *(text(name)._replace(tone="key") for name in (row.protocol, row.features, row.method)),
            *(number(row.num_latents, 0), _short_number(row.best_c), number(row.test_auroc)),
        ]
        for row in rows[:MAX_FLAGGED]
    ]
    return table("Fits that did not converge", heads, cells)


def _short_number(x: float) -> Cell:
    return NOTHING if math.isnan(x) else Cell(f"{x:.4g}", repr(float(x)), "num")


def run_section(found: findings.Findings, run: Mapping[str, object], solver: str) -> str:
    """Config, model, SAE, versions, device, times."""
    device = run.get("device")
    summary = {
        "model": found.model,
        "site": found.site,
        "SAE": words.some(found.saes, 8),
        "solver": solver,
        "device": device if device is not None else "not recorded",
        "datasets": len(found.datasets),
        "probes": f"{found.num_rows:,}",
        "not converged": "not recorded" if found.published else f"{len(found.flagged):,}",
    }
    shown = [key_value_table("Summary", summary)]
    shown += [_record(title, key, run[key]) for key, title in TITLES.items() if run.get(key)]
    other = {key: value for key, value in run.items() if key not in PLACED}
    if other:
        shown.append(_record("Other records", "other", other))
    return f'<div class="records">{"".join(shown)}</div>'


def _record(title: str, key: str, value: object) -> str:
    mapping = value if isinstance(value, Mapping) else {key: value}
    if key == "times":
        mapping = {
            stage: f"{x:,.1f} s" if isinstance(x, int | float) else x
            for stage, x in mapping.items()
        }
    if key == "published_files":
        mapping = {name: str(digest)[:16] for name, digest in mapping.items()}
    return key_value_table(title, mapping)


def key_value_table(caption: str, mapping: Mapping[str, object]) -> str:
    """A nested mapping as two columns, inner keys joined with dots."""
    rows = [[text(key), text(value)] for key, value in flatten(mapping)]
    return table(caption, [("Name", ""), ("Value", "")], rows)


def flatten(mapping: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """Leaves of a nested mapping with dotted names; lists of plain values stay on one line."""
    leaves = []
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            leaves += flatten(value, f"{name}.")
        elif isinstance(value, list | tuple):
            leaves.append((name, ", ".join(map(str, value))))
        else:
            leaves.append((name, f"{value:.4g}" if isinstance(value, float) else str(value)))
    return leaves


def method_section(found: findings.Findings, solver: str) -> str:
    """How to read the page."""
    arrows = list(dict.fromkeys(name for part in found.parts for name in part.choice.saes))
    baselines = list(dict.fromkeys(name for part in found.parts for name in part.choice.baselines))
    extended = list(dict.fromkeys(name for part in found.parts for name in part.choice.extended))
    points = [
        (
            "AUROC is the chance that a positive example outscores a negative one: 0.5 is guessing, 1 is"
            " perfect. Every choice (C, k, method) is made by valid AUROC; test rows choose nothing."
        ),
        (
            "Quiver of arrows: on each dataset the probe with the best valid AUROC is shot and its test"
            f" AUROC counts. The baselines alone ({words.some(baselines, 8)}) are compared with the"
            f" baselines plus the SAE arrows ({words.some(arrows, 6)})."
        ),
        "Valid AUROC is often exactly 1, so ties decide much: both tie rules are shown.",
        (
            "Intervals are paired bootstraps over datasets (10,000 resamples, the levels of a dataset kept"
            " together, widened for few datasets as Student's t is); p-values are sign-flip tests with"
            " Holm's correction over the regimes of a split. A difference is claimed only where the"
            " interval leaves out zero and the test agrees."
        ),
        (
            "The paper split follows the published protocol row for row. The dedup split keeps all copies"
            " of a prompt on one side and drops prompts that stand under both labels."
        ),
        (
            "Controls: probes on shuffled labels should score about 0.5; a random SAE of the same shape"
            " and L0, and random latents, show what the trained SAE adds."
        ),
        f"Solver: {solver}.",
    ]
    if extended:
        points.insert(
            2,
            "Extended baselines are further simple probes that the paper's set lacks"
            f" ({words.some(extended, 8)}): each is shown as an arrow of its own, and once all together.",
        )
    return f"<ul>{''.join(f'<li>{escape(point)}</li>' for point in points)}</ul>"
