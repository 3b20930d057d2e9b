"""Runs jobs on the fakes in child processes that are told to stop: a script that tests start and talk to.

It imports once and forks for each line of its input, a JSON object with

    workdir, datasets   the job
    at                  the step at which the child sends itself the signal: `append`, `trace`, `train`,
                        `quality`, `encode`, `fit`, `stuck`, `render`; null for none
    call                which call of that step
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
import numpy as np

from jaxprobe import models, rendering
from jaxprobe.probes import Scores
from jaxprobe.saes import training
from jaxprobe.stages import encode, extract, probe_jobs, run, train_sae
from jaxprobe.store import writing
from tests import fakes

STEPS = {
    "append": (writing.StoreWriter, "append"),
    "trace": (training, "train_step"),
    "train": (train_sae, "_show"),
    "quality": (train_sae, "measure_quality"),
    "encode": (encode, "_encode_dataset"),
    "fit": (probe_jobs.grid, "fit_grid"),
    "stuck": (probe_jobs.grid, "fit_grid"),
    "render": (rendering, "to_html"),
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


def _scores(probe, x_ND, splits, *, num_latents, **_) -> Scores:
    """Numbers in place of fits: what is tried here is what becomes of them."""
    value_SK = np.full(
        (len(splits), max(1, len(num_latents))), float(np.abs(x_ND).mean() % 0.4 + 0.5)
    )
    return Scores(
        valid_auroc=value_SK,
        best_value=value_SK,
        converged=np.ones_like(value_SK, bool),
        residual=value_SK,
        metrics=dict.fromkeys(("auroc", "f1", "accuracy"), value_SK[..., None]),
        test_sets=(("test",),) * len(splits),
    )


def _child(order: dict, clock: pathlib.Path) -> None:
    jax.config.update("jax_compilation_cache_dir", order["cache"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    models.load_model = lambda source, dtype: fakes.FakeModel()
    models.identify = lambda source, dtype: fakes.FakeModel()
    run.extraction.extract = functools.partial(
        extract.extract,
        identify=lambda source, dtype: fakes.FakeModel(),
        make_forward=fakes.make_forward,
    )
    probe_jobs.grid.fit_grid = _scores
    if order["at"]:
        _stop_at(order["at"], order["call"], order["signal"], clock)
    config = run.RunConfig.from_mapping(
        {
            **{"model": "fake", "dtype": "float32", "site": "blocks.1.resid_post", "seed": 7},
            **{"datasets": tuple(order["datasets"]), "extract": {"batch_tokens": 256}},
            "train_sae": {"d_sae": 64, "target_l0": 6.0, "num_tokens": 4096, "batch_size": 128},
            "encode": {"protocols": ("paper",), "max_latents": 4, "random_sae": False},
            "fit": {"num_latents": (4,), "regime_num_latents": (4,), "controls": False},
        }
    )
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
