"""One process of the fuzzer: mutates and reads, file after file, and says what it finds.

It may hang or die at any file: what it works on stands in a small shared file before it begins, so that
its parent can tell which it was and start another behind it.
"""

import json
import mmap
import os
import random
import shutil
import struct
import sys
import tempfile
import time
from pathlib import Path

_STATE = struct.Struct("<QQd")  # files done, file in work (0: none yet), when it was begun
STATE_BYTES = _STATE.size


def state_of(view) -> tuple[int, int, float]:
    """Files done, the number in work and one, and when it was begun (monotonic seconds)."""
    return _STATE.unpack_from(view)


def main(arguments: dict) -> None:
    """Fuzzes one reader until its time or its count is over.

    Args:
        arguments: `reader`, `engine`, `seed`, `first` (number of the first file), `step` (between numbers:
            workers share them), `until` (monotonic seconds), `count` (numbers end there), `state` (the
            shared file), `found` (folder for findings), `scratch`, `address_mib`.
    """
    from absl import logging

    logging.set_verbosity(logging.FATAL)
    if arguments["engine"] == "guided":
        from fuzzing import guided

        readers = guided.imported_readers()
    else:
        from fuzzing.readers import READERS as readers
    Worker(readers[arguments["reader"]], arguments).work()


class Worker:
    """A reader's valid files in a folder of their own, and the loop over mutations of them."""

    def __init__(self, reader, arguments: dict):
        """Makes the valid files and reads each twice: imports and caches come with the first reads."""
        from fuzzing import judge

        self.reader, self.arguments, self.done = reader, arguments, 0
        self.home = Path(tempfile.mkdtemp(prefix="fuzz-", dir=arguments["scratch"]))
        os.chdir(self.home)
        self.cases = make_cases(reader, self.home)
        self.watch = judge.Watch(self.home)
        for case in self.cases * 2:
            reader.read(case)
        with open(arguments["state"], "r+b") as file:
            self.state = mmap.mmap(file.fileno(), STATE_BYTES)

    def work(self) -> None:
        """Works until the time or the count is over."""
        from fuzzing import judge

        with judge.bounded_memory(self.arguments["address_mib"]):
            loop = self._guided if self.arguments["engine"] == "guided" else self._numbered
            loop()
        _STATE.pack_into(self.state, 0, self.done, 0, time.monotonic())
        shutil.rmtree(self.home, ignore_errors=True)

    def _numbered(self) -> None:
        plan = self.arguments
        for number in range(plan["first"], plan["count"], plan["step"]):
            if time.monotonic() > plan["until"]:
                return
            path, content = mutated(self.reader, plan["reader"], number, plan["seed"], self.cases)
            self._one(number, path, content)

    def _guided(self) -> None:
        from fuzzing import guided

        plan = self.arguments
        targets = [path for case in self.cases for path in self.reader.targets(case)]
        guided.run(
            targets,
            lambda path, content: self._one(self.done, path, content),
            seconds=max(1, int(plan["until"] - time.monotonic())),
            seed=plan["seed"] * 1000 + plan["first"],
            folder=self.home.parent / f"{self.home.name}-corpus",
        )

    def _one(self, number: int, path: Path, content: bytes) -> None:
        _STATE.pack_into(self.state, 0, self.done, number + 1, time.monotonic())
        wrong = outcome(self.reader, self.cases, path, content, self.watch)
        self.done += 1
        if wrong:
            found = Path(self.arguments["found"])
            _keep(found, self.arguments["reader"], number, wrong, path, content)


def mutated(reader, name: str, number: int, seed: int, cases: list[Path]) -> tuple[Path, bytes]:
    """File `number` of a reader: which valid file it replaces, and its content."""
    from fuzzing import mutations

    draw = random.Random(f"{name} {seed} {number}")
    case = draw.choice(cases)
    path = draw.choice(reader.targets(case))
    others = [p.read_bytes() for c in cases for p in reader.targets(c) if p.suffix == path.suffix]
    content = mutations.mutate(draw, path.read_bytes(), others)
    return path, reader.mend(content) if reader.mend and draw.random() < 0.7 else content


def outcome(reader, cases: list[Path], path: Path, content: bytes, watch) -> str | None:
    """Puts a content in a valid file's place, reads, puts the file back; what is wrong, or None."""
    from fuzzing import judge

    whole = path.read_bytes()
    case = next(case for case in cases if path.is_relative_to(case))
    before = _listing(case)
    path.write_bytes(content)
    try:
        wrong = judge.judge(reader.read, case, path.name, watch, judge.Limits())
        return wrong or _stray(cases, case, before)
    finally:
        path.write_bytes(whole)


def make_cases(reader, home: Path) -> list[Path]:
    """Folders of valid files, one for each way that the reader's kind is made."""
    cases = []
    for name, make in reader.makes.items():
        case = home / f"case-{name}"
        case.mkdir()
        make(case)
        cases.append(case)
    return cases


def _listing(case: Path) -> set[str]:
    return {str(path) for path in case.rglob("*")}


def _stray(cases: list[Path], case: Path, before: set[str]) -> str | None:
    """What lies there that nobody put there: native code does not ask the audit hook."""
    beside = {path.name for path in case.parent.iterdir()} - {case.name for case in cases}
    changed = {Path(path).name for path in _listing(case) ^ before}
    extra = sorted(beside | changed)
    return f"left or removed {extra[:3]}" if extra else None


def _keep(folder: Path, name: str, number: int, wrong: str, path: Path, content: bytes) -> None:
    """Writes a finding: the mutated file, and what happened."""
    where = folder / f"{name}-{number}"
    where.mkdir(parents=True, exist_ok=True)
    (where / path.name).write_bytes(content)
    remember(folder, name, number, wrong)


def remember(folder: Path, name: str, number: int, wrong: str) -> None:
    """Adds a line to `findings.jsonl`."""
    with (folder / "findings.jsonl").open("a") as file:
        file.write(json.dumps({"reader": name, "number": number, "wrong": wrong}) + "\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
