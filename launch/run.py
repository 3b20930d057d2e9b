"""Runs the whole job: python launch/run.py --config=configs/quickstart.py [--workdir=DIR] [--shard=I/N].

With --shard=0/4 it does the first of four independent parts of the datasets; when all four are done, the same
command without --shard finds their results and writes the report.
"""

import functools

from absl import app
from flags import config_and_workdir, finish, parse_flags

from jaxprobe.stages import run


def main(argv: list[str]) -> None:
    """Runs every stage, resuming from what is already done."""
    config, workdir = config_and_workdir(argv)
    finish(lambda: _whole_job(config, workdir))


def _whole_job(config: run.RunConfig, workdir) -> None:
    print(run.run(config, workdir, tell=functools.partial(print, flush=True)))
    if config.shard is None:
        print(f"\nThe report is {workdir / 'report' / 'index.html'}", flush=True)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
