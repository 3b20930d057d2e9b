"""Runs jobs on the fakes in child processes that are told to stop: a script that tests start and talk to.

It imports once and forks for each line of its input, a JSON object with

    workdir, datasets   the job
    at                  the step at which the child sends itself the signal: `append`, `trace`, `train`,
                        `quality`, `encode`, `fit`, `stuck`, `render`, `sync`, `rename`; null for none
    call                which call of that step
    after               seconds until the child is killed, or null
    signal              a signal's name; `full` for a disk that takes no more from there on, `bug` for a
                        mistake of the program

and answers a JSON object: status (negative for death by a signal), said (what it wrote), seconds (from the
signal on).
"""

import functools
import json
import os
import pathlib
import resource
import signal
import sys
import tempfile
import time
import traceback

import flags
import jax
import pytest

from jaxprobe import rendering
from jaxprobe.features import ranked
from jaxprobe.methods import probes
from jaxprobe.saes import training
from jaxprobe.stages import run
from jaxprobe.store import writing
from jaxprobe.training import steps, trainer
from tests import fakes

STEPS = {
    "append": (writing.StoreWriter, "append"),
    "trace": (training, "train_step"),
    "train": (steps, "_show"),
    "quality": (trainer, "measure_quality"),
    "encode": (ranked, "rank"),
    "fit": (probes.grid, "fit_grid"),
    "stuck": (probes.grid, "fit_grid"),
    "render": (rendering, "to_html"),
    "sync": (os, "fsync"),
    "rename": (os, "rename"),
}


def _fault(name: str, clock: pathlib.Path) -> None:
    if name == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
    elif name == "bug":
        raise TypeError("a mistake")
    else:
        clock.write_text(str(time.monotonic()))
        os.kill(os.getpid(), getattr(signal, name))


def _stop_at(step: str, call: int, fault: str, clock: pathlib.Path) -> None:
    owner, name = STEPS[step]
    plain, calls = getattr(owner, name), [0]

    @functools.wraps(plain)
    def counting(*args, **kwargs):
        calls[0] += 1
        if calls[0] == call:
            _fault(fault, clock)
            time.sleep(60 if step == "stuck" else 0.05)
        return plain(*args, **kwargs)

    setattr(owner, name, counting)


def _child(order: dict, clock: pathlib.Path) -> None:
    jax.config.update("jax_compilation_cache_dir", order["cache"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    fakes.stand_in(pytest.MonkeyPatch())
    probes.grid.fit_grid = fakes.scores
    if order["at"]:
        _stop_at(order["at"], order["call"], order["signal"], clock)
    changes = {
        "encode": {"protocols": ("paper",), "max_latents": 4, "random_sae": order["random_sae"]},
        "fit": {"num_latents": (4,), "regime_num_latents": (4,), "controls": order["random_sae"]},
    }
    extract = {"batch_tokens": 256}
    job = fakes.job(order["datasets"], extract=extract, **changes)
    job["train_sae"]["num_tokens"] = 4096
    config = run.RunConfig.from_mapping(job)
    print(flags.finish(lambda: run.run(config, order["workdir"])))


def _run(order: dict, folder: pathlib.Path) -> dict:
    clock = folder / "clock"
    source, out = os.pipe()  # not a file, whose size the child may limit
    child = os.fork()
    if not child:
        os.dup2(out, 1), os.dup2(out, 2)
        try:
            _child(order, clock)
        except SystemExit as end:
            print(end.code, file=sys.stderr, flush=True)
            os._exit(1)
        except BaseException:
            traceback.print_exc()
            os._exit(70)
        sys.stdout.flush()
        os._exit(0)
    os.close(out)
    if order["after"] is not None:
        time.sleep(order["after"])
        os.kill(child, signal.SIGKILL)
    with open(source) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    since = time.monotonic() - float(clock.read_text()) if clock.exists() else 0.0
    clock.unlink(missing_ok=True)
    code = os.waitstatus_to_exitcode(status)
    return {"status": code, "said": said, "seconds": since}


if __name__ == "__main__":
    # A test run in the background, or by nohup, would hand down ignored signals.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with tempfile.TemporaryDirectory() as scratch:
        for line in sys.stdin:
            print(json.dumps(_run(json.loads(line), pathlib.Path(scratch))), flush=True)
