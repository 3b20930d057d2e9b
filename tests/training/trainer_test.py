"""Training on activations with a planted dictionary: quality, resuming, refusing."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxprobe import checkpoints
from jaxprobe.saes import jump_relu
from jaxprobe.training import steps, trainer
from jaxprobe.training.tokens import held_out_prompts
from jaxprobe.training.trainer import train_sae
from tests.training.planted import SITE, TINY, FakeStore, is_held

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    store = FakeStore()
    return store, folder, train_sae(TINY, store, folder)


def test_quality_is_what_numpy_measures_on_held_out_tokens(trained):
    store, folder, loaded = trained
    held_N = is_held(store)
    sae = {name: np.asarray(value, np.float64) for name, value in vars(loaded.sae).items()}
    last_N = np.append(np.diff(store.token_prompt(SITE)) > 0, True)
    quality = loaded.metadata["training"]["held_out"]
    for name, rows_N in {"all_tokens": held_N, "last_tokens": held_N & last_N}.items():
        x_ND = store.x_ND[rows_N].astype(np.float64)
        pre_NS = x_ND @ sae["W_enc_DS"] + sae["b_enc_S"]
        z_NS = np.maximum(pre_NS, 0) * (pre_NS > sae["threshold_S"])
        error = ((z_NS @ sae["W_dec_SD"] + sae["b_dec_D"] - x_ND) ** 2).sum()
        explained = 1 - error / ((x_ND - x_ND.mean(0)) ** 2).sum()
        assert quality[name]["variance_explained"] == pytest.approx(explained, abs=1e-3)
        assert quality[name]["l0"] == pytest.approx((z_NS > 0).sum(1).mean(), rel=1e-2)
        assert quality[name]["num_tokens"] == rows_N.sum()
    # Six principal components of the training tokens hold far less.
    centred_ND = store.x_ND[~held_N] - store.x_ND[~held_N].mean(0)
    values = np.linalg.eigvalsh(np.cov(centred_ND.T))[::-1]
    assert values[:6].sum() / values.sum() < 0.55
    assert quality["all_tokens"]["variance_explained"] > 0.8
    assert quality["all_tokens"]["l0"] == pytest.approx(TINY.target_l0, rel=0.2)
    np.testing.assert_allclose(np.linalg.norm(sae["W_dec_SD"], axis=1), 1, rtol=1e-5)
    assert loaded.site == SITE
    assert loaded.expected_l0 == quality["all_tokens"]["l0"]
    assert [path.name for path in folder.iterdir()] == ["sae.safetensors"]


def test_held_out_prompts_are_read_only_to_measure(trained, monkeypatch, tmp_path):
    store = FakeStore()
    rows_before_measuring = []

    def measure(sae, store, site, row_N, is_last_N):
        rows_before_measuring.extend(store.read_rows)
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "measure_quality", measure)
    short = dataclasses.replace(TINY, num_tokens=1000)
    with pytest.raises(KeyboardInterrupt):
        train_sae(short, store, tmp_path)
    held_N = is_held(store)
    assert 0.05 < held_N.mean() < 0.16
    assert not held_N[np.concatenate(rows_before_measuring)].any()
    # A prompt's lot does not depend on the other prompts.
    hashes = store.prompt_hashes()
    some = held_out_prompts(hashes[100:200], 0, 0.1)
    np.testing.assert_array_equal(some, held_out_prompts(hashes, 0, 0.1)[100:200])


def test_finished_run_is_loaded_not_trained(trained, monkeypatch):
    store, folder, first = trained
    monkeypatch.setattr(steps, "train", lambda *a: pytest.fail("trained again"))
    again = train_sae(TINY, store, folder)
    np.testing.assert_array_equal(again.sae.W_enc_DS, first.sae.W_enc_DS)
    assert again.metadata == first.metadata


@pytest.mark.parametrize("architecture", ["topk", "batch_topk", "gated", "relu"])
def test_other_architectures_train_resume_and_say_what_they_are(
    architecture, tmp_path, monkeypatch
):
    wanted = dataclasses.replace(TINY, architecture=architecture, num_tokens=60 * 128)
    whole = train_sae(wanted, FakeStore(), tmp_path / "whole")
    assert whole.architecture == architecture
    assert whole.id == f"{architecture}/{SITE}/width_96/l0_6"
    quality = whole.metadata["training"]["held_out"]["all_tokens"]
    assert quality["l0"] == pytest.approx(TINY.target_l0, rel=0.3)
    assert quality["variance_explained"] > 0.3
    # Interrupted after some checkpoints and started again: the same bytes.
    real, saved = steps.training_state.save, []

    def save_some(*arguments):
        real(*arguments)
        saved.append(1)
        if len(saved) == 20:
            raise KeyboardInterrupt

    monkeypatch.setattr(steps.training_state, "save", save_some)
    with pytest.raises(KeyboardInterrupt):
        train_sae(wanted, FakeStore(), tmp_path / "again")
    train_sae(wanted, FakeStore(), tmp_path / "again")
    first, second = (
        (tmp_path / name / "sae.safetensors").read_bytes() for name in ("whole", "again")
    )
    assert first == second
    # A run of another architecture has other business in this folder.
    with pytest.raises(ValueError, match=r"architecture = "):
        train_sae(dataclasses.replace(TINY, num_tokens=60 * 128), FakeStore(), tmp_path / "whole")


def test_the_number_of_devices_changes_only_the_order_of_sums(tmp_path):
    import jax

    if len(jax.devices()) < 2:
        pytest.skip("needs two devices")
    short = dataclasses.replace(TINY, num_tokens=20 * 128)
    runs = {}
    for count in (1, 2, 3):  # three do not divide a batch: two are taken
        wanted = dataclasses.replace(short, num_devices=count)
        runs[count] = train_sae(wanted, FakeStore(), tmp_path / str(count)).sae
    for name, value in vars(runs[1]).items():
        scale = np.abs(value).max()
        np.testing.assert_allclose(getattr(runs[2], name) / scale, value / scale, atol=1e-3)
        np.testing.assert_array_equal(getattr(runs[3], name), getattr(runs[2], name))
    assert not np.array_equal(runs[1].W_enc_DS, runs[2].W_enc_DS)  # two did share the work


def test_another_config_or_store_is_refused(trained):
    store, folder, _ = trained
    other = dataclasses.replace(TINY, learning_rate=0.5)
    with pytest.raises(ValueError, match=r"learning_rate = 0.01; this run has learning_rate = 0.5"):
        train_sae(other, store, folder)
    with pytest.raises(ValueError, match="tokens = "):
        train_sae(TINY, FakeStore(num_prompts=699), folder)
    # How often to save decides nothing.
    train_sae(dataclasses.replace(TINY, checkpoint_seconds=9.0), store, folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_sae": 0}, "`d_sae` must be above zero"),
        ({"target_l0": 96}, "`target_l0` must lie between 0 and d_sae = 96, got 96"),
        ({"held_out": 1.0}, "`held_out` must lie between 0 and 1"),
        ({"held_out": 1e-9}, "0 to measure with"),
        ({"batch_size": 10**6}, "extract more prompts or take a smaller batch"),
        ({"compute_dtype": "float23"}, "unknown compute_dtype 'float23'"),
        ({"architecture": "jumprelu"}, "unknown architecture 'jumprelu'; known: jump_relu"),
        ({"num_devices": -1}, "`num_devices` must be 0"),
    ],
)
def test_bad_configs_are_refused(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train_sae(dataclasses.replace(TINY, **change), FakeStore(), tmp_path)


PROGRAM = """
import sys
from jaxprobe.training.trainer import train_sae
from tests.training.planted import TINY, FakeStore
train_sae(TINY, FakeStore(), sys.argv[1])
"""


def start(folder):
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    quiet = {"stderr": subprocess.DEVNULL, "start_new_session": True}
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, **quiet)


def test_killed_run_resumes_to_the_same_bytes(trained, tmp_path):
    state = tmp_path / trainer.STATE_NAME
    kills = 0
    for _ in range(2):
        process = start(tmp_path)
        seen = state.stat().st_mtime_ns if state.exists() else 0
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            # Wait for a few new checkpoints, then pull the plug.
            if state.exists() and state.stat().st_mtime_ns > seen:
                time.sleep(0.15)
                break
            time.sleep(0.005)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills
    assert not (tmp_path / "sae.safetensors").exists()
    assert start(tmp_path).wait() == 0
    expected = (trained[1] / "sae.safetensors").read_bytes()
    assert (tmp_path / "sae.safetensors").read_bytes() == expected
    assert [path.name for path in tmp_path.iterdir()] == ["sae.safetensors"]


def test_damaged_or_foreign_state_is_refused(tmp_path, monkeypatch):
    saved = []
    real = steps.training_state.save

    def save_twice(*arguments):
        real(*arguments)
        saved.append(1)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(steps.training_state, "save", save_twice)
    with pytest.raises(KeyboardInterrupt):
        train_sae(TINY, FakeStore(), tmp_path)
    with pytest.raises(ValueError, match=r"seed = 0; this run has seed = 1"):
        train_sae(dataclasses.replace(TINY, seed=1), FakeStore(), tmp_path)
    state = tmp_path / trainer.STATE_NAME
    state.write_bytes(state.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"damaged.*delete it to train afresh"):
        train_sae(TINY, FakeStore(), tmp_path)


def test_random_control_of_a_trained_sae_has_its_l0(trained):
    import jax

    store, _, loaded = trained
    x_ND = store.x_ND[:500]
    control = jump_relu.random_like(loaded.sae, x_ND, jax.random.key(0))
    count = lambda sae: int((jump_relu.encode(sae, x_ND) > 0).sum())
    assert count(control) == pytest.approx(count(loaded.sae), abs=2)
    assert checkpoints.load_sae(trained[1]).id == loaded.id
