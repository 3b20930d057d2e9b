"""Extraction on fakes: right rows, each prompt once, and the same bytes however often a run is killed."""

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
from jaxprobe.experiments import config
from jaxprobe.extraction import in_memory
from jaxprobe.extraction.request import Request
from jaxprobe.jobs import Need
from jaxprobe.place import Place
from jaxprobe.stages import extract as stage
from tests import fakes

ROOT = Path(__file__).parents[2]
SITE, OTHER = Site(block=1, stream="resid_post"), Site(block=2, stream="resid_post")
LAST = ((SITE, "last"),)


def config_for(**changes):
    """The fake's config, with keys of its `extract` section in place of the defaults."""
    settings = {"batch_tokens": 256, **changes}
    return config.Common(model="fake", dtype="float32", extract=config.Extract(**settings))


def request_for(*names, taps=LAST, more=()):
    """The prompts of these datasets at these sites, and further needs."""
    needs = [Need(texts=fakes.dataset(name, 60).texts, taps=tuple(taps)) for name in names]
    return Request.of([*needs, *more])


def run(request, workdir, job=None, **changes):
    """One extraction on the fake, which knows its model unless the changes say otherwise."""
    parts = {"model": fakes.FakeModel(), "make_forward": fakes.make_forward, **changes}
    return stage.run(job or config_for(), request, Place.parse(workdir) / "activations", **parts)


def expected(texts, site, max_length=1024):
    """Recomputed prompt by prompt, with no batches."""
    tokenizer = fakes.FakeTokenizer()
    ids = [[1, *tokenizer.encode(text)[-(max_length - 1) :]] for text in texts]
    return [fakes.activations(row, site) for row in ids]


