"""Writes the report of finished fits: python launch/report.py --config=FILE [--workdir=DIR]."""

from absl import app
from job import config_and_workdir, finish
from overrides import parse_flags

from jaxprobe.stages import run


def main(argv: list[str]) -> None:
    """The report stage; results.parquet must be there."""
    config, workdir = config_and_workdir(argv)
    print(finish(lambda: run.run(config, workdir, ("report",))))


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
