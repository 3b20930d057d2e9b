"""Everything that a stage reads back: a flipped byte or an absent file is an error, never another number."""

import dataclasses
import functools
import logging
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jaxprobe import checkpoints, records, results, sealed
from jaxprobe.base import POOLINGS, Site
from jaxprobe.checkpoints import native, training_state
from jaxprobe.experiments import config
from jaxprobe.extraction.request import Request
from jaxprobe.features import kept
from jaxprobe.jobs import Need
from jaxprobe.place import Place
from jaxprobe.runs import plans
from jaxprobe.stages import extract
from jaxprobe.store import ActivationStore, StoreError, StoreWriter, checksums, layout
from jaxprobe.store import arrays as store_arrays
from jaxprobe.workdir import Workdir
from jaxprobe.workspace import Workspace
from tests import fake_results, fakes

SITE = Site.parse("blocks.1.resid_post")
IDENTITY = {"seed": 1, "sae": "a"}
NUM_ROWS = 9  # of `some_latents`
REFUSED = (StoreError, ValueError, FileNotFoundError, results.TableError)
EDGE, INSIDE = 6, 14  # flipped bytes at a file's two ends, and in between
SHARD_BYTES = dict.fromkeys(POOLINGS, 1 << 12) | {
    "tokens": 1 << 14
}  # small files: several shards of each array


def request(*names, poolings=("last", "tokens")):
    taps = tuple((SITE, pooling) for pooling in poolings)
    return Request.of([Need(texts=texts_of(name), taps=taps) for name in names])


def run_extract(folder, *names, batch_tokens=512, poolings=("last", "tokens"), **changes):
    """An extraction of these datasets into the folder's `activations`."""
    common = config.Common(
        model="fake", dtype="float32", extract=config.Extract(batch_tokens=batch_tokens)
    )
    parts = {"model": fakes.FakeModel(), "make_forward": fakes.make_forward, **changes}
    place = Place.parse(folder) / "activations"
    return extract.run(common, request(*names, poolings=poolings), place, **parts)


@functools.cache
def texts_of(name):
    return fakes.dataset(name, 60).texts


def read_store(root) -> list[np.ndarray]:
    """All that later stages read of a store."""
    store = ActivationStore.open(root)
    texts = [text for name in ("a", "b") for text in texts_of(name)]
    tokens = store.read_tokens(SITE, slice(0, store.num_tokens(SITE)))
    alone = store.read_tokens(SITE, np.arange(0, len(tokens), 7))
    return [store.read(SITE, texts), tokens, alone, store.token_prompt()]


def some_latents() -> kept.DatasetLatents:
    draw = np.random.default_rng(0)
    z_NU = draw.normal(size=(NUM_ROWS, 6)).astype(np.float32) * (draw.random((NUM_ROWS, 6)) < 0.5)
    index_PK = np.array([[0, 2], [3, 5]], np.int32)
    return kept.DatasetLatents(
        rows=kept.Columns.of([z_NU], NUM_ROWS),
        top_PK=index_PK,
        random_PK=index_PK[:, ::-1],
        latent_U=np.arange(6, dtype=np.int32),
    )


def read_latents(path) -> list[np.ndarray]:
    read = kept.read(Place.parse(path), IDENTITY, NUM_ROWS)
    return [read.rows.dense(np.arange(6)), read.top_PK, read.random_PK, read.latent_U]


def read_sae(path) -> list:
    loaded = checkpoints.load_sae(path)
    return [*vars(loaded.sae).values(), loaded.id, loaded.expected_l0, loaded.metadata]


STATE = {"w": jnp.arange(6.0).reshape(2, 3), "step": jnp.asarray(7)}


