"""results.parquet and run.json -> quiver.csv, the terminal's table and report/index.html."""

import collections
import dataclasses
import importlib.metadata
import os
import pathlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import logging

from jaxprobe import base, datasets, published, rendering, sealed, table
from jaxprobe.experiments.probing import leaks
from jaxprobe.experiments.probing import report as probing_report
from jaxprobe.experiments.probing.report import files
from jaxprobe.stages import run_file
from jaxprobe.store.files import replace_file

RESULTS = run_file.RESULTS
PUBLISHED_SOLVER = "saga, stopped early, as published"
# Keys of run.json that are fields of a report's record.
_RECORDED = tuple(
    field.name
    for field in dataclasses.fields(probing_report.Record)
    if field.name not in ("config", "published", "published_facts", "notes", "dedup_by", "other")
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What to report.

    Attributes:
        model: Which model's rows; "" for that of the first row.
        site: Which site's rows; "" for the first site of that model.
        datasets: Which datasets; all where empty.
        regimes: Which regimes; all where empty.
        baselines: The quiver's baselines, the first wins ties; where empty those of the paper's five
            that were run.
    """

    model: str = ""
    site: str = ""
    datasets: tuple[str, ...] = ()
    regimes: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ()


def report(config: ReportConfig, workdir: str | os.PathLike) -> str:
    """Writes `quiver.csv`, `quiver_dedup.csv` and `report/` into the work directory.

    `quiver.csv` holds the paper protocol, or dedup where only that was run. `report/` holds the page
    and the numbers behind it as CSV files, which the page also carries inside.

    Args:
        config: What to report.
        workdir: A directory with `results.parquet` and, if the run recorded itself, `run.json`.

    Returns:
        The terminal's table, lines of at most 100 columns.

    Raises:
        table.TableError: No `results.parquet`, a damaged one, or one of another run than `run.json`.
        ValueError: It holds no row of that model, site, dataset, regime or baseline, or rows of two
            runs mixed, or `run.json` is not a run's record.
    """
    root = pathlib.Path(workdir)
    path = root / "results.parquet"
    rows, run = table.read_rows(path), run_record(root / "run.json")
    _check_same_run(path, rows, run)
    return _write(config, root, results_of(rows, run))


def _write(config: ReportConfig, root: pathlib.Path, results: probing_report.Results) -> str:
    made = probing_report.make(results, probing_report.Selection(**dataclasses.asdict(config)))
    folder = root / "report"
    folder.mkdir(exist_ok=True)
    _replace_all(root, made.beside, files.BESIDE)
    _replace_all(folder, made.inside, files.INSIDE)
    replace_file(folder / "index.html", rendering.to_html(made.report).encode())
    logging.info("report written to %s", folder / "index.html")
    return rendering.to_terminal(made.report)


def results_of(
    rows: Sequence[base.ResultRow], run: Mapping[str, Any], name: str = ""
) -> probing_report.Results:
    """Rows and the content of `run.json` as what a report is made of.

    Args:
        rows: Result rows.
        run: The record of the run that made them; {} where there is none.
        name: What the run is called beside others.
    """
    if not run:
        return probing_report.Results(rows=rows, name=name)
    known = dict(run)
    known.pop(RESULTS, None)
    config = known.pop("config", {})
    published_facts = known.pop("published", {})
    encode = config.get("encode")
    record = probing_report.Record(
        config=config,
        published=bool(published_facts),
        published_facts={**published_facts, **known.pop("published_files", {})},
        notes=tuple(map(str, known.pop("published_notes", ()))),
        dedup_by=str(encode.get("dedup_by", "")) if isinstance(encode, Mapping) else "",
        **{field: known.pop(field) for field in _RECORDED if field in known},
        other=known,
    )
    return probing_report.Results(rows=rows, records=(record,), name=name)


def report_published(
    config: ReportConfig,
    folder: pathlib.Path | str,
    model: str,
    workdir: str | os.PathLike,
    source: str = "",
) -> str:
    """Reports the paper's own result files as if they were ours.

    Args:
        config: What to report; its site is by default the one of the regimes beyond standard.
        folder: The authors' repository, or a copy of its results.
        model: Whose results, as in the folders' names: `gemma-2-9b`.
        workdir: Receives `results.parquet`, `run.json` and what `report` writes.
        source: Where the datasets are, for their leak rates; "" leaves these out.

    Returns:
        As `report`.

    Raises:
        ValueError: An unknown model, or a file that lacks a column or holds no number where it should.
        FileNotFoundError: The folder holds no published results.
        table.TableError: The work directory holds other results.
    """
    start = time.monotonic()
    read = published.read(folder, model)
    root = pathlib.Path(workdir)
    root.mkdir(parents=True, exist_ok=True)
    path = root / "results.parquet"
    _check_own(path, read.rows)
    table.write(path, table.of_rows(read.rows))
    names = tuple(dict.fromkeys(row.dataset for row in read.rows))
    loaded = (datasets.load(name, source) for name in names)
    run: dict[str, Any] = {
        "published": {"folder": str(folder), "model": model},
        "published_files": dict(read.files),
        "published_notes": list(read.notes),
        "versions": {name: _version(name) for name in ("jaxprobe", "numpy", "scipy", "pyarrow")},
        "solver": PUBLISHED_SOLVER,
        "seeds": {"splits": published.SEED},
        "leaks": leaks.measure(loaded, published.SEED) if source else {},
        "times": {"read": round(time.monotonic() - start, 3)},
        RESULTS: fingerprints(read.rows),
    }
    replace_file(root / "run.json", sealed.to_json(run))
    site = config.site or read.site
    config = dataclasses.replace(config, model=model, site=site)
    return _write(config, root, results_of(read.rows, run))


def _replace_all(
    folder: pathlib.Path, made: Mapping[str, rendering.Table], known: Sequence[str]
) -> None:
    """Writes the tables; what an earlier report left under the other known names goes."""
    for name in known:
        if name in made:
            replace_file(folder / name, rendering.to_csv(made[name]).encode())
        else:
            (folder / name).unlink(missing_ok=True)


def fingerprints(rows: Iterable[base.ResultRow]) -> dict[str, dict[str, list[str]]]:
    """The fingerprints of a table's rows, by dataset and features."""
    found: dict[str, dict[str, set[str]]] = collections.defaultdict(dict)
    for row in rows:
        found[row.dataset].setdefault(row.features, set()).add(row.fingerprint)
    return {
        dataset: {features: sorted(marks) for features, marks in by_features.items()}
        for dataset, by_features in found.items()
    }


def _check_same_run(
    path: pathlib.Path, rows: Sequence[base.ResultRow], run: Mapping[str, object]
) -> None:
    """Refuses a table whose rows are not those that `run.json` tells of."""
    recorded = run.get(RESULTS)
    if not isinstance(recorded, Mapping):
        return
    for dataset, by_features in fingerprints(rows).items():
        for features, marks in by_features.items():
            known = dict(recorded.get(dataset) or {}).get(features) or marks
            strange = [mark for mark in marks if mark not in known]
            if strange:
                raise table.TableError(
                    f"{path} holds results on {dataset!r} ({features}) with fingerprint"
                    f" {strange[0]}, run.json beside it tells of {', '.join(known)}: the file is of"
                    " another run; report it from its own work directory, or delete it and run the"
                    " fit stage again"
                )


def _check_own(path: pathlib.Path, rows: Sequence[base.ResultRow]) -> None:
    """Refuses to write published results over others."""
    if not path.exists():
        return
    there = {row.fingerprint for row in table.read_rows(path)}
    other = sorted(there - {row.fingerprint for row in rows})
    if other:
        raise table.TableError(
            f"{path} holds other results (fingerprint {other[0]}) than these published files; name"
            " another --workdir, or delete that file"
        )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def run_record(path: pathlib.Path) -> dict[str, Any]:
    """The record of a run; empty where there is none.

    Raises:
        ValueError: Something else lies there; the sentence names the file and says what to do.
    """
    try:
        return run_file.read(path)
    except FileNotFoundError:
        return {}
