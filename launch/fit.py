"""Runs only the fit stage: python launch/fit.py --config=FILE [--workdir=DIR]."""

from absl import app
from flags import config_and_workdir, finish, parse_flags

from jaxprobe.stages import run


def main(argv: list[str]) -> None:
    """Runs one stage; the earlier ones must have run."""
    config, workdir = config_and_workdir(argv)
    finish(lambda: run.run(config, workdir, ("fit",)))


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