def read_state(path) -> list[np.ndarray]:
    return list(training_state.load(path, STATE, IDENTITY).values())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """One of everything: folders, and the functions that read them back."""
    root = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        # Two extractions: two segments.
        patch.setattr(store_arrays, "_SHARD_BYTES", SHARD_BYTES)
        run_extract(root, "a")
        run_extract(root, "a", "b")
    work = Workdir.parse(root)
    kept.write(work.latents / "a", IDENTITY, some_latents())
    sae = fakes.loaded_sae(SITE, d_sae=8)
    checkpoints.save_sae(root / "saes", sae.sae, {"id": "x", "site": str(SITE), "expected_l0": 3.5})
    training_state.save(root / "state" / "state.safetensors", STATE, IDENTITY)
    scored = results.Scored(
        rows=fake_results.rows()[:2],
        metrics={"log_loss": [0.5, 0.25]},
        about={"record": "x", "chosen": [{"latent": 3}]},
    )
    results.write_job(work.jobs / "a-1.parquet", scored)
    name = records.keep(work, fake_results.run_record())
    plans.write(work, CONFIG, None, record=name, objects=["a-1.parquet"], facts={"leaks": {}})
    begun = Workdir.parse(root / "begun")
    Workspace(begun).begin()
    return {
        root / "activations": read_store,
        root / "latents": lambda at: read_latents(at / "a"),
        root / "saes": read_sae,
        root / "state": lambda at: read_state(at / "state.safetensors"),
        root / "results": lambda at: [repr(results.read_job(Place.parse(at) / "a-1.parquet"))],
        root / "records": lambda at: [records.read(Workdir.parse(at.parent), name)],
        root / "plans": lambda at: [
            repr(plans.chosen(plans.read_all(Workdir.parse(at.parent)), CONFIG, work))
        ],
        root / "begun": lambda at: [Workspace(Workdir.parse(at)).fit_dtype("auto")],
    }


CONFIG = {"model": "fake", "seed": 1}


def read_back(written):
    """(file, folder, read) of every file that is read back."""
    for folder, read in written.items():
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name != ".lock":
                yield path, folder, read


def same(found, wanted) -> bool:
    return len(found) == len(wanted) and all(
        np.array_equal(one, other) if hasattr(one, "shape") else one == other
        for one, other in zip(found, wanted, strict=True)
    )


def test_a_flipped_byte_anywhere_is_an_error_with_the_files_name(written):
    draw = np.random.default_rng(0)
    flips = harmless = 0
    for path, folder, read in read_back(written):
        content, wanted = path.read_bytes(), read(folder)
        size = len(content)
        inside = draw.integers(EDGE, size - EDGE, INSIDE).tolist()
        for position in sorted({*range(EDGE), *range(size - EDGE, size), *inside}):
            damaged = bytearray(content)
            damaged[position] ^= 1 << int(draw.integers(8))
            path.write_bytes(damaged)
            flips += 1
            try:
                found = read(folder)
            except REFUSED as error:
                assert path.name in str(error) or str(folder) in str(error), error
            else:
                assert same(found, wanted), f"byte {position} of {path}"
                books = path.name == "zarr.json" or path.suffix == ".parquet"
                assert books or "c" in path.parts, f"byte {position} of {path}"
                harmless += 1
        path.write_bytes(content)
        assert same(read(folder), wanted)
    assert flips > 300
    assert harmless < flips / 20  # in spaces of zarr.json, in what Parquet says that nobody reads


def test_an_absent_file_is_an_error(written):
    for path, folder, read in read_back(written):
        if path.name == "begun.json":
            continue  # then this start is the first
        hidden = path.rename(path.with_name(path.name + "-hidden"))
        with pytest.raises(REFUSED):
            read(folder)
        hidden.rename(path)
        read(folder)


@pytest.fixture
def store(written, tmp_path):
    """A copy of the store to spoil."""
    (root,) = (folder for folder in written if folder.name == "activations")
    return Path(shutil.copytree(root, tmp_path / "activations"))


def shards_of(store, pooling):
    return [store / str(SITE) / pooling / "c" / number / "0" for number in ("0", "1")]


def swap(one, other):
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)


@pytest.mark.parametrize("pooling", ["last", "tokens"])
def test_a_whole_file_in_the_wrong_place_is_an_error(store, pooling, tmp_path):
    # Each of the two is whole and satisfies its own checksums.
    swap(*shards_of(store, pooling))
    with pytest.raises(StoreError, match=rf"of {SITE}/{pooling} .*not the ones that were written"):
        read_store(store)
    swap(*shards_of(store, pooling))
    swap(
        checksums.path_of(Place.parse(store), 0).local,
        checksums.path_of(Place.parse(store), 1).local,
    )
    with pytest.raises(StoreError, match="belongs to another store or segment"):
        read_store(store)


