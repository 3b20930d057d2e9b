"""The parent of the fuzzer's processes: deals out files, notices who hangs or dies, adds up."""

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

from fuzzing import worker

HANG_SECONDS = 30.0  # of wall time, on a machine that others use; the judge counts CPU time itself
_ADDRESS_MIB = 1536  # beyond this a worker cannot take memory
_POLL_SECONDS = 0.05


class Plan(NamedTuple):
    """What is to be done with one reader.

    Attributes:
        reader: A name of `readers.READERS`.
        engine: `numbered` or `guided`.
        seconds: Time, after which no further file is begun.
        count: Most files.
        seed: Decides the files, with their numbers.
        jobs: Processes.
        found: Folder for what is found: `READER-NUMBER/FILE` and `findings.jsonl`.
    """

    reader: str
    engine: str
    seconds: float
    count: int
    seed: int
    jobs: int
    found: Path


class Tally(NamedTuple):
    """What became of one reader's files.

    Attributes:
        files: How many were read.
        seconds: How long it took.
        findings: Words of each kind of finding -> the numbers of the files.
    """

    files: int
    seconds: float
    findings: dict[str, list[int]]


def fuzz(plan: Plan) -> Tally:
    """Fuzzes one reader with several processes."""
    start = time.monotonic()
    plan.found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="jaxprobe-fuzz-", dir=_scratch()) as folder:
        children = [_Child(plan, index, Path(folder), start) for index in range(plan.jobs)]
        try:
            _attend(children, plan)
        finally:
            for child in children:
                child.process.kill()
                child.process.wait()
    files = sum(child.done for child in children)
    return Tally(files, time.monotonic() - start, _findings(plan))


class _Child:
    """One worker process and the numbers that it deals with."""

    def __init__(self, plan: Plan, index: int, folder: Path, start: float):
        self.state, self.log = folder / f"state-{index}", folder / f"log-{index}"
        self.folder, self.done = folder, 0
        self.arguments = {
            **{"reader": plan.reader, "engine": plan.engine, "seed": plan.seed},
            **{"step": plan.jobs, "count": plan.count, "until": start + plan.seconds},
            **{"found": str(plan.found.absolute()), "scratch": str(folder)},
            **{"state": str(self.state), "address_mib": _ADDRESS_MIB},
        }
        self.start(index)

    def start(self, first: int) -> None:
        """Begins a process at a number."""
        self.state.write_bytes(bytes(worker.STATE_BYTES))
        paths = [str(path) for path in Path(__file__).resolve().parents[1:3]]
        environment = {
            **os.environ,
            **{"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            **{"PYTHONPATH": os.pathsep.join(paths), "JAXPROBE_CACHE": str(self.folder / "cache")},
            **{"TOKENIZERS_PARALLELISM": "false", "OPENBLAS_NUM_THREADS": "1"},
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, worker.__file__, json.dumps({**self.arguments, "first": first})],
                env=environment,
                stdout=log,
                stderr=log,
            )
        self.started = time.monotonic()

    def look(self) -> str | None:
        """Whether it hangs or has died, in words; None while it works or when it has finished."""
        _, number, begun = worker.state_of(self.state.read_bytes())
        code = self.process.poll()
        if code is None:
            waiting = time.monotonic() - (begun or self.started)
            if number and waiting > HANG_SECONDS:
                self.process.kill()
                self.process.wait()
                return f"hung for more than {HANG_SECONDS:.0f} s"
            return None
        if code == 0:
            return None
        said = self.log.read_text(errors="replace").strip()
        if not number:
            raise RuntimeError(f"the fuzzer's worker cannot start:\n{said[-3000:]}")
        return f"ended its process with {code}: {said.splitlines()[-1][:200] if said else ''}"


def _attend(children: Sequence[_Child], plan: Plan) -> None:
    """Waits for all; one that hangs or dies is replaced by another that goes on behind that file."""
    working = list(children)
    while working:
        time.sleep(_POLL_SECONDS)
        for child in list(working):
            wrong = child.look()
            done, number, _ = worker.state_of(child.state.read_bytes())
            if wrong:
                child.done += done + 1
                worker.remember(plan.found, plan.reader, number - 1, wrong)
                child.start(number - 1 + plan.jobs)
            elif child.process.poll() is not None:
                child.done += done
                working.remove(child)


def _findings(plan: Plan) -> dict[str, list[int]]:
    """Findings by kind: their words without what differs from file to file."""
    path, kinds = plan.found / "findings.jsonl", collections.defaultdict(list)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    words: dict[str, str] = {}
    for row in rows:
        if row["reader"] == plan.reader:
            kind = re.sub(r"'[^']*'|\"[^\"]*\"|0x[0-9a-f]+|[0-9.]+", "#", row["wrong"])
            kinds[words.setdefault(kind, row["wrong"])].append(row["number"])
    return dict(kinds)


def _scratch() -> str | None:
    """Memory, where there is such a file system: a million small files wear no disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
