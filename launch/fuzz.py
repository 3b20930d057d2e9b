"""Mutates valid files and reads them: python launch/fuzz.py --reader=NAME|all --seconds=60 [--count=N --seed=N].

Each mutated file must be read, or refused within 2 CPU seconds and 300 MiB in one sentence that names it. A crash,
a hang, any other error, a file written or a process started is a finding, which is kept in --found and can be
repeated by `--reader=NAME --number=N` with the same seed. The exit status is 1 if there is a finding.
"""

import os
import sys
from pathlib import Path

from absl import app, flags
from fuzzing import fleet, guided, repeat
from fuzzing.readers import READERS

_READER = flags.DEFINE_enum("reader", "all", [*READERS, "all"], "Which reader.")
_ENGINE = flags.DEFINE_enum(
    "engine", "numbered", ["numbered", "guided"], "guided: by coverage (`pip install atheris`)."
)
_SECONDS = flags.DEFINE_float("seconds", 60, "Total time, shared by the readers.")
_COUNT = flags.DEFINE_integer("count", 1 << 40, "Most files per reader.")
_SEED = flags.DEFINE_integer("seed", 0, "Decides the files; a finding is repeated with its seed.")
_JOBS = flags.DEFINE_integer("jobs", os.cpu_count() or 1, "Processes.")
_FOUND = flags.DEFINE_string("found", "runs/fuzz", "Folder for findings.")
_NUMBER = flags.DEFINE_integer("number", None, "Reads this one file of the reader again.")


def main(argv: list[str]) -> None:
    """Fuzzes, and prints a line per reader."""
    if len(argv) > 1:
        sys.exit(f"error: unknown argument {argv[1]!r}; the flags are listed by --help")
    if _ENGINE.value == "guided" and not guided.available():
        sys.exit("error: --engine=guided needs atheris: pip install atheris")
    if _NUMBER.value is not None:
        sys.exit(repeat.repeat(_READER.value, _NUMBER.value, _SEED.value))
    names = tuple(READERS) if _READER.value == "all" else (_READER.value,)
    seconds = _SECONDS.value / len(names)
    plan = fleet.Plan(
        *(names, _ENGINE.value, seconds, _COUNT.value, _SEED.value, _JOBS.value),
        found=Path(_FOUND.value),
    )
    files = wrong = 0
    for name, tally in fleet.fuzz(plan).items():
        print(f"{name:14s} {tally.files:9,d} files")
        for words, numbers in tally.findings.items():
            print(f"    {len(numbers)} x #{numbers[0]}: {words}")
        files, wrong = files + tally.files, wrong + sum(map(len, tally.findings.values()))
    print(f"{'all':14s} {files:9,d} files, {wrong} findings")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    app.run(main)