def test_another_runs_files_are_an_error(store, tmp_path, monkeypatch):
    """The same prompts through another model: every file fits but for what is in it."""
    monkeypatch.setattr(store_arrays, "_SHARD_BYTES", SHARD_BYTES)

    def forward(*arguments):
        inner = fakes.make_forward(*arguments)
        return lambda *batch: {tap: 2 * x for tap, x in inner(*batch).items()}

    model = fakes.FakeModel(fingerprint="other weights")
    for chosen in ("a", "ab"):
        run_extract(tmp_path / "other", *chosen, model=model, make_forward=forward)
    other = tmp_path / "other" / "activations"
    names = {str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()}
    assert names == {str(path.relative_to(other)) for path in other.rglob("*") if path.is_file()}
    wanted = read_store(store)
    for name in sorted(names - {".lock"}):
        content = (store / name).read_bytes()
        if content == (other / name).read_bytes():
            continue
        shutil.copy(other / name, store / name)
        with pytest.raises(StoreError):
            read_store(store)
        (store / name).write_bytes(content)
    # All arrays and their checksums together: the manifest knows better.
    for name in names:
        if name.startswith(str(SITE)) or name.endswith(".rows"):
            shutil.copy(other / name, store / name)
    with pytest.raises(StoreError, match="another store"):
        read_store(store)
    shutil.copytree(other, store, dirs_exist_ok=True)
    assert not same(read_store(store), wanted)


def test_a_resumed_run_does_not_build_on_damaged_rows(store):
    last = sorted((store / str(SITE) / "last" / "c").iterdir(), key=lambda at: int(at.name))[-1]
    shutil.rmtree(last)  # part-filled: its rows would be read back and written again
    with pytest.raises(StoreError, match="cannot be read"):
        run_extract(store.parent, "a", "b", "c")


def test_rows_of_zeros_are_rows(tmp_path):
    """What is stored and zero is read; nothing is left out because it equals the fill value."""

    def forward(*arguments):
        inner = fakes.make_forward(*arguments)
        return lambda *batch: {tap: np.zeros_like(x) for tap, x in inner(*batch).items()}

    store = run_extract(tmp_path, "a", make_forward=forward)
    assert not store.read(SITE, texts_of("a")).any()
    shutil.rmtree(tmp_path / "activations" / str(SITE) / "last" / "c")
    with pytest.raises(StoreError, match="is missing"):
        ActivationStore.open(store.root).read(SITE, texts_of("a"))


def as_format_1(store: Path) -> None:
    """Rewrites a store's books as the first version wrote them."""
    fingerprint, progress = (
        layout.read_manifest(Place.parse(store)),
        layout.read_progress(Place.parse(store)),
    )
    told = {"format": 1, "fingerprint": fingerprint}
    (store / "manifest.json").write_bytes(layout._json(told))
    entries = [
        {
            "arrays": [layout.tap_name(tap) for tap in segment.taps],
            "prompts": len(segment.tokens_N),
            "batches": segment.num_batches,
            "committed_batches": committed,
        }
        for segment, committed in zip(progress.segments, progress.committed, strict=True)
    ]
    (store / "progress.json").write_bytes(layout._json({"segments": entries}))
    for path in (store / "segments").glob("*.rows"):
        path.unlink()


def test_a_store_of_the_first_format_is_read_and_added_to(store, caplog):
    wanted, digest = read_store(store), ActivationStore.open(store).digest
    as_format_1(store)
    with caplog.at_level(logging.WARNING):
        assert same(read_store(store), wanted)
    assert "without checksums" in caplog.text
    assert ActivationStore.open(store).digest == digest  # what was made from it stays good
    # What is added has checksums; what was there is still read.
    added = run_extract(store.parent, "a", "b", "c")
    assert added._checked == (False, False, True)
    assert same(read_store(store)[:1], wanted[:1])
    assert (added.read(SITE, texts_of("c")) != 0).any()
    path = checksums.path_of(Place.parse(store), 2).local
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(StoreError, match=r"000002\.rows"):
        ActivationStore.open(store).read(SITE, texts_of("c"))


def test_an_unfinished_segment_of_the_first_format_is_ended_and_gone_on_with(tmp_path):
    seen = []

    def dies(*arguments):
        inner = fakes.make_forward(*arguments)

        def forward(*batch):
            seen.append(batch)
            if len(seen) == 4:
                raise KeyboardInterrupt
            return inner(*batch)

        return forward

    small = {"batch_tokens": 128, "poolings": ("last",)}
    with pytest.raises(KeyboardInterrupt):
        run_extract(tmp_path, "a", **small, make_forward=dies)
    root = tmp_path / "activations"
    assert layout.read_progress(Place.parse(root)).unfinished
    as_format_1(root)
    store = run_extract(tmp_path, "a", **small)
    assert store._checked == (False, True)
    texts = texts_of("a")
    encode = fakes.FakeTokenizer().encode
    expected = [fakes.activations([1, *encode(text)], SITE)[-1] for text in texts]
    np.testing.assert_array_equal(store.read(SITE, texts), expected)


