"""Runs extractions in child processes that die by SIGKILL: a script that tests start and talk to.

It imports once and forks for each line of its input, a JSON object with

    workdir     where
    datasets    names of the fake datasets whose last tokens are kept, a letter each
    tokens      of those whose every token is kept
    after       seconds until the child is killed, or null
    at          number of the step at which the child kills itself, or null

and answers `killed`, `done` or `failed`. Steps are the calls that order the commit: a write is issued, a write
is awaited, a file is synced, a file is renamed.
"""

import json
import os
import signal
import sys
import time
import traceback

from jaxprobe.base import POOLINGS, Site
from jaxprobe.experiments import config
from jaxprobe.extraction.request import Request
from jaxprobe.jobs import Need
from jaxprobe.place import Place
from jaxprobe.stages import extract
from jaxprobe.store import arrays, writing
from tests import fakes

SITES = (Site(block=1, stream="resid_post"), Site(block=2, stream="resid_post"))


def _die_at(step: int) -> None:
    """Makes the process kill itself before its `step`-th ordered call."""
    left = [step]

    def counted(call):
        def counting(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return counting

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)
    os.rename = counted(os.rename)
    writing.layout.write_progress = counted(writing.layout.write_progress)
    writing._Shard.flush = counted(writing._Shard.flush)


def _child(order: dict) -> None:
    # Small files, and a commit whenever the last one has ended: many moments to die at.
    arrays._SHARD_BYTES = dict.fromkeys(POOLINGS, 1 << 12) | {"tokens": 1 << 14}
    writing.COMMIT_SECONDS = 0.0
    extract.SEGMENT_PROMPTS = 60
    if order["at"] is not None:
        _die_at(order["at"])
    job = config.Common(model="fake", dtype="float32", extract=config.Extract(batch_tokens=128))
    last = tuple((site, "last") for site in SITES)
    needs = [Need(texts=fakes.dataset(name, 60).texts, taps=last) for name in order["datasets"]]
    needs += [
        Need(texts=fakes.dataset(name, 60).texts, taps=((SITES[1], "tokens"),))
        for name in order["tokens"]
    ]
    extract.run(
        job,
        Request.of(needs),
        Place.parse(order["workdir"]) / "activations",
        model=fakes.FakeModel(),
        make_forward=fakes.make_forward,
    )


def _run(order: dict) -> str:
    child = os.fork()
    if not child:
        try:
            _child(order)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if order["after"] is not None:
        time.sleep(order["after"])
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "killed"
    return "done" if status == 0 else "failed"


if __name__ == "__main__":
    for line in sys.stdin:
        print(_run(json.loads(line)), flush=True)
