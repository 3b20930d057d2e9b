"""results.parquet and run.json -> quiver.csv, the terminal's table and report/index.html."""

import dataclasses
import importlib.metadata
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from jaxprobe import base, datasets, published, rendering, sealed, table
from jaxprobe.experiments.probing import leaks
from jaxprobe.experiments.probing import report as probing_report
from jaxprobe.experiments.probing.report import files
from jaxprobe.stages import finished, run_file
from jaxprobe.stages.finished import fingerprints as fingerprints
from jaxprobe.stages.finished import run_record as run_record
from jaxprobe.store.files import replace_file

RESULTS = run_file.RESULTS
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
    root = pathlib.Path(workdir)
    return _write(config, root, [finished.read(root)])


def report_runs(
    config: ReportConfig, folders: Sequence[str | os.PathLike], workdir: str | os.PathLike
) -> str:
    """Reports several finished runs (models, layers, SAEs) on one page.

    Args:
        config: What to report of each.
        folders: Their work directories; the first one's answer stands first.
        workdir: Receives what `report` writes.

    Returns:
        As `report`.

    Raises:
        table.TableError: As `report`.
        ValueError: As `report`; or no folder, or one of them twice.
    """
    roots = [pathlib.Path(folder) for folder in folders]
    if not roots or len({root.resolve() for root in roots}) < len(roots):
        raise ValueError(
            f"`runs` must name different work directories, got {', '.join(map(str, roots)) or 'none'}"
        )
    names = [root.resolve().name for root in roots]
    if len({*names}) < len(names):
        names = [str(root) for root in roots]
    runs = [finished.read(root, name) for root, name in zip(roots, names, strict=True)]
    out = pathlib.Path(workdir)
    out.mkdir(parents=True, exist_ok=True)
    return _write(config, out, runs)


def _write(config: ReportConfig, root: pathlib.Path, runs: Sequence[probing_report.Results]) -> str:
    made = probing_report.make(runs, probing_report.Selection(**dataclasses.asdict(config)))
    folder = root / "report"
    folder.mkdir(exist_ok=True)
    _replace_all(root, made.beside, files.BESIDE)
    _replace_all(folder, made.inside, files.INSIDE)
    replace_file(folder / "index.html", rendering.to_html(made.report).encode())
    logging.info("report written to %s", folder / "index.html")
    return rendering.to_terminal(made.report)


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
    return _write(config, root, [finished.results_of(read.rows, run)])


def _replace_all(
    folder: pathlib.Path, made: Mapping[str, rendering.Table], known: Sequence[str]
) -> None:
    """Writes the tables; what an earlier report left under the other known names goes."""
    for name in known:
        if name in made:
            replace_file(folder / name, rendering.to_csv(made[name]).encode())
        else:
            (folder / name).unlink(missing_ok=True)


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