def test_an_array_of_another_number_format_is_not_written_into(store):
    (store / "manifest.json").unlink()
    fingerprint = {"d_model": 32, "token_dtype": "float32"}
    keys = np.zeros((1, 32), np.uint8)
    segment = layout.Segment(
        taps=((SITE, "tokens"),),
        sha256_N=keys,
        tokens_N=np.ones(1, np.int32),
        batch_N=np.zeros(1, np.int32),
    )
    with StoreWriter(store, fingerprint) as writer, pytest.raises(StoreError, match="data_type"):
        writer.begin(segment)


def test_damaged_latents_are_made_again_and_not_read(tmp_path):
    path = tmp_path / "latents" / "a"
    place = Place.parse(path)
    kept.write(place, IDENTITY, some_latents())
    assert kept.is_done(place, IDENTITY)
    assert not kept.is_done(place, {**IDENTITY, "seed": 2})
    with pytest.raises(ValueError, match=r"made from another SAE.*run the encode stage again"):
        kept.read(place, {**IDENTITY, "seed": 2}, NUM_ROWS)
    content = bytearray(path.read_bytes())
    content[-5] ^= 128  # a sign
    path.write_bytes(content)
    assert not kept.is_done(place, IDENTITY)
    with pytest.raises(ValueError, match=r"does not hold what was written.*run the encode stage"):
        kept.read(place, IDENTITY, NUM_ROWS)
    arrays = {"latent_U": np.arange(3)}  # as a former version wrote them, without a digest
    path.write_bytes(safetensors.numpy.save(arrays, metadata={"identity": "{}"}))
    assert not kept.is_done(place, IDENTITY)


def test_entries_that_leave_their_matrix_are_refused(tmp_path):
    """Whole and sealed, and still not to be believed."""
    place, whole = Place.parse(tmp_path / "a"), some_latents()
    for field, value in (
        ("row_E", np.full_like(whole.rows.row_E, 9)),
        ("row_E", np.full_like(whole.rows.row_E, -1)),
        ("start_C", whole.rows.start_C[::-1].copy()),
        ("start_C", whole.rows.start_C[:-1]),
        ("value_E", whole.rows.value_E[:-1]),
    ):
        rows = dataclasses.replace(whole.rows, **{field: value})
        kept.write(place, IDENTITY, dataclasses.replace(whole, rows=rows))
        with pytest.raises(ValueError, match="entries are outside the matrix"):
            kept.read(place, IDENTITY, NUM_ROWS)


def test_rows_that_take_no_bytes_are_not_believed(tmp_path):
    """A matrix of zeros is as short a file with a billion rows."""
    place, whole = Place.parse(tmp_path / "a"), some_latents()
    rows = dataclasses.replace(whole.rows, num_rows=1 << 40)
    kept.write(place, IDENTITY, dataclasses.replace(whole, rows=rows))
    with pytest.raises(ValueError, match="1099511627776 rows, but its dataset 9"):
        kept.read(place, IDENTITY, NUM_ROWS)


def test_an_sae_of_the_first_format_is_read_with_a_warning(tmp_path, caplog):
    sae = fakes.loaded_sae(SITE, d_sae=8)
    arrays = {
        name: np.asarray(getattr(sae.sae, field)) for name, field in native._keys(sae.sae).items()
    }
    header = '{"format_version": 1, "architecture": "jump_relu", "id": "old"%s}'
    path = tmp_path / "sae.safetensors"
    path.write_bytes(safetensors.numpy.save(arrays, metadata={"jaxprobe": header % ""}))
    with caplog.at_level(logging.WARNING):
        loaded = checkpoints.load_sae(path)
    assert "without a checksum" in caplog.text
    np.testing.assert_array_equal(loaded.sae.W_enc_DS, sae.sae.W_enc_DS)
    # Saved again, with all that the file said, it has one.
    again = checkpoints.load_sae(checkpoints.save_sae(tmp_path / "new", loaded, loaded.metadata))
    assert again.metadata["format_version"] == 2
    # A digest is believed in any version.
    told = header % f', "{sealed.KEY}": "{"0" * 64}"'
    path.write_bytes(safetensors.numpy.save(arrays, metadata={"jaxprobe": told}))
    with pytest.raises(ValueError, match="does not hold what was written"):
        checkpoints.load_sae(path)


def test_a_record_that_a_person_edited_is_refused_by_name(tmp_path):
    work = Workdir.parse(tmp_path)
    name = records.keep(work, fake_results.run_record())
    assert records.keep(work, fake_results.run_record()) == name  # named by what it says
    path = tmp_path / "records" / f"{name}.json"
    path.write_text(path.read_text().replace("converged", "published"))
    with pytest.raises(ValueError, match=rf"{name}\.json .*restore it from a copy"):
        records.read(work, name)
