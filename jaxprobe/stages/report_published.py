"""The paper's own result files, reported as if they were ours."""

import dataclasses
import datetime
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from jaxprobe import datasets, published, records, results, sealed
from jaxprobe.base import ResultRow
from jaxprobe.evidence import Record, Results
from jaxprobe.experiments import EXPERIMENTS
from jaxprobe.experiments.probing import leaks
from jaxprobe.experiments.probing.config import Config, Report
from jaxprobe.place import Place
from jaxprobe.stages import report
from jaxprobe.workdir import Workdir

SOLVER = "saga, stopped early, as published"


def report_published(
    config: Report,
    folder: pathlib.Path | str,
    model: str,
    workdir: "str | os.PathLike | Place",
    source: str = "",
) -> str:
    """Reports the paper's own result files as if they were ours.

    Args:
        config: What to report; its site is by default the one that has regimes other than standard.
        folder: The authors' repository, or a copy of its results.
        model: Whose results, as in the folders' names: `gemma-2-9b`.
        workdir: Receives `results.parquet`, `run.json` and what `report` writes.
        source: Where the datasets are, for their leak rates; "" leaves these out.

    Returns:
        As `report`.

    Raises:
        ValueError: An unknown model, or a file that lacks a column or holds no number where it should.
        FileNotFoundError: The folder holds no published results.
        TableError: The work directory holds other results.
    """
    start, work = time.monotonic(), Workdir.parse(workdir)
    read = published.read(folder, model)
    _check_own(work, read.rows)
    record = _record(read, str(folder), model, source)
    pages = EXPERIMENTS["probing"].report(
        Config(report=dataclasses.replace(config, model=model, site=config.site or read.site)),
        [Results(rows=read.rows, records=(record,))],
    )
    results.write(work.results, read.rows)
    text = report.write(pages, work)
    content: dict[str, Any] = dataclasses.asdict(record)
    content["times"] = {"report": round(time.monotonic() - start, 3)}
    work.run_file.replace(sealed.to_json(content))
    return text


def _record(read: published.Published, folder: str, model: str, source: str) -> Record:
    names = tuple(dict.fromkeys(row.dataset for row in read.rows))
    loaded = (datasets.load(name, source) for name in names)
    return Record(
        versions=records.versions(),
        device=records.device(),
        processor=records.processor(),
        commit=records.commit(),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=records.command(),
        seeds={"splits": published.SEED},
        solver=SOLVER,
        leaks=leaks.measure(loaded, published.SEED) if source else {},
        published=True,
        published_facts={"folder": folder, "model": model, **read.files},
        notes=tuple(read.notes),
    )


def _check_own(work: Workdir, rows: Sequence[ResultRow]) -> None:
    """Refuses to write published results over others."""
    if work.jobs.children():
        raise results.TableError(
            f"{work} holds the results of a run; name another --workdir for the published ones"
        )
    if not work.results.exists():
        return
    there = {row.fingerprint for row in results.read_rows(work.results)}
    other = sorted(there - {row.fingerprint for row in rows})
    if other:
        raise results.TableError(
            f"{work.results} holds other results (fingerprint {other[0]}) than these published files;"
            " name another --workdir, or delete that file"
        )
