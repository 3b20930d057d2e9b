"""The jobs of a config, which the report reads instead of datasets and SAEs.

A plan is written by the fit stage, one file per config. Jobs that differ only in sites, SAEs or methods share a
scope and are on one page.
"""

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from jaxprobe import records, sealed
from jaxprobe.identity import digest
from jaxprobe.place import Place
from jaxprobe.results import TableError
from jaxprobe.runs.shards import Shard
from jaxprobe.workdir import Workdir

_AGAIN = "run the fit stage again"
# What two jobs on one page may differ in.
_FREE = ("site", "sites", "saes", "train_sae", "fit", "report", "bos", "extract")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The objects of one config's jobs.

    Attributes:
        name: The config's name, see `name_of`.
        scope: What the config shares with others on one page, see `scope_of`.
        record: Name of the record of the run that completed it.
        made: When that was, UTC, ISO 8601.
        command: The command line.
        objects: Names of the result objects, in order.
        facts: Facts about the datasets for the experiment's report.
    """

    name: str
    scope: str
    record: str
    made: str
    command: str
    objects: tuple[str, ...]
    facts: Mapping[str, Any]


def name_of(config: Mapping[str, Any]) -> str:
    """A digest of a config, without what only the page depends on."""
    return digest({key: value for key, value in config.items() if key != "report"})[:16]


def scope_of(config: Mapping[str, Any]) -> str:
    """A digest of what two jobs must share to be on one page: all but sites, SAEs and methods."""
    return digest({key: value for key, value in config.items() if key not in _FREE})[:16]


def record_of(
    work: Workdir, config: Mapping[str, Any], shard: Shard | None, objects: Sequence[str]
) -> str | None:
    """Name of the record of the run that completed these objects; None where none has."""
    place = _place(work, config, shard)
    if not place.exists():
        return None
    held = sealed.read_json(place, _AGAIN)
    same = (held.get("scope"), held.get("objects")) == (scope_of(config), list(objects))
    return str(held["record"]) if same else None


def write(
    work: Workdir,
    config: Mapping[str, Any],
    shard: Shard | None,
    *,
    record: str,
    objects: Sequence[str],
    facts: Mapping[str, Any],
) -> None:
    """Writes a finished job's plan."""
    content = {
        "name": name_of(config),
        "scope": scope_of(config),
        "record": record,
        "objects": list(objects),
        "facts": facts,
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": records.command(),
    }
    _place(work, config, shard).replace(sealed.to_json(content))


def _place(work: Workdir, config: Mapping[str, Any], shard: Shard | None) -> Place:
    part = "" if shard is None else f"-{shard.index}-of-{shard.count}"
    return work.plans / f"{name_of(config)}{part}.json"


def read_all(work: Workdir) -> list[Plan]:
    """Every plan of a work directory, those of a job's shards as one; a job with shards missing is left out.

    Raises:
        FileError: A plan is not what was written.
    """
    parts: dict[str, dict[str, Plan]] = {}
    for file in work.plans.children():
        place = work.plans / file
        name, _, part = file.removesuffix(".json").partition("-")
        parts.setdefault(name, {})[part] = _read(place)
    found = []
    for name, by_part in parts.items():
        pieces = [by_part[""]] if "" in by_part else _all_shards(by_part)
        if pieces:
            found.append(_joined(name, pieces))
    return sorted(found, key=lambda plan: plan.made)


def _read(place: Place) -> Plan:
    """The plan of a job, or of one of its shards."""
    held = sealed.read_json(place, _AGAIN)
    texts = dict.fromkeys(("name", "scope", "record", "made", "command"), str)
    sealed.check_types(place, held, {**texts, "objects": list, "facts": dict}, _AGAIN)
    return Plan(
        **{name: held[name] for name in texts},
        objects=tuple(map(str, held["objects"])),
        facts=held["facts"],
    )


def _all_shards(by_part: Mapping[str, Plan]) -> list[Plan]:
    """The plans of all shards of one count; none where some are missing."""
    for part in sorted(by_part):
        count = int(part.rpartition("-")[2])
        if count > len(by_part):  # a file's name may claim any number of shards
            continue
        names = [f"{index}-of-{count}" for index in range(count)]
        if all(name in by_part for name in names):
            return [by_part[name] for name in names]
    return []


def _joined(name: str, pieces: Sequence[Plan]) -> Plan:
    facts: dict[str, Any] = {}
    for piece in pieces:
        for key, value in piece.facts.items():
            held = facts.get(key)
            both = isinstance(held, dict) and isinstance(value, dict)
            facts[key] = {**held, **value} if both else value
    return dataclasses.replace(
        pieces[0],
        name=name,
        made=max(piece.made for piece in pieces),
        objects=tuple(one for piece in pieces for one in piece.objects),
        facts=facts,
    )


def chosen(plans: Sequence[Plan], config: Mapping[str, Any] | None, work: Workdir) -> list[Plan]:
    """The plans of one page: the config's first, then those that share its scope.

    Args:
        plans: All plans of the work directory.
        config: The config of the page; None where the directory holds only one scope.
        work: The directory, for messages.

    Raises:
        TableError: The config has no results here, or there are several to choose from.
    """
    if config is None:
        scopes = {plan.scope for plan in plans}
        if len(scopes) != 1:
            what = "no results" if not scopes else f"the results of {len(scopes)} jobs"
            raise TableError(f"{work} holds {what}; run the fit stage, or name the job's config")
        return list(plans)
    first = [plan for plan in plans if plan.name == name_of(config)]
    if not first:
        there = f" ({len(plans)} other jobs have some)" if plans else ""
        raise TableError(
            f"there are no results of this config in {work}{there}; run the fit stage first"
        )
    scope = scope_of(config)
    return [*first, *(plan for plan in plans if plan.scope == scope and plan not in first)]
