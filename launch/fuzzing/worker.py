"""One process of the fuzzer: mutates and reads, file after file, and says what it finds.

It may hang or die at any file, so it first records the file in a small shared file: its parent then knows which it
was, and starts another process after it.
"""

import json
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from fuzzing.state import Place, State


def main(arguments: dict) -> None:
    """Fuzzes readers one after the other, each until its time or count is used up.

    Args:
        arguments: `readers` (names), `engine`, `seed`, `reader` (index of the first), `first` (number of
            its first file), `index` and `step` (of this worker's file numbers), `seconds` (for each
            reader), `count` (end of the numbers), `state` (the shared file), `found` (folder for findings),
            `scratch`, `address_mib`.
    """
    from absl import logging

    logging.set_verbosity(logging.FATAL)
    if arguments["engine"] == "guided":
        from fuzzing import guided

        readers = guided.imported_readers()
    else:
        from fuzzing.readers import READERS as readers
    state = State(Path(arguments["state"]), len(arguments["readers"]))
    for index in range(arguments["reader"], len(arguments["readers"])):
        state.rest(index)
        name = arguments["readers"][index]
        first = arguments["first"] if index == arguments["reader"] else arguments["index"]
        Worker(readers[name], name, state, {**arguments, "reader": index, "first": first}).work()


class Worker:
    """A reader's valid files in a folder of their own, and the loop over mutations of them."""

    def __init__(self, reader, name: str, state: State, arguments: dict):
        """Makes the valid files and reads each twice, so that imports and caches are not measured later."""
        from fuzzing import judge

        self.reader, self.name, self.state, self.arguments = reader, name, state, arguments
        self.home = Path(tempfile.mkdtemp(prefix="fuzz-", dir=arguments["scratch"]))
        os.chdir(self.home)
        self.cases = make_cases(reader, self.home)
        self.watch = judge.Watch.of_process()
        for case in self.cases * 2:
            reader.read(case)
        self.until, self.parent = time.monotonic() + arguments["seconds"], os.getppid()

    def work(self) -> None:
        """Works until the time or count is used up."""
        from fuzzing import judge

        with judge.bounded_memory(self.arguments["address_mib"]):
            loop = self._guided if self.arguments["engine"] == "guided" else self._numbered
            loop()
        self.state.rest(self.arguments["reader"])
        shutil.rmtree(self.home, ignore_errors=True)

    def _numbered(self) -> None:
        plan = self.arguments
        for number in range(plan["first"], plan["count"], plan["step"]):
            if time.monotonic() > self.until or os.getppid() != self.parent:
                return  # nobody would read what a worker finds whose parent was killed
            path, content = mutated(self.reader, self.name, number, plan["seed"], self.cases)
            self._one(number, path, content)

    def _guided(self) -> None:
        from fuzzing import guided

        numbers = iter(range(1 << 62))
        guided.run(
            [path for case in self.cases for path in self.reader.targets(case)],
            lambda path, content: self._one(next(numbers), path, content),
            seconds=max(1, int(self.arguments["seconds"])),
            seed=self.arguments["seed"] * 1000 + self.arguments["first"],
            folder=self.home.parent / f"{self.home.name}-corpus",
        )

    def _one(self, number: int, path: Path, content: bytes) -> None:
        self.state.begin(Place(self.arguments["reader"], number))
        wrong = outcome(self.reader, self.cases, path, content, self.watch)
        if wrong:
            _keep(Path(self.arguments["found"]), self.name, number, wrong, path, content)


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
    """Replaces a valid file's content, reads, restores the file; returns what is wrong, or None."""
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
    """Folders of valid files, one for each of the reader's `makes`."""
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
    """Files that a read left or removed: native code does not trigger the audit hook."""
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
