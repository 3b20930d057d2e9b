"""Speed, agreement, memory: python launch/bench.py --suite=NAME [--config=... --workdir=DIR].

`forward`, `encode`, `train_sae`, `fit` and `grid` (together: `all`) read the work directory of a finished run, by
default the quickstart's. Both sides of a comparison run in the same process, one after the other, on the
same rows. `select` ranks the latents of a random encoder and needs no config; `load` writes a checkpoint
of 4 GB and reads it; `memory` reports a model's memory on a device. `--helpfull` lists each suite's flags.
"""

from absl import app, flags
from benchmarks import encode, fit, forward, grid, models, train_sae
from benchmarks.ranking import select_suite
from flags import config_and_workdir, finish, parse_flags

from jaxprobe import records

SUITES = {
    "forward": forward.suite,
    "encode": encode.suite,
    "train_sae": train_sae.suite,
    "fit": fit.suite,
    "grid": grid.suite,
}
ALONE = {"load": models.load_suite, "memory": models.memory_suite}
_SUITE = flags.DEFINE_enum("suite", "all", [*SUITES, *ALONE, "select", "all"], "What to measure.")


def main(argv: list[str]) -> None:
    """Runs the requested suites."""
    if _SUITE.value == "select":
        print(f"select: {records.device()}")
        return finish(select_suite)
    config, workdir = config_and_workdir(argv)
    for name, suite in (SUITES | ALONE).items():
        if _SUITE.value == name or (_SUITE.value == "all" and name in SUITES):
            print(f"\n{name}: {records.device()}")
            finish(lambda suite=suite: suite(config, workdir))


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
