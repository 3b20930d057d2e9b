"""Runs the extract stage alone: python launch/extract.py --config=FILE [--workdir=DIR]."""

from absl import app
from flags import config_and_workdir, finish, parse_flags

from jaxprobe.stages import run


def main(argv: list[str]) -> None:
    """One stage; what earlier stages make must be there."""
    config, workdir = config_and_workdir(argv)
    finish(lambda: run.run(config, workdir, ("extract",)))


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
