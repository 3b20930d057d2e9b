"""A finished run's work directory -> what a report is made of."""

import collections
import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxprobe import base, table
from jaxprobe.experiments.probing import report as probing_report
from jaxprobe.stages import run_file

# Keys of run.json that are fields of a report's record.
_RECORDED = tuple(
    field.name
    for field in dataclasses.fields(probing_report.Record)
    if field.name not in ("config", "published", "published_facts", "notes", "dedup_by", "other")
)


def read(root: pathlib.Path, name: str = "") -> probing_report.Results:
    """The results of a work directory, with its own record.

    Args:
        root: The directory.
        name: What the run is called beside others.

    Raises:
        table.TableError: No `results.parquet`, a damaged one, or one of another run than `run.json`.
        ValueError: `run.json` is not a run's record.
    """
    path = root / "results.parquet"
    rows, run = table.read_rows(path), run_record(root / "run.json")
    _check_same_run(path, rows, run)
    return results_of(rows, run, name)


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
    known.pop(run_file.RESULTS, None)
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
    recorded = run.get(run_file.RESULTS)
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


def run_record(path: pathlib.Path) -> dict[str, Any]:
    """The record of a run; empty where there is none.

    Raises:
        ValueError: Something else lies there; the sentence names the file and says what to do.
    """
    try:
        return run_file.read(path)
    except FileNotFoundError:
        return {}
