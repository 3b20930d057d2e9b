"""Everything that a stage reads back: a flipped byte or an absent file is an error, never another number."""

import functools
import logging
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jaxprobe import checkpoints, sealed, table
from jaxprobe.base import Site
from jaxprobe.checkpoints import native, training_state
from jaxprobe.place import Place
from jaxprobe.stages import extract, latents, report, shards
from jaxprobe.store import ActivationStore, StoreError, StoreWriter, checksums, layout
from jaxprobe.store import arrays as store_arrays
from tests import fake_results, fakes

SITE = Site.parse("blocks.1.resid_post")
IDENTITY = {"seed": 1, "sae": "a"}
REFUSED = (StoreError, ValueError, FileNotFoundError, table.TableError)
EDGE, INSIDE = 6, 14  # flipped bytes at a file's two ends, and in between


def config(paths, **changes):
    return extract.ExtractConfig(
        datasets=tuple(paths),
        sites=(str(SITE),),
        token_sites=(str(SITE),),
        batch_tokens=512,
        **changes,
    )


def run_extract(paths, folder, **changes):
    return extract.extract(
        config(paths, **changes), folder, model=fakes.FakeModel(), make_forward=fakes.make_forward
    )


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


def some_latents() -> latents.DatasetLatents:
    draw = np.random.default_rng(0)
    z_NU = draw.normal(size=(9, 6)).astype(np.float32) * (draw.random((9, 6)) < 0.5)
    index_PK = np.array([[0, 2], [3, 5]], np.int32)
    columns = latents.Columns.of([z_NU], 9)
    return latents.DatasetLatents(
        rows=columns,
        shifted=latents.Columns.of([z_NU[:2]], 2),
        top_PK=index_PK,
        random_PK=index_PK[:, ::-1],
        latent_U=np.arange(6, dtype=np.int32),
    )


def read_latents(path) -> list[np.ndarray]:
    read = latents.read(path, IDENTITY)
    return [read.z_NU, read.z_MU, read.top_PK, read.random_PK, read.latent_U]


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
    paths = [fakes.write_csv(root, fakes.dataset(name, 60)) for name in ("a", "b")]
    with pytest.MonkeyPatch.context() as patch:
        # Small files: several shards of each array. Two extractions: two segments.
        patch.setattr(store_arrays, "_SHARD_BYTES", {False: 1 << 12, True: 1 << 14})
        run_extract(paths[:1], root)
        run_extract(paths, root)
    store = root / "activations"
    latents.write(root / "latents" / "a.safetensors", IDENTITY, some_latents())
    sae = fakes.loaded_sae(SITE, d_sae=8)
    checkpoints.save_sae(root / "saes", sae.sae, {"id": "x", "site": str(SITE), "expected_l0": 3.5})
    training_state.save(root / "state" / "state.safetensors", STATE, IDENTITY)
    shard = shards.Shard(index=0, count=1)
    table.append(shard.folder(root) / "results.parquet", fake_results.rows()[:1])
    shards.finish(shard, root, ["a"])
    record = root / "record" / "run.json"
    record.parent.mkdir()
    record.write_bytes(sealed.to_json({"times": {"fit": 1.5}, "solver": "converged"}))
    return {
        store: read_store,
        root / "latents": lambda at: read_latents(at / "a.safetensors"),
        root / "saes": read_sae,
        root / "state": lambda at: read_state(at / "state.safetensors"),
        record.parent: lambda at: [report.run_record(at / "run.json")],
        shard.folder(root): lambda at: [len(shards._checked(shard, at.parent, ("a",)))],
    }


def read_back(written):
    """(file, folder, read) of every file that is read back; the result table is another's business."""
    for folder, read in written.items():
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name not in (
                ".lock",
                "results.parquet",
                ".results.parquet.lock",
            ):
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
                assert path.name == "zarr.json" or "c" in path.parts, f"byte {position} of {path}"
                harmless += 1
        path.write_bytes(content)
        assert same(read(folder), wanted)
    assert flips > 300
    assert harmless < flips / 20  # in spaces of zarr.json


def test_an_absent_file_is_an_error(written):
    for path, folder, read in read_back(written):
        if path.name == "run.json":
            continue  # a report without a record says so
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
    with pytest.raises(StoreError, match=rf"of {SITE}/{pooling} .*not those that were written"):
        read_store(store)
    swap(*shards_of(store, pooling))
    swap(
        checksums.path_of(Place.parse(store), 0).local,
        checksums.path_of(Place.parse(store), 1).local,
    )
    with pytest.raises(StoreError, match="tells of another store or segment"):
        read_store(store)


