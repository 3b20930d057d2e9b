"""Reads one mutated file again, in this process, with the traceback that the sentence hides."""

import tempfile
import traceback
from pathlib import Path

from fuzzing import judge, worker
from fuzzing.readers import READERS


def repeat(name: str, number: int, seed: int) -> int:
    """Prints the outcome of file `number` of a reader; returns 1 where it is a finding, else 0."""
    reader = READERS[name]
    shown = reader._replace(read=lambda path: _shown(reader.read, path))
    with tempfile.TemporaryDirectory(prefix="jaxprobe-fuzz-") as folder:
        cases = worker.make_cases(reader, Path(folder))
        watch = judge.Watch.of_process()
        for case in cases:
            reader.read(case)
        path, content = worker.mutated(reader, name, number, seed, cases)
        wrong = worker.outcome(shown, cases, path, content, watch)
        print(f"{path.relative_to(folder)}, {len(content):,} bytes: {wrong or 'fine'}")
    return 1 if wrong else 0


def _shown(read, path: Path) -> None:
    try:
        read(path)
    except BaseException:
        traceback.print_exc()
        raise
