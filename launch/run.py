"""Runs the whole job: python launch/run.py --config=configs/quickstart.py [--workdir=DIR]."""

from absl import app
from job import config_and_workdir, finish
from overrides import parse_flags

from jaxprobe.stages import run


def main(argv: list[str]) -> None:
    """Every stage, resuming what is there."""
    config, workdir = config_and_workdir(argv)
    print(finish(lambda: run.run(config, workdir)))
    print(f"\nThe report is {workdir / 'report' / 'index.html'}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
