"""The results for one page, from the objects of a work directory's jobs."""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from jaxprobe import records, results
from jaxprobe.base import ResultRow
from jaxprobe.evidence import ChosenLatent, Record, Results
from jaxprobe.results import Scored
from jaxprobe.runs import plans
from jaxprobe.runs.run_file import RunFile
from jaxprobe.workdir import Workdir


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gathered:
    """Results and what made them.

    Attributes:
        parts: The jobs' results; no row of the same probe twice.
        records: Per record's name, the record of the run that made results.
        record_of: Per fingerprint of rows, the name of the record that made them.
        facts: The experiment's facts about the datasets.
        made: When the last of the runs was done, UTC, ISO 8601.
        command: Command line of the first.
        times: Seconds that each stage has worked in the directory, over all starts.
    """

    parts: Sequence[Scored]
    records: Mapping[str, Mapping[str, Any]]
    record_of: Mapping[str, str]
    facts: Mapping[str, Any]
    made: str
    command: str
    times: Mapping[str, float]

    @property
    def rows(self) -> list[ResultRow]:
        """All rows, those of the requested config first."""
        return [row for part in self.parts for row in part.rows]


def gather(work: Workdir, config: Mapping[str, Any] | None = None) -> Gathered:
    """Reads the results of a config's jobs, and of jobs that differ from it in sites, SAEs or methods.

    Args:
        work: The work directory.
        config: The job's config; None where the directory holds only comparable jobs.

    Raises:
        TableError: There are no results, some are missing, or one is damaged.
    """
    page = plans.chosen(plans.read_all(work), config, work)
    seen: set[tuple] = set()
    # Jobs that differ in sites, SAEs or methods share what is the same in both: read once.
    shared = dict.fromkeys(name for plan in page for name in plan.objects)
    parts = [part for one in _objects(shared, work) if (part := _fresh(one, seen)).rows]
    facts: dict[str, Any] = {}
    for plan in page:
        for key, value in plan.facts.items():
            facts.setdefault(key, value)
    made_by = {row.fingerprint: str(p.about.get("record", "")) for p in parts for row in p.rows}
    names = dict.fromkeys(made_by.values())
    return Gathered(
        parts=parts,
        records={name: records.read(work, name) for name in names},
        record_of=made_by,
        facts=facts,
        made=max(plan.made for plan in page),
        command=page[0].command,
        times=RunFile(work).times(),
    )


def _objects(names: Collection[str], work: Workdir) -> list[Scored]:
    there = {*work.jobs.children()}
    missing = [name for name in names if name not in there]
    if missing:
        raise results.TableError(
            f"{len(missing)} of {len(names)} jobs have no results in {work.jobs}, the first is"
            f" {missing[0]}; run the fit stage again, which makes them"
        )
    return [results.read_job(work.jobs / name) for name in names]


def _fresh(part: Scored, seen: set[tuple]) -> Scored:
    """The part without probes that an earlier one has, made with other settings or not."""
    keys = [dataclasses.replace(row, fingerprint="").key() for row in part.rows]
    kept = [at for at, key in enumerate(keys) if key not in seen]
    seen.update(keys)
    return Scored(
        rows=[part.rows[at] for at in kept],
        metrics={name: [values[at] for at in kept] for name, values in part.metrics.items()},
        # The chosen latents come from the job whose rows are on the page.
        about=part.about if len(kept) == len(keys) else {"record": part.about.get("record", "")},
    )


def evidence(found: Gathered, name: str = "") -> Results:
    """Gathered results in the form that reports are made from.

    Args:
        found: What was gathered.
        name: The run's name among others.
    """
    rows = found.rows
    metrics = dict.fromkeys(metric for part in found.parts for metric in part.metrics)
    return Results(
        rows=rows,
        records=[_record(found, key, rows) for key in found.records],
        latents=[_chosen(entry) for part in found.parts for entry in part.about.get("chosen", ())],
        metrics={
            metric: [
                value
                for part in found.parts
                for value in part.metrics.get(metric, [math.nan] * len(part.rows))
            ]
            for metric in metrics
        },
        name=name,
    )


def _chosen(entry: Mapping[str, Any]) -> ChosenLatent:
    """A chosen latent as a job's object holds it."""
    return ChosenLatent(
        dataset=str(entry["dataset"]),
        sae=str(entry["sae"]),
        latent=int(entry["latent"]),
        weight=float(entry["weight"]),
        texts=tuple(map(str, entry["texts"])),
        site=str(entry.get("site", "")),
    )


def _record(found: Gathered, key: str, rows: Sequence[ResultRow]) -> Record:
    """The record of the run that made some of the rows."""
    known = found.records[key]
    config = known["config"]
    made = [row for row in rows if found.record_of[row.fingerprint] == key]
    return Record(
        model=made[0].model,
        sites=tuple(dict.fromkeys(row.site for row in made)),
        config=config,
        versions=known["versions"],
        device=known["device"],
        processor=known["processor"],
        commit=known["commit"],
        date=found.made,
        command=found.command,
        times=found.times,
        seeds=known["seeds"],
        solver=str(config.get("fit", {}).get("solver", "")),
        sae_quality=known["sae_quality"],
        leaks=found.facts.get("leaks", {}),
        fingerprints=known["fingerprints"],
        dedup_by=str(config.get("encode", {}).get("dedup_by", "")),
    )