def tree(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def last_of(texts, site, **changes):
    return np.stack([x_TD[-1] for x_TD in expected(texts, site, **changes)])


def test_rows_equal_the_unbatched_recomputation(tmp_path):
    tokens = Need(texts=fakes.dataset("b", 60).texts, taps=((OTHER, "tokens"),))
    store = run(request_for("a", "b", more=[tokens]), tmp_path)
    texts = fakes.dataset("a", 60).texts + fakes.dataset("b", 60).texts
    np.testing.assert_array_equal(store.read(SITE, texts), last_of(texts, SITE))
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


def test_long_prompts_lose_their_beginning(tmp_path):
    store = run(request_for("a"), tmp_path, config_for(max_length=8))
    texts = fakes.dataset("a", 60).texts
    assert max(len(text.split()) for text in texts) > 8
    np.testing.assert_array_equal(store.read(SITE, texts), last_of(texts, SITE, max_length=8))


def counting_forward(seen):
    def make(model, sites, pooling):
        inner = fakes.make_forward(model, sites, pooling)

        def forward(tokens_BT, length_B):
            seen.append(int((length_B > 0).sum()))
            return inner(tokens_BT, length_B)

        return forward

    return make


def test_each_prompt_is_run_once_and_a_second_dataset_adds_the_missing(tmp_path):
    twice, seen = fakes.dataset("a", 60), []
    again = Need(texts=(*twice.texts, *twice.texts[:9]), taps=LAST)
    run(request_for("a", more=[again]), tmp_path, make_forward=counting_forward(seen))
    distinct = len(set(twice.texts))
    assert sum(seen) == distinct
    seen.clear()
    run(request_for("a", "b"), tmp_path, make_forward=counting_forward(seen))
    assert sum(seen) == len({*fakes.dataset("b", 60).texts} - {*twice.texts})
    seen.clear()
    # Another site: the same prompts again, for that array alone.
    both = request_for("a", taps=(*LAST, (OTHER, "last")))
    store = run(both, tmp_path, make_forward=counting_forward(seen))
    assert sum(seen) == distinct
    np.testing.assert_array_equal(store.read(OTHER, twice.texts), last_of(twice.texts, OTHER))
    assert store.digest == store_room.ActivationStore.open(store.root).digest


def test_needs_of_several_sites_and_datasets_are_each_met_and_no_more(tmp_path):
    """What one dataset is read for is not stored for another."""
    seen = []
    mixed = [
        Need(texts=fakes.dataset("a", 60).texts, taps=((SITE, "last"), (OTHER, "last"))),
        Need(texts=fakes.dataset("b", 60).texts, taps=((OTHER, "last"),)),
    ]
    request = Request.of(mixed)
    assert len(request.texts) == len(request.hashes)
    assert list(request.hashes) == store_room.sha256_of(request.texts)
    store = run(request, tmp_path, make_forward=counting_forward(seen))
    assert sum(seen) == len(request.texts)
    own = {name: {*fakes.dataset(name, 60).texts} for name in ("a", "b")}
    holds = {site: store.holds((site, "last"), request.hashes).sum() for site in (SITE, OTHER)}
    assert holds == {SITE: len(own["a"]), OTHER: len(own["a"] | own["b"])}
    with pytest.raises(store_room.StoreError, match="run the extract stage"):
        store.read(SITE, fakes.dataset("b", 60).texts)
    place = Place.parse(tmp_path) / "activations"
    more = Request.of([Need(texts=fakes.dataset("b", 60).texts, taps=LAST)])
    assert not request.outstanding(place)
    assert {*more.outstanding(place)} == own["b"] - own["a"]
    assert len(more.outstanding(Place.parse(tmp_path) / "none")) == len(own["b"])
    with pytest.raises(ValueError, match="names no site or no dataset"):
        Request.of([])


@pytest.mark.parametrize("post_norms", [False, True])
def test_what_a_module_puts_out_is_stored_as_the_tensor_that_it_is(tmp_path, post_norms):
    model, seen = fakes.FakeModel(post_norms=post_norms), []
    sites = [Site.parse(name) for name in ("model.layers.1.mlp.output", "blocks.1.mlp_out")]
    taps = [(site, "last") for site in sites] + [(sites[0], "tokens")]
    counted = {"model": model, "make_forward": counting_forward(seen)}
    store = run(request_for("a", taps=taps), tmp_path, **counted)
    kept = {"blocks.1.mlp_out"} | ({"blocks.1.mlp_module_out"} if post_norms else set())
    assert {str(site) for site, _ in store.taps} == kept
    # Nothing is left to do, whichever name asks.
    seen.clear()
    for site in sites:
        request = request_for("a", taps=[(site, "last")])
        run(request, tmp_path, model=None, identify=lambda source, dtype: model)
        assert not request.stored(model).missing(store)
    assert not seen


def test_a_site_of_another_width_is_stored_and_extracted(tmp_path):
    heads = Site.parse("blocks.2.attn.hook_z")
    store = run(request_for("a", taps=(*LAST, (heads, "last"), (heads, "tokens"))), tmp_path)
    texts = fakes.dataset("a", 60).texts
    assert heads == Site(block=2, stream="attn_z")
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


def test_a_mesh_reaches_the_model_and_the_fingerprint(tmp_path, monkeypatch):
    seen = []

    def load_model(source, dtype, mesh=None):
        seen.append(mesh and dict(mesh.shape))
        return fakes.FakeModel()

    monkeypatch.setattr(stage.models, "load_model", load_model)
    real = {"model": None, "identify": None}
    store = run(request_for("a"), tmp_path / "two", config_for(mesh=(2, 1)), **real)
    run(request_for("a"), tmp_path / "one", **real)
    assert seen == [{"data": 2, "model": 1}, None]
    assert store.fingerprint["mesh"] == [2, 1]
    with pytest.raises(store_room.StoreError, match="mesh: wanted None"):
        run(request_for("a"), tmp_path / "two", **real)


def test_a_finished_store_is_recognised_without_the_model(tmp_path, monkeypatch):
    run(request_for("a"), tmp_path)
    loaded = []
    monkeypatch.setattr(
        stage.models, "load_model", lambda *_: loaded.append(1) or fakes.FakeModel()
    )
    quick = {"model": None, "identify": lambda source, dtype: fakes.FakeModel()}
    assert len(run(request_for("a"), tmp_path, **quick).prompt_hashes()) > 0
    with pytest.raises(store_room.StoreError, match="max_length: wanted 9, got 1024"):
        run(request_for("a"), tmp_path, config_for(max_length=9), **quick)
    # A shard takes the whole job's store where that lacks nothing.
    shared = Place.parse(tmp_path) / "activations"
    store = run(request_for("a"), tmp_path / "shard", shared=shared, **quick)
    assert str(store.root) == str(shared)
    assert not (tmp_path / "shard").exists()
    assert not loaded
    # Without `identify`, or with prompts missing, the model is loaded.
    run(request_for("a"), tmp_path, model=None, identify=None)
    run(request_for("a", "b"), tmp_path, **quick)
    assert len(loaded) == 2


def test_another_fingerprint_is_refused_by_field(tmp_path):
    run(request_for("a"), tmp_path)
    before = tree(tmp_path / "activations")
    other = fakes.FakeModel(fingerprint="other")
    with pytest.raises(store_room.StoreError, match="weights: wanted 'other', got 'fake weights'"):
        run(request_for("a", "b"), tmp_path, model=other)
    with pytest.raises(store_room.StoreError, match="weights: wanted 'other', got 'fake weights'"):
        place = Place.parse(tmp_path) / "activations"
        stage.check_same_way(config_for(), place, lambda source, dtype: other)
    assert tree(tmp_path / "activations") == before


def test_bad_numbers_name_the_prompt_and_spare_what_was_done(tmp_path):
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
        run(request_for("a"), tmp_path, make_forward=make)
    assert poisoned[:40] in str(caught.value)
    seen = []
    run(request_for("a"), tmp_path, make_forward=counting_forward(seen))
    assert 0 < sum(seen) < len(set(fakes.dataset("a", 60).texts))


def test_extract_texts_keeps_order_and_repeats():
    texts = ["one two three", "four", "one two three", "five six"]
    found = in_memory.extract_texts(
        fakes.FakeModel(), texts, ["blocks.1.resid_post"], make_forward=fakes.make_forward
    )
    np.testing.assert_array_equal(found[SITE], last_of(texts, SITE))


def test_device_arrays_are_accepted(tmp_path):
    def make(model, sites, pooling):
        inner = fakes.make_forward(model, sites, pooling)
        return lambda *args: jax.tree.map(jnp.asarray, inner(*args))

    store = run(request_for("a"), tmp_path, make_forward=make)
    texts = fakes.dataset("a", 60).texts
    np.testing.assert_array_equal(store.read(SITE, texts), last_of(texts, SITE))


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

    def run(self, workdir, datasets, tokens="", after=None, at=None) -> str:
        order = {"workdir": str(workdir), "datasets": datasets, "after": after, "at": at}
        self.process.stdin.write(json.dumps({**order, "tokens": tokens}) + "\n")
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
    assert crashes.run(folder, "ab", "a") == "done"
    first = tree(folder / "activations")
    start = time.monotonic()
    assert crashes.run(folder, "abc", "abc") == "done"
    return first, tree(folder / "activations"), time.monotonic() - start


def test_same_bytes_after_kills_at_random_moments(crashes, reference, tmp_path):
    first, both, seconds = reference
    assert len(first) >= 20
    draw, killed = random.Random(0), 0
    for trial in range(4):
        kills = [{"after": draw.uniform(0.1, 0.8) * seconds} for _ in range(3)]
        workdir = tmp_path / str(trial)
        killed += crashes.run_until_done(workdir, "ab", "a", kills=kills)
        assert tree(workdir / "activations") == first
        killed += crashes.run_until_done(workdir, "abc", "abc", kills=kills)
        assert tree(workdir / "activations") == both
    assert killed > 0


@pytest.mark.parametrize("stride", [1, 7, 23])
def test_same_bytes_after_dying_at_each_ordered_step(crashes, reference, tmp_path, stride):
    """Each run gets `stride` more steps than the one before: deaths before every kind of call."""
    first, both, _ = reference
    kills = [{"at": step} for step in range(0, 40 * stride, stride)]
    assert crashes.run_until_done(tmp_path, "ab", "a", kills=kills) > 1
    assert tree(tmp_path / "activations") == first
    assert crashes.run_until_done(tmp_path, "abc", "abc", kills=kills) > 1
    assert tree(tmp_path / "activations") == both


def test_an_unfinished_run_gives_way_to_another_set_of_datasets(crashes, tmp_path):
    assert crashes.run(tmp_path, "ab", "a", at=60) == "killed"
    assert crashes.run(tmp_path, "c") == "done"
    assert crashes.run(tmp_path, "ab", "a") == "done"
    store = store_room.ActivationStore.open(tmp_path / "activations")
    texts = [text for name in ("c", "a", "b") for text in fakes.dataset(name, 60).texts]
    for site in (SITE, OTHER):
        np.testing.assert_array_equal(store.read(site, texts), last_of(texts, site))
    tokens = {text: len(text.split()) for text in fakes.dataset("a", 60).texts}
    assert store.num_tokens(OTHER) == sum(tokens.values())
