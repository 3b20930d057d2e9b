"""One job as n independent ones: each takes every n-th dataset, and the tables are merged.

Shard i of n works in its own folder `shard-i-of-n` below the work directory: activations, latents,
`results.parquet` and `run.json`, so no two processes write to one file and shards may run on
machines that share nothing; copy their folders together before the report. Where the work directory
itself holds activations already (as after training an SAE) shards read those.
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from jaxprobe import sealed, table
from jaxprobe.stages import fit as fitting
from jaxprobe.store import replace_file

DONE = "shard.json"  # written when all of a shard's rows are there
EXAMPLE = "write i/n, e.g. 0/4 for the first of four and 3/4 for the last"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One of `count` parts of a job, from 0."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Reads `i/n`.

        Raises:
            ValueError: Any other text, or a number that is not below n.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
        if not found:
            raise ValueError(f"a shard is two numbers, got {text!r}; {EXAMPLE}")
        shard = cls(index=int(found[1]), count=int(found[2]))
        if shard.index >= shard.count:
            raise ValueError(f"a shard's number must be below their count, got {text!r}; {EXAMPLE}")
        return shard

    def __str__(self) -> str:
        """The text that `parse` reads."""
        return f"{self.index}/{self.count}"

    def folder(self, workdir: Path) -> Path:
        """Where the shard works."""
        return workdir / f"shard-{self.index}-of-{self.count}"

    def part(self, names: Sequence[str]) -> tuple[str, ...]:
        """The shard's datasets: every n-th, so that neighbours of one kind are spread.

        Raises:
            ValueError: There are fewer datasets than shards.
        """
        if self.count > len(names):
            raise ValueError(
                f"{len(names)} datasets cannot be split into {self.count} shards; use at most"
                f" {len(names)}"
            )
        return tuple(names[self.index :: self.count])


def finish(shard: Shard, workdir: Path, names: Sequence[str]) -> str:
    """Marks a shard as done; returns what to do next."""
    path = shard.folder(workdir) / fitting.FILE_NAME
    rows = len(table.read(path)) if path.exists() else 0
    content = {"shard": str(shard), "datasets": list(names), "rows": rows}
    replace_file(shard.folder(workdir) / DONE, sealed.to_json(content))
    return (
        f"Shard {shard} is done: {rows} rows in {path}.\n"
        f"When all {shard.count} are, run.py or report.py without --shard merges them."
    )


def found(workdir: Path) -> list[Shard]:
    """The shards that have begun in a work directory."""
    pattern = re.compile(r"shard-(\d+)-of-(\d+)")
    matches = [pattern.fullmatch(path.name) for path in workdir.glob("shard-*-of-*")]
    shards = [Shard(index=int(m[1]), count=int(m[2])) for m in matches if m]
    return sorted(shards, key=lambda shard: (shard.count, shard.index))


def merge(workdir: Path, names: Sequence[str]) -> int:
    """Writes the rows of all shards, and of what is there, into the job's `results.parquet`.

    Args:
        workdir: The job's work directory.
        names: Its datasets.

    Returns:
        The number of rows.

    Raises:
        ValueError: Shards that are missing or not done, each named, or shards of another job.
        TableError: Two of them disagree about a row.
    """
    shards = found(workdir)
    counts = sorted({shard.count for shard in shards})
    if len(counts) != 1:
        raise ValueError(
            f"{workdir} holds shards of {' and of '.join(map(str, counts))}; delete the folders"
            " of one kind"
        )
    everyone = [Shard(index=index, count=counts[0]) for index in range(counts[0])]
    missing = [shard for shard in everyone if not (shard.folder(workdir) / DONE).exists()]
    if missing:
        raise ValueError(
            f"{len(missing)} of {counts[0]} shards in {workdir} are missing or not done:"
            f" {', '.join(map(str, missing))}; run each with --shard={missing[0]} and so on, or copy"
            " its folder here"
        )
    paths = [workdir / fitting.FILE_NAME] if (workdir / fitting.FILE_NAME).exists() else []
    for shard in everyone:
        paths += _checked(shard, workdir, shard.part(names))
    merged = table.merge(paths)
    table.write(workdir / fitting.FILE_NAME, merged)
    logging.info("%d shards merged: %d rows", counts[0], len(merged))
    return len(merged)


def _checked(shard: Shard, workdir: Path, names: Sequence[str]) -> list[Path]:
    """The shard's table; none where its datasets were too small for any split."""
    path = shard.folder(workdir) / fitting.FILE_NAME
    again = (
        f"run the shard again with --shard={shard}, which takes seconds where its rows are there"
    )
    mark = sealed.read_json(shard.folder(workdir) / DONE, again)
    if tuple(mark["datasets"]) != tuple(names):
        odd = sorted({*mark["datasets"]} ^ {*names})
        raise ValueError(
            f"shard {shard} in {workdir} is of a job with other datasets ({', '.join(odd[:5])}); give"
            " the config that the shards were run with, or run it again"
        )
    rows = len(table.read(path)) if path.exists() else 0
    if rows < mark["rows"]:
        raise ValueError(
            f"shard {shard} in {workdir} had {mark['rows']} rows when it was done and has {rows};"
            f" copy its folder again, or run it again with --shard={shard}"
        )
    return [path] if path.exists() else []
