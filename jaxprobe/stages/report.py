"""Results -> the tables of a work directory and its page."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from jaxprobe import rendering, results
from jaxprobe.experiments import EXPERIMENTS
from jaxprobe.experiments.config import Common
from jaxprobe.experiments.experiment import Experiment, Pages
from jaxprobe.experiments.probing.config import Config
from jaxprobe.experiments.probing.config import Report as ReportConfig
from jaxprobe.place import Place
from jaxprobe.runs.gathering import evidence, gather
from jaxprobe.workdir import Workdir

PAGE = "index.html"


def run(experiment: Experiment, config: Common, work: Workdir) -> str:
    """The report stage of a job.

    Args:
        experiment: Whose results.
        config: Its config, as it was asked.
        work: Where they lie; receives the tables and the page.

    Returns:
        The terminal's text, lines of at most 100 columns.

    Raises:
        TableError: There are no results, some are missing, or one is damaged.
        ValueError: No row of what the config's report section names.
    """
    return _run(experiment, config, work, dataclasses.asdict(config))


def report(config: ReportConfig, workdir: "str | os.PathLike | Place") -> str:
    """Writes `results.parquet`, `metrics.parquet`, `quiver.csv` and `report/` into a work directory.

    `quiver.csv` holds the paper protocol, or dedup where only that was run. `report/` holds the page
    and the numbers behind it as CSV files, which the page also carries inside.

    Args:
        config: What to report.
        workdir: A directory with the results of one job, or of jobs that differ in places, SAEs and
            methods alone.

    Returns:
        The terminal's table, lines of at most 100 columns.

    Raises:
        TableError: No results, a damaged one, or those of several jobs.
        ValueError: They hold no row of that model, site, dataset, regime or baseline.
    """
    return _run(EXPERIMENTS["probing"], Config(report=config), Workdir.parse(workdir), None)


def report_runs(
    config: ReportConfig,
    folders: "Sequence[str | os.PathLike | Place]",
    workdir: "str | os.PathLike | Place",
) -> str:
    """Reports several finished runs (models, layers, SAEs) on one page.

    Args:
        config: What to report of each.
        folders: Their work directories; the first one's answer stands first.
        workdir: Receives the page and its tables.

    Returns:
        As `report`.

    Raises:
        TableError: As `report`.
        ValueError: As `report`; or no folder, or one of them twice.
    """
    texts = [os.fspath(f) if isinstance(f, os.PathLike) else str(f) for f in folders]
    texts = [text.rstrip("/") if "://" in text else os.path.normpath(text) for text in texts]
    if not texts or len({*texts}) < len(texts):
        raise ValueError(
            f"`runs` must name different work directories, got {', '.join(texts) or 'none'}"
        )
    names = [Place.parse(text).name for text in texts]
    if len({*names}) < len(names):
        names = texts
    runs = [
        evidence(gather(Workdir.parse(text)), name) for text, name in zip(texts, names, strict=True)
    ]
    experiment = EXPERIMENTS["probing"]
    return write(experiment.report(Config(report=config), runs), Workdir.parse(workdir))


def _run(
    experiment: Experiment, config: Common, work: Workdir, asked: Mapping[str, Any] | None
) -> str:
    found = gather(work, asked)
    pages = experiment.report(config, [evidence(found)])
    results.write(work.results, found.rows)
    results.write_metrics(work.metrics, found.parts)
    return write(pages, work)


def write(pages: Pages, work: Workdir) -> str:
    """Writes a report's page and files; returns the terminal's text.

    Of the files that such a report can have, those that it does not have now are taken away.
    """
    for folder, made in ((work.root, pages.beside), (work.report, pages.inside)):
        for name, table in made.items():
            (folder / name).replace(rendering.to_csv(table).encode())
        for name in pages.names:
            if name not in made:
                (folder / name).delete()
    (work.report / PAGE).replace(rendering.to_html(pages.report).encode())
    logging.info("report written to %s", work.report / PAGE)
    return rendering.to_terminal(pages.report)
