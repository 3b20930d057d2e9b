"""results.parquet and run.json -> quiver.csv, the terminal's table and report/index.html."""

import collections
import dataclasses
import importlib.metadata
import os
import pathlib
import time
from collections.abc import Iterable, Mapping, Sequence

from absl import logging

from jaxprobe import base, published, results, sealed
from jaxprobe import results as table
from jaxprobe.experiments.config import Common
from jaxprobe.place import Place
from jaxprobe.stages.gathering import gather
from jaxprobe.stages.reporting import csv_files, findings, leaks, page, terminal
from jaxprobe.store.files import replace_file
from jaxprobe.workdir import Workdir

RESULTS = "results"
PUBLISHED_SOLVER = "saga, stopped early, as published"


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
    return _of(config, Workdir.parse(workdir), None)


def run(experiment, job: Common, work: Workdir) -> str:
    """The report of a job's results and of those that are comparable with them."""
    return _of(ReportConfig(**vars(job.report)), work, dataclasses.asdict(job))


def _of(config, work: Workdir, job) -> str:
    found = gather(work, job)
    rows = found.rows
    results.write(work.results, rows)
    results.write_metrics(work.metrics, found.parts)
    first = found.records[found.record_of[rows[0].fingerprint]]
    return _write(
        config, pathlib.Path(str(work)), rows, {**first, **found.facts, "made": found.made}
    )


def _write(
    config: ReportConfig,
    root: pathlib.Path,
    rows: Sequence[base.ResultRow],
    run: Mapping[str, object],
) -> str:
    found = findings.find(rows, findings.Selection(**dataclasses.asdict(config)))
    if note := _dedup_note(run, found.protocols):
        found = dataclasses.replace(found, notes=(note, *found.notes))
    said = run.get("published_notes")
    if isinstance(said, list):
        found = dataclasses.replace(found, notes=(*map(str, said), *found.notes))
    solver = _solver(run)
    folder = root / "report"
    folder.mkdir(exist_ok=True)
    files, inside = csv_files.beside(found), csv_files.inside(found)
    _replace_all(root, files, csv_files.BESIDE)
    _replace_all(folder, inside, csv_files.INSIDE)
    downloads = page.Downloads(beside=("results.parquet", *files), inside=files | inside)
    replace_file(folder / "index.html", page.render(found, run, solver, downloads).encode())
    logging.info("report written to %s", folder / "index.html")
    return terminal.render(found, solver)


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
    table.write(Place.parse(path), read.rows)
    names = tuple(dict.fromkeys(row.dataset for row in read.rows))
    run: dict[str, object] = {
        "published": {"folder": str(folder), "model": model},
        "published_files": dict(read.files),
        "published_notes": list(read.notes),
        "versions": {name: _version(name) for name in ("jaxprobe", "numpy", "scipy", "pyarrow")},
        "solver": PUBLISHED_SOLVER,
        "seeds": {"splits": published.SEED},
        "leaks": leaks.measure(names, source, published.SEED) if source else {},
        "times": {"read": round(time.monotonic() - start, 3)},
        RESULTS: fingerprints(read.rows),
    }
    replace_file(root / "run.json", sealed.to_json(run))
    site = config.site or read.site
    return _write(dataclasses.replace(config, model=model, site=site), root, read.rows, run)


def _dedup_note(run: Mapping[str, object], protocols: Sequence[str]) -> str:
    """What the dedup protocol took for one prompt; empty where nothing is known."""
    config = run.get("config")
    encode = config.get("encode") if isinstance(config, Mapping) else None
    by = encode.get("dedup_by") if isinstance(encode, Mapping) else None
    if "dedup" not in protocols or by is None:
        return ""
    if by == "exact":
        return "Dedup: prompts are one where every character is the same."
    return (
        "Dedup: prompts are one where they are the same after NFC and without blanks at their ends."
    )


def _replace_all(folder: pathlib.Path, files: Mapping[str, str], known: Sequence[str]) -> None:
    """Writes the files; what an earlier report left under the other known names goes."""
    for name in known:
        if name in files:
            replace_file(folder / name, files[name].encode())
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
    there = {row.fingerprint for row in table.read_rows(Place.parse(path))}
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