def test_another_runs_files_are_an_error(store, written, tmp_path, monkeypatch):
    """The same prompts through another model: every file fits but for what is in it."""
    monkeypatch.setattr(store_arrays, "_SHARD_BYTES", {False: 1 << 12, True: 1 << 14})
    paths = [str(store.parent / f"{name}.csv") for name in ("a", "b")]
    for name in ("a", "b"):
        fakes.write_csv(store.parent, fakes.dataset(name, 60))

    def forward(*arguments):
        inner = fakes.make_forward(*arguments)
        return lambda *batch: {tap: 2 * x for tap, x in inner(*batch).items()}

    model = fakes.FakeModel(fingerprint="other weights")
    for chosen in (paths[:1], paths):
        extract.extract(config(chosen), tmp_path / "other", model=model, make_forward=forward)
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


def test_a_resumed_run_does_not_build_on_damaged_rows(store, tmp_path):
    fakes.write_csv(tmp_path, fakes.dataset("c", 60))
    more = [fakes.write_csv(tmp_path, fakes.dataset(name, 60)) for name in ("a", "b", "c")]
    last = sorted((store / str(SITE) / "last" / "c").iterdir(), key=lambda at: int(at.name))[-1]
    shutil.rmtree(last)  # part-filled: its rows would be read back and written again
    with pytest.raises(StoreError, match="cannot be read"):
        run_extract(more, store.parent)


def test_rows_of_zeros_are_rows(tmp_path):
    """What is stored and zero is read; nothing is left out because it equals the fill value."""
    path = fakes.write_csv(tmp_path, fakes.dataset("a", 60))

    def forward(*arguments):
        inner = fakes.make_forward(*arguments)
        return lambda *batch: {tap: np.zeros_like(x) for tap, x in inner(*batch).items()}

    store = extract.extract(config([path]), tmp_path, model=fakes.FakeModel(), make_forward=forward)
    assert not store.read(SITE, texts_of("a")).any()
    shutil.rmtree(store.root.local / str(SITE) / "last" / "c")
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


def test_a_store_of_the_first_format_is_read_and_added_to(store, tmp_path, caplog):
    wanted, digest = read_store(store), ActivationStore.open(store).digest
    as_format_1(store)
    with caplog.at_level(logging.WARNING):
        assert same(read_store(store), wanted)
    assert "without checksums" in caplog.text
    assert ActivationStore.open(store).digest == digest  # what was made from it stays good
    # What is added has checksums; what was there is still read.
    paths = [fakes.write_csv(tmp_path, fakes.dataset(name, 60)) for name in ("a", "b", "c")]
    added = run_extract(paths, store.parent)
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

    path = fakes.write_csv(tmp_path, fakes.dataset("a", 60))
    small = extract.ExtractConfig(datasets=(path,), sites=(str(SITE),), batch_tokens=128)
    model = fakes.FakeModel()
    with pytest.raises(KeyboardInterrupt):
        extract.extract(small, tmp_path, model=model, make_forward=dies)
    root = tmp_path / "activations"
    assert layout.read_progress(Place.parse(root)).unfinished
    as_format_1(root)
    store = extract.extract(small, tmp_path, model=model, make_forward=fakes.make_forward)
    assert store._checked == (False, True)
    texts = texts_of("a")
    expected = [fakes.activations([1, *model.tokenizer.encode(text)], SITE)[-1] for text in texts]
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
    path = tmp_path / "latents" / "a.safetensors"
    latents.write(path, IDENTITY, some_latents())
    assert latents.is_done(path, IDENTITY)
    assert not latents.is_done(path, {**IDENTITY, "seed": 2})
    content = bytearray(path.read_bytes())
    content[-5] ^= 128  # a sign
    path.write_bytes(content)
    assert not latents.is_done(path, IDENTITY)
    with pytest.raises(ValueError, match=r"does not hold what was written.*run the encode stage"):
        latents.read(path, IDENTITY)
    arrays = {"latent_U": np.arange(3)}  # as a former version wrote them, without a digest
    path.write_bytes(safetensors.numpy.save(arrays, metadata={"identity": "{}"}))
    assert not latents.is_done(path, IDENTITY)


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


def test_a_record_that_a_person_edited_says_what_to_do(tmp_path):
    path = tmp_path / "run.json"
    path.write_bytes(sealed.to_json({"solver": "converged"}))
    edited = path.read_text().replace("converged", "published")
    path.write_text(edited)
    with pytest.raises(ValueError, match=f"if you edited it, take out its '{sealed.KEY}'"):
        report.run_record(path)
    lines = [line for line in edited.splitlines() if sealed.KEY not in line]
    path.write_text("\n".join(lines).replace(",\n}", "\n}"))
    assert report.run_record(path) == {"solver": "published"}
