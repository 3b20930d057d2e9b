"""SIGINT and SIGTERM: one sentence and a shell's status, after what was done is committed."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxprobe import results, stopping
from jaxprobe.place import Place
from jaxprobe.store import layout
from jaxprobe.workdir import Workdir
from tests import fakes

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def tell(tmp_path_factory):
    """Talks to `tests/stop_runner.py`."""
    folder = tmp_path_factory.mktemp("stopping")
    paths = [fakes.write_csv(folder, fakes.dataset(name, 220, gap=0.5)) for name in ("a", "b")]
    with subprocess.Popen(
        [sys.executable, str(ROOT / "tests/stop_runner.py")],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'launch'}", "JAX_PLATFORMS": "cpu"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as runner:

        def order(
            workdir, at=None, call=1, number="SIGTERM", *, after=None, random_sae=False
        ) -> dict:
            asked = {"workdir": str(workdir), "datasets": paths, "cache": str(folder / "cache")}
            asked |= {"after": after, "random_sae": random_sae}
            line = json.dumps({**asked, "at": at, "call": call, "signal": number})
            print(line, file=runner.stdin, flush=True)
            return json.loads(runner.stdout.readline())

        yield order
        runner.stdin.close()


def progress(workdir: Path) -> dict[str, int]:
    """What is committed: batches of prompts in the store, the SAE's step or file, latents, result rows."""
    found = {"prompts": 0, "latents": 0, "rows": 0, "state": 0}
    if (workdir / "activations" / layout.PROGRESS).exists():
        found["prompts"] = sum(layout.read_progress(Place.parse(workdir / "activations")).committed)
    found["latents"] = len(list((workdir / "latents").glob("*/*")))
    found["state"] = len(list((workdir / "saes").glob("*/*.safetensors")))
    jobs = Workdir.parse(workdir).jobs
    found["rows"] = sum(len(results.read_job(jobs / name).rows) for name in jobs.children())
    return found


STOPS = (  # step, which call, signal, what must have been committed by then
    ("append", 1, "full", ""),
    ("append", 3, "SIGINT", "prompts"),
    ("trace", 1, "SIGTERM", "state"),
    ("train", 5, "SIGINT", "state"),
    ("quality", 1, "full", ""),
    ("quality", 1, "SIGTERM", "state"),
    ("encode", 1, "full", ""),
    ("encode", 2, "SIGINT", "latents"),
    ("encode", 1, "bug", ""),
    ("fit", 1, "full", ""),
    ("fit", 3, "SIGTERM", "rows"),
    ("stuck", 2, "SIGINT", "rows"),
    ("render", 1, "full", ""),
    ("render", 1, "SIGHUP", ""),
)


def test_a_job_stopped_or_out_of_disk_in_every_stage_keeps_its_work_and_ends_the_same(
    tell, tmp_path
):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert tell(whole)["status"] == 0
    before = progress(stopped)
    for at, call, name, kept in STOPS:
        got = tell(stopped, at, call, name)
        after = progress(stopped)
        if name == "bug":
            assert got["status"] == 70 and "TypeError: a mistake" in got["said"], got
        elif name == "full":
            assert got["status"] == 1 and "Traceback" not in got["said"], (at, got["said"])
            (line,) = re.findall(r"^error: .*", got["said"], re.M)
            assert str(stopped) in line and "same command again to go on" in line, line
        else:
            assert got["status"] == 128 + getattr(signal, name), (at, got)
            assert f"stopped by {name}; what was done is kept" in got["said"], (at, got["said"])
            assert "Traceback" not in got["said"]
            assert got["seconds"] < 30, at  # a job stuck in a thread is not waited for
            if kept:
                assert after[kept] > (0 if kept == "state" else before[kept]), (at, before, after)
        assert all(after[key] >= before[key] for key in ("prompts", "latents", "rows")), at
        before = after
    last = tell(stopped)
    assert last["status"] == 0, last["said"]
    assert artefacts(stopped) == artefacts(whole) != {}


def artefacts(root: Path) -> dict[str, bytes]:
    """The bytes of what was trained, encoded and fitted, and of what was made of it."""
    folders = ("saes", "latents", "results")
    found = [path for folder in folders for path in (root / folder).rglob("*")]
    found += [root / "results.parquet", root / "metrics.parquet", root / "quiver.csv"]
    return {str(path.relative_to(root)): path.read_bytes() for path in found if path.is_file()}


DEATHS = (
    ("sync", 1),
    ("sync", 9),
    ("rename", 2),
    ("sync", 14),
    ("rename", 7),
    ("fit", 3),
    ("sync", 5),
)


def test_a_job_killed_at_any_moment_ends_with_the_same_bytes(tell, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    start = time.monotonic()
    assert tell(whole, random_sae=True)["status"] == 0
    seconds = time.monotonic() - start
    deaths = [{"at": at, "call": call, "number": "SIGKILL"} for at, call in DEATHS]
    draw = random.Random(time.time_ns())
    deaths += [{"after": draw.uniform(0.1, 0.9) * seconds} for _ in range(4)]
    draw.shuffle(deaths)
    got = [tell(killed, random_sae=True, **death)["status"] for death in deaths]
    assert {*got} <= {0, -signal.SIGKILL} and got.count(-signal.SIGKILL) > 3, (deaths, got)
    assert tell(killed, random_sae=True)["status"] == 0
    assert artefacts(killed) == artefacts(whole) != {}, deaths
    # What the killed processes had begun is not taken for anything, and is gone where it was made anew.
    assert not [path for path in (killed / "results").iterdir() if path.suffix != ".parquet"]


# Becomes the program in its arguments, which a background job's ignored SIGINT would never reach.
LISTENS = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def test_a_signal_while_the_program_starts_is_one_sentence():
    for name in ("SIGINT", "SIGTERM"):
        process = subprocess.Popen(
            [sys.executable, "-c", LISTENS, "launch/extract.py", "--config=configs/tiny.py"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
            stderr=subprocess.PIPE,
            text=True,
        )
        # JAX's library is mapped after the handlers are there, and before the work.
        while process.poll() is None and b"jaxlib" not in _maps(process):
            time.sleep(0.01)
        process.send_signal(getattr(signal, name))
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 128 + getattr(signal, name), said
        assert f"stopped by {name}; no work had begun" in said
        assert "Traceback" not in said


def _maps(process: subprocess.Popen) -> bytes:
    try:
        return Path(f"/proc/{process.pid}/maps").read_bytes()
    except OSError:
        pytest.skip("needs /proc")


@pytest.fixture
def listening():
    """SIGINT as in a terminal: it may have been ignored where the tests were started."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_stop_waits_for_what_is_held_and_is_not_lost(listening):
    done = []
    with pytest.raises(stopping.Stopped) as caught, stopping.on_signals():
        with stopping.held():
            with stopping.held():
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGINT)  # a launcher's second copy of it
                done.append("inner")
            done.append("outer")
        done.append("never")
    assert caught.value.number == signal.SIGTERM
    assert done == ["inner", "outer"]
    assert signal.getsignal(signal.SIGTERM) is not stopping._on_signal
    # One that Python had to drop is raised at the next commit.
    with pytest.raises(stopping.Stopped), stopping.on_signals():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        except KeyboardInterrupt:
            pass
        with stopping.held():
            done.append("kept")
    assert done[-1] == "kept"
    with stopping.held():  # without handlers it does nothing
        assert not stopping.asked()


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping.on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            stopping.check()
    finally:
        signal.signal(signal.SIGHUP, before)
