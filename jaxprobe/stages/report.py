"""results.parquet and run.json -> quiver.csv, the terminal's table and report/index.html."""

import csv
import dataclasses
import io
import json
import os
import pathlib
from collections.abc import Mapping, Sequence

from absl import logging

from jaxprobe import quiver, table
from jaxprobe.stages.reporting import findings, page, terminal
from jaxprobe.store.files import replace_file

QUIVER_COLUMNS = ("regime", "tie_rule", *quiver.Summary._fields)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What to report.

    Attributes:
        model: Which model's rows; "" for that of the first row.
        site: Which site's rows; "" for the first site of that model.
    """

    model: str = ""
    site: str = ""


def report(config: ReportConfig, workdir: str | os.PathLike) -> str:
    """Writes `quiver.csv`, `quiver_dedup.csv` and `report/index.html` into the work directory.

    `quiver.csv` holds the paper protocol, or dedup where only that was run.

    Args:
        config: What to report.
        workdir: A directory with `results.parquet` and, if the run recorded itself, `run.json`.

    Returns:
        The terminal's table, lines of at most 100 columns.

    Raises:
        table.TableError: No `results.parquet`, or a damaged one.
        ValueError: It holds no row of that model and site, or rows of two runs mixed, or `run.json`
            is not JSON.
        TypeError: `run.json` is not a JSON object.
    """
    root = pathlib.Path(workdir)
    found = findings.find(table.read_rows(root / "results.parquet"), config.model, config.site)
    run = _run_record(root / "run.json")
    solver = _solver(run)
    links = [("results.parquet", "../results.parquet")]
    for protocol in found.protocols:
        name = "quiver.csv" if protocol == found.protocols[0] else f"quiver_{protocol}.csv"
        replace_file(root / name, _quiver_csv(found, protocol).encode())
        links.append((f"{name} ({protocol} split)", f"../{name}"))
    index = root / "report" / "index.html"
    index.parent.mkdir(exist_ok=True)
    replace_file(index, page.render(found, run, solver, links).encode())
    logging.info("report written to %s", index)
    return terminal.render(found, solver)


def _run_record(path: pathlib.Path) -> dict[str, object]:
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} must be JSON, got {error}; delete it to report without"
        ) from error
    if not isinstance(record, dict):
        raise TypeError(f"{path} must be a JSON object, got a {type(record).__name__}")
    return record


def _solver(record: Mapping[str, object]) -> str:
    """The first value called `solver` in the run's record, outermost first."""
    level: Sequence[object] = [record]
    while level:
        mappings = [value for value in level if isinstance(value, Mapping)]
        for mapping in mappings:
            if "solver" in mapping:
                return str(mapping["solver"])
        level = [value for mapping in mappings for value in mapping.values()]
    return "not recorded"


def _quiver_csv(found: findings.Findings, protocol: str) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(QUIVER_COLUMNS)
    for part in found.parts:
        if part.protocol == protocol:
            for rule, comparison in part.comparisons.items():
                writer.writerow((part.regime, rule, *quiver.summarise(comparison)))
    return text.getvalue()
