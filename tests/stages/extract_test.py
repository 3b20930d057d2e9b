"""Extraction on fakes: right rows, each prompt once, and the same bytes however often a run is killed."""

import dataclasses
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprobe import store as store_room
from jaxprobe.base import Site
from jaxprobe.stages import extract as stage
from jaxprobe.stages import in_memory
from tests import fakes

ROOT = Path(__file__).parents[2]
SITE, OTHER = Site(block=1, stream="resid_post"), Site(block=2, stream="resid_post")


def run(config, workdir, model=None, make_forward=fakes.make_forward):
    return stage.extract(
        config, workdir, model=model or fakes.FakeModel(), make_forward=make_forward
    )


def config_for(paths, **changes):
    settings = {
        "datasets": tuple(paths),
        "sites": ("blocks.1.resid_post",),
        "batch_tokens": 256,
        **changes,
    }
    return stage.ExtractConfig(**settings)


def expected(texts, site, max_length=1024):
    """Recomputed prompt by prompt, with no batches."""
    tokenizer = fakes.FakeTokenizer()
    ids = [[1, *tokenizer.encode(text)[-(max_length - 1) :]] for text in texts]
    return [fakes.activations(row, site) for row in ids]


def tree(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture
def paths(tmp_path):
    return [fakes.write_csv(tmp_path, fakes.dataset(name, 60)) for name in ("a", "b", "c")]


def test_rows_equal_the_unbatched_recomputation(tmp_path, paths):
    config = config_for(paths[:2], token_sites=("blocks.2.resid_post",), token_datasets=paths[1:2])
    store = run(config, tmp_path)
    texts = fakes.dataset("a", 60).texts + fakes.dataset("b", 60).texts
    last = np.stack([x_TD[-1] for x_TD in expected(texts, SITE)])
    np.testing.assert_array_equal(store.read(SITE, texts), last)
    # Tokens: only dataset b's, BOS left out, rounded to bfloat16.
    texts = list(dict.fromkeys(fakes.dataset("b", 60).texts))
    position = {key: row for row, key in enumerate(store.prompt_hashes())}
    prompt_N, x_ND = store.token_prompt(), store.read_tokens(OTHER, slice(None))
    assert store.num_tokens(OTHER) == len(prompt_N) == len(x_ND)
    assert store.num_tokens(SITE) == 0
    total = 0
    for text, x_TD in zip(texts, expected(texts, OTHER), strict=True):
        row = position[store_room.sha256_of([text])[0].hex()]
        found_TD = x_ND[prompt_N == row]
        np.testing.assert_array_equal(found_TD, x_TD[1:].astype(jnp.bfloat16).astype(np.float32))
        total += len(found_TD)
    assert total == len(x_ND)


def test_long_prompts_lose_their_beginning(tmp_path, paths):
    store = run(config_for(paths[:1], max_length=8), tmp_path)
    texts = fakes.dataset("a", 60).texts
    assert max(len(text.split()) for text in texts) > 8
    last = np.stack([x_TD[-1] for x_TD in expected(texts, SITE, max_length=8)])
    np.testing.assert_array_equal(store.read(SITE, texts), last)


def counting_forward(seen):
    def make(model, sites, pooling):
        inner = fakes.make_forward(model, sites, pooling)

        def forward(tokens_BT, length_B):
            seen.append(int((length_B > 0).sum()))
            return inner(tokens_BT, length_B)

        return forward

    return make


def test_each_prompt_is_run_once_and_a_second_dataset_adds_the_missing(tmp_path, paths):
    twice = fakes.dataset("a", 60)
    copy = fakes.write_csv(tmp_path, fakes.TextDataset(**{**vars(twice), "name": "copy"}))
    seen = []
    run(config_for([paths[0], copy]), tmp_path, make_forward=counting_forward(seen))
    distinct = len(set(twice.texts))
    assert sum(seen) == distinct
    seen.clear()
    run(config_for([paths[0], paths[1]]), tmp_path, make_forward=counting_forward(seen))
    assert sum(seen) == len({*fakes.dataset("b", 60).texts} - {*twice.texts})
    seen.clear()
    # Another site: the same prompts again, for that array alone.
    store = run(
        config_for([paths[0]], sites=("blocks.1.resid_post", "blocks.2.resid_post")),
        tmp_path,
        make_forward=counting_forward(seen),
    )
    assert sum(seen) == distinct
    last = np.stack([x_TD[-1] for x_TD in expected(twice.texts, OTHER)])
    np.testing.assert_array_equal(store.read(OTHER, twice.texts), last)
    assert store.digest == store_room.ActivationStore.open(store.root).digest


@pytest.mark.parametrize("post_norms", [False, True])
def test_what_a_module_puts_out_is_stored_as_the_tensor_that_it_is(tmp_path, paths, post_norms):
    model, seen = fakes.FakeModel(post_norms=post_norms), []
    names = ("model.layers.1.mlp.output", "blocks.1.mlp_out")
    store = stage.extract(
        config_for(paths[:1], sites=names, token_sites=names[:1]),
        tmp_path,
        **{"model": model, "make_forward": counting_forward(seen)},
    )
    kept = {"blocks.1.mlp_out"} | ({"blocks.1.mlp_module_out"} if post_norms else set())
    assert {str(site) for site, _ in store.taps} == kept
    # Nothing is left to do, whichever name asks.
    seen.clear()
    for name in names:
        config = config_for(paths[:1], sites=(name,))
        stage.extract(
            config, tmp_path, identify=lambda source, dtype: model, make_forward=fakes.make_forward
        )
        request = stage._request(config).stored(model)
        assert not request.missing(store)
    assert not seen


def test_a_site_of_another_width_is_stored_and_extracted(tmp_path, paths):
    config = config_for(paths[:1], sites=("blocks.1.resid_post", "blocks.2.attn.hook_z"))
    config = dataclasses.replace(config, token_sites=("blocks.2.attn_z",))
    store = run(config, tmp_path)
    texts, heads = fakes.dataset("a", 60).texts, Site(block=2, stream="attn_z")
    ids = [[1, *fakes.FakeTokenizer().encode(text)] for text in texts]
    wanted = [fakes.activations(row, heads, 48) for row in ids]
    np.testing.assert_array_equal(store.read(heads, texts), [x_TD[-1] for x_TD in wanted])
    assert store.read(heads, []).shape == (0, 48)
    assert store.read(SITE, texts).shape == (60, 32)
    assert store.read_tokens(heads, slice(0, 9)).shape == (9, 48)
    got = in_memory.extract_texts(
        fakes.FakeModel(), texts, [heads, SITE], make_forward=fakes.make_forward
    )
    np.testing.assert_array_equal(got[heads], [x_TD[-1] for x_TD in wanted])
    assert got[SITE].shape == (60, 32)


def test_a_mesh_reaches_the_model_and_the_fingerprint(tmp_path, paths, monkeypatch):
    seen = []

    def load_model(source, dtype, mesh=None):
        seen.append(mesh and dict(mesh.shape))
        return fakes.FakeModel()

    monkeypatch.setattr(stage.models, "load_model", load_model)
    real = {"make_forward": fakes.make_forward, "identify": None}
    config = config_for(paths[:1], mesh=(2, 1))
    store = stage.extract(config, tmp_path / "two", **real)
    stage.extract(config_for(paths[:1]), tmp_path / "one", **real)
    assert seen == [{"data": 2, "model": 1}, None]
    assert store.fingerprint["mesh"] == [2, 1]
    with pytest.raises(store_room.StoreError, match="mesh: wanted None"):
        stage.extract(config_for(paths[:1]), tmp_path / "two", **real)


def test_a_finished_store_is_recognised_without_the_model(tmp_path, paths, monkeypatch):
    config = config_for(paths[:1])
    run(config, tmp_path)
    loaded = []
    real = {"make_forward": fakes.make_forward}
    monkeypatch.setattr(
        stage.models, "load_model", lambda *_: loaded.append(1) or fakes.FakeModel()
    )
    quick = {**real, "identify": lambda source, dtype: fakes.FakeModel()}
    assert len(stage.extract(config, tmp_path, **quick).prompt_hashes()) > 0
    with pytest.raises(store_room.StoreError, match="max_length: wanted 9, got 1024"):
        stage.extract(config_for(paths[:1], max_length=9), tmp_path, **quick)
    assert not loaded
    # Without `identify`, or with prompts missing, the model is loaded.
    stage.extract(config, tmp_path, **real, identify=None)
    stage.extract(config_for(paths[:2]), tmp_path, **quick)
    assert len(loaded) == 2


def test_another_fingerprint_is_refused_by_field(tmp_path, paths):
    run(config_for(paths[:1]), tmp_path)
    before = tree(tmp_path / "activations")
    with pytest.raises(store_room.StoreError, match="weights: wanted 'other', got 'fake weights'"):
        run(config_for(paths), tmp_path, model=fakes.FakeModel(fingerprint="other"))
    assert tree(tmp_path / "activations") == before


def test_bad_numbers_name_the_prompt_and_spare_what_was_done(tmp_path, paths):
    poisoned = max(fakes.dataset("a", 60).texts, key=lambda text: len(text.split()))
    target = [1, *fakes.FakeTokenizer().encode(poisoned)]

    def make(model, sites, pooling):
        inner = fakes.make_forward(model, sites, pooling)

        def forward(tokens_BT, length_B):
            values = inner(tokens_BT, length_B)
            hit_B = [row[: len(target)].tolist() == target for row in tokens_BT]
            return {key: np.where(np.array(hit_B)[:, None], np.nan, x) for key, x in values.items()}

        return forward

    with pytest.raises(ValueError, match="not finite") as caught:
        run(config_for(paths[:1]), tmp_path, make_forward=make)
    assert poisoned[:40] in str(caught.value)
    seen = []
    run(config_for(paths[:1]), tmp_path, make_forward=counting_forward(seen))
    assert 0 < sum(seen) < len(set(fakes.dataset("a", 60).texts))


def test_unknown_names_are_refused(tmp_path, paths):
    with pytest.raises(ValueError, match="a site is"):
        run(config_for(paths, sites=("blocks.x",)), tmp_path)
    with pytest.raises(ValueError, match="`token_datasets` must be among"):
        run(config_for(paths, token_datasets=("elsewhere",)), tmp_path)


def test_extract_texts_keeps_order_and_repeats():
    texts = ["one two three", "four", "one two three", "five six"]
    found = in_memory.extract_texts(
        fakes.FakeModel(), texts, ["blocks.1.resid_post"], make_forward=fakes.make_forward
    )
    last = np.stack([x_TD[-1] for x_TD in expected(texts, SITE)])
    np.testing.assert_array_equal(found[SITE], last)


def test_device_arrays_are_accepted(tmp_path, paths):
    def make(model, sites, pooling):
        inner = fakes.make_forward(model, sites, pooling)
        return lambda *args: jax.tree.map(jnp.asarray, inner(*args))

    store = run(config_for(paths[:1]), tmp_path, make_forward=make)
    texts = fakes.dataset("a", 60).texts
    last = np.stack([x_TD[-1] for x_TD in expected(texts, SITE)])
    np.testing.assert_array_equal(store.read(SITE, texts), last)


class Crashes:
    """Talks to `tests/crash_runner.py`."""

    def __init__(self, log):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/crash_runner.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            text=True,
        )

    def run(self, workdir, datasets, token_datasets=(), after=None, at=None) -> str:
        order = {"workdir": str(workdir), "datasets": datasets, "after": after, "at": at}
        self.process.stdin.write(json.dumps({**order, "token_datasets": token_datasets}) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def run_until_done(self, workdir, *args, kills) -> int:
        """Kills run after run, then lets one finish; returns how many were killed."""
        killed = 0
        for kill in kills:
            state = self.run(workdir, *args, **kill)
            assert state in ("killed", "done")
            killed += state == "killed"
            if state == "done":
                break
        assert self.run(workdir, *args) == "done"
        return killed


@pytest.fixture(scope="module")
def crashes(tmp_path_factory):
    with (tmp_path_factory.mktemp("log") / "stderr").open("w") as log:
        crashes = Crashes(log)
        with crashes.process:
            yield crashes
            crashes.process.stdin.close()


@pytest.fixture(scope="module")
def reference(crashes, tmp_path_factory):
    """Two runs that nobody disturbs: two datasets, then a third; and how long the second took."""
    folder = tmp_path_factory.mktemp("reference")
    paths = [fakes.write_csv(folder, fakes.dataset(name, 60)) for name in ("a", "b", "c")]
    assert crashes.run(folder, paths[:2], paths[:1]) == "done"
    first = tree(folder / "activations")
    start = time.monotonic()
    assert crashes.run(folder, paths, paths) == "done"
    return paths, first, tree(folder / "activations"), time.monotonic() - start


def test_same_bytes_after_kills_at_random_moments(crashes, reference, tmp_path):
    paths, first, both, seconds = reference
    assert len(first) >= 20
    draw, killed = random.Random(0), 0
    for trial in range(4):
        kills = [{"after": draw.uniform(0.1, 0.8) * seconds} for _ in range(3)]
        workdir = tmp_path / str(trial)
        killed += crashes.run_until_done(workdir, paths[:2], paths[:1], kills=kills)
        assert tree(workdir / "activations") == first
        killed += crashes.run_until_done(workdir, paths, paths, kills=kills)
        assert tree(workdir / "activations") == both
    assert killed > 0


@pytest.mark.parametrize("stride", [1, 7, 23])
def test_same_bytes_after_dying_at_each_ordered_step(crashes, reference, tmp_path, stride):
    """Each run gets `stride` more steps than the one before: deaths before every kind of call."""
    paths, first, both, _ = reference
    kills = [{"at": step} for step in range(0, 40 * stride, stride)]
    assert crashes.run_until_done(tmp_path, paths[:2], paths[:1], kills=kills) > 1
    assert tree(tmp_path / "activations") == first
    assert crashes.run_until_done(tmp_path, paths, paths, kills=kills) > 1
    assert tree(tmp_path / "activations") == both


def test_an_unfinished_run_gives_way_to_another_set_of_datasets(crashes, reference, tmp_path):
    paths, *_ = reference
    assert crashes.run(tmp_path, paths[:2], paths[:1], at=60) == "killed"
    assert crashes.run(tmp_path, paths[2:]) == "done"
    assert crashes.run(tmp_path, paths[:2], paths[:1]) == "done"
    store = store_room.ActivationStore.open(tmp_path / "activations")
    texts = [text for name in ("c", "a", "b") for text in fakes.dataset(name, 60).texts]
    for site in (SITE, OTHER):
        last = np.stack([x_TD[-1] for x_TD in expected(texts, site)])
        np.testing.assert_array_equal(store.read(site, texts), last)
    tokens = {text: len(text.split()) for text in fakes.dataset("a", 60).texts}
    assert store.num_tokens(OTHER) == sum(tokens.values())
