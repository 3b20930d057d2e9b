"""The parent of the fuzzer's processes: assigns files, notices hangs and deaths, sums up."""

import collections
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fuzzing import state, worker

HANG_SECONDS = 30.0  # of wall time, long because machines are shared; the judge counts CPU time
_ADDRESS_MIB = 1536  # address space of a worker
_POLL_SECONDS = 0.05


class Plan(NamedTuple):
    """What to fuzz, and how.

    Attributes:
        readers: Names from `readers.READERS`.
        engine: `numbered` or `guided`.
        seconds: Time for each reader, counted from when its valid files are made.
        count: Most files per reader.
        seed: Decides the files, together with their numbers.
        jobs: Processes; each takes every `jobs`-th number of every reader.
        found: Folder for findings: `READER-NUMBER/FILE` and `findings.jsonl`.
    """

    readers: tuple[str, ...]
    engine: str
    seconds: float
    count: int
    seed: int
    jobs: int
    found: Path


class Tally(NamedTuple):
    """The outcome for one reader.

    Attributes:
        files: Number of files read.
        findings: Description of each kind of finding -> the numbers of the files.
    """

    files: int
    findings: dict[str, list[int]]


def fuzz(plan: Plan) -> dict[str, Tally]:
    """Fuzzes readers with several processes; returns the tally of each reader."""
    plan.found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="jaxprobe-fuzz-", dir=_scratch()) as folder:
        children = [_Child(plan, index, Path(folder)) for index in range(plan.jobs)]
        try:
            _attend(children, plan)
        finally:
            for child in children:
                child.process.kill()
                child.process.wait()
        counts = [
            sum(part) for part in zip(*(state.counts(c.state) for c in children), strict=True)
        ]
    return {
        name: Tally(count, _findings(plan, name))
        for name, count in zip(plan.readers, counts, strict=True)
    }


class _Child:
    """One worker process and its file numbers."""

    def __init__(self, plan: Plan, index: int, folder: Path):
        self.state, self.log = folder / f"state-{index}", folder / f"log-{index}"
        self.folder = folder
        self.arguments = {
            **{"readers": plan.readers, "engine": plan.engine, "seed": plan.seed},
            **{"index": index, "step": plan.jobs, "count": plan.count, "seconds": plan.seconds},
            **{"found": str(plan.found.absolute()), "scratch": str(folder)},
            **{"state": str(self.state), "address_mib": _ADDRESS_MIB},
        }
        state.create(self.state, len(plan.readers))
        self.start(0, index)

    def start(self, reader: int, first: int) -> None:
        """Starts a process at a reader's file number."""
        paths = [str(path) for path in Path(__file__).resolve().parents[1:3]]
        environment = {
            **os.environ,
            **{"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            **{"PYTHONPATH": os.pathsep.join(paths), "JAXPROBE_CACHE": str(self.folder / "cache")},
            **{"TOKENIZERS_PARALLELISM": "false", "OPENBLAS_NUM_THREADS": "1"},
        }
        state.forget_place(self.state)  # otherwise the next would seem to hang while it imports
        self.seen, self.since = None, time.monotonic()
        arguments = json.dumps({**self.arguments, "reader": reader, "first": first})
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, worker.__file__, arguments],
                env=environment,
                stdout=log,
                stderr=log,
            )

    def look(self) -> str | None:
        """Describes a hang or death; None while the process works or when it has finished."""
        place, code = state.place(self.state), self.process.poll()
        if code is None:
            if place != self.seen:  # timed by the parent: the worker's state may be half written
                self.seen, self.since = place, time.monotonic()
            if place.number >= 0 and time.monotonic() - self.since > HANG_SECONDS:
                self.process.kill()
                self.process.wait()
                return f"hung for more than {HANG_SECONDS:.0f} s"
            return None
        if code == 0:
            return None
        said = self.log.read_text(errors="replace").strip()
        if place.number < 0:
            raise RuntimeError(f"the fuzzer's worker cannot work:\n{said[-3000:]}")
        return f"ended its process with {code}: {said.splitlines()[-1][:200] if said else ''}"


def _attend(children: Sequence[_Child], plan: Plan) -> None:
    """Waits for all; one that hangs or dies is replaced by another, which starts after that file."""
    working = list(children)
    while working:
        time.sleep(_POLL_SECONDS)
        for child in list(working):
            wrong = child.look()
            if wrong:
                place = state.place(child.state)
                worker.remember(plan.found, plan.readers[place.reader], place.number, wrong)
                child.start(place.reader, place.number + plan.jobs)
            elif child.process.poll() is not None:
                working.remove(child)


def _findings(plan: Plan, reader: str) -> dict[str, list[int]]:
    """Findings by kind: their descriptions without what differs from file to file."""
    path, kinds = plan.found / "findings.jsonl", collections.defaultdict(list)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    words: dict[str, str] = {}
    for row in rows:
        if row["reader"] == reader:
            kind = re.sub(r"'[^']*'|\"[^\"]*\"|0x[0-9a-f]+|[0-9.]+", "#", row["wrong"])
            kinds[words.setdefault(kind, row["wrong"])].append(row["number"])
    return dict(kinds)


def _scratch() -> str | None:
    """A file system in memory if there is one, so that a million small files do not wear out a disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
