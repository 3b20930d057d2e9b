"""The activation store on its own: order of rows, refusals, the lock, full disks, bounded reads."""

import hashlib
import itertools
import json
import os
import resource
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxprobe import sealed
from jaxprobe.base import Site
from jaxprobe.place import Place
from jaxprobe.store import (
    ActivationStore,
    Segment,
    StoreError,
    StoreWriter,
    checksums,
    layout,
    sha256_of,
)
from jaxprobe.store import arrays as store_arrays
from jaxprobe.store import writing as store_writing

SITE = Site(block=12, stream="resid_post")
LAST, TOKENS = (SITE, "last"), (SITE, "tokens")
FINGERPRINT = {"model": "m", "d_model": 24, "token_dtype": "bfloat16", "buckets": [16, 32]}


COUNT = itertools.count()


@pytest.fixture(params=["path", "memory"])
def root(request, tmp_path):
    """Where a store may lie: a path, or memory."""
    if request.param == "path":
        return Place.parse(tmp_path) / "s"
    return Place.parse(f"memory://store_test/{next(COUNT)}") / "s"


def segment_for(texts, counts, batch_rows=7, taps=(LAST, TOKENS)) -> Segment:
    keys = np.frombuffer(b"".join(sha256_of(texts)), np.uint8).reshape(-1, 32)
    batch_N = np.arange(len(texts), dtype=np.int32) // batch_rows
    return Segment(taps=taps, sha256_N=keys, tokens_N=np.asarray(counts, np.int32), batch_N=batch_N)


def rows_of(segment, draw):
    """Random rows for each batch of a segment, and all of them put together."""
    batches = []
    for batch in range(segment.num_batches):
        chosen_N = segment.batch_N == batch
        sizes = {"last": chosen_N.sum(), "tokens": segment.tokens_N[chosen_N].sum()}
        batches.append(
            {tap: draw.normal(size=(sizes[tap[1]], 24)).astype(np.float32) for tap in segment.taps}
        )
    whole = {tap: np.concatenate([batch[tap] for batch in batches]) for tap in segment.taps}
    return batches, whole


def fill(root, texts, counts, seed=0, fingerprint=FINGERPRINT, taps=(LAST, TOKENS)):
    segment = segment_for(texts, counts, taps=taps)
    batches, whole = rows_of(segment, np.random.default_rng(seed))
    with StoreWriter(root, fingerprint) as writer:
        for rows in batches[writer.begin(segment) :]:
            writer.append(rows)
        writer.finish()
    return whole


def names(prefix, count):
    return [f"{prefix} prompt {index} ✓" for index in range(count)]


def test_rows_come_back_in_the_order_of_the_texts(root):
    texts, counts = names("a", 50), np.arange(50) % 5
    whole = fill(root, texts, counts)
    more = names("b", 33)
    added = fill(root, more, np.full(33, 2), seed=1)
    store = ActivationStore.open(root, FINGERPRINT)
    order_N = np.random.default_rng(2).integers(0, 83, 200)
    both = np.concatenate([whole[LAST], added[LAST]])
    found = store.read(SITE, [(texts + more)[index] for index in order_N])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, both[order_N])
    tokens = np.concatenate([whole[TOKENS], added[TOKENS]]).astype(jnp.bfloat16).astype(np.float32)
    assert store.num_tokens(SITE) == len(tokens) == counts.sum() + 66
    row_N = np.random.default_rng(3).integers(0, len(tokens), 70)
    np.testing.assert_array_equal(store.read_tokens(SITE, row_N), tokens[row_N])
    np.testing.assert_array_equal(store.read_tokens(SITE, slice(5, 99)), tokens[5:99])
    np.testing.assert_array_equal(store.read_tokens(SITE, slice(0, 99, 7)), tokens[0:99:7])
    expected_N = np.repeat(np.arange(83), [*counts, *[2] * 33])
    np.testing.assert_array_equal(store.token_prompt(), expected_N)
    assert store.token_prompt().dtype == np.int64
    assert store.prompt_hashes() == [key.hex() for key in sha256_of(texts + more)]
    assert store.read(SITE, []).shape == (0, 24)
    array = store_arrays.open_array(store.root, TOKENS, FINGERPRINT)
    assert [label for label in array.domain.labels] == ["token", "d_model"]


def test_float32_tokens_are_kept_to_the_bit(root):
    fingerprint = {**FINGERPRINT, "token_dtype": "float32"}
    whole = fill(root, names("a", 9), [3] * 9, fingerprint=fingerprint)
    found = ActivationStore.open(root).read_tokens(SITE, np.arange(27))
    np.testing.assert_array_equal(found, whole[TOKENS])


def test_missing_prompts_tokens_and_stores_are_named(tmp_path):
    with pytest.raises(
        StoreError, match=r"there is no activation store in .*run the extract stage"
    ):
        ActivationStore.open(tmp_path / "none")
    fill(tmp_path / "s", names("a", 9), [0] * 9)
    store = ActivationStore.open(tmp_path / "s")
    with pytest.raises(StoreError, match=r"2 of 3 prompts are not in .* the first is 'absent'"):
        store.read(SITE, [names("a", 9)[0], "absent", "also absent"])
    with pytest.raises(StoreError, match="1 of 1 prompts"):
        store.read(Site.parse("embed"), names("a", 1))
    with pytest.raises(IndexError, match=r"\[0, 0\), got 0 to 4"):
        store.read_tokens(SITE, np.arange(5))
    assert len(store.token_prompt(SITE)) == 0
    fill(tmp_path / "t", names("a", 9), [1] * 9, taps=(LAST,))
    with pytest.raises(StoreError, match="has: none; extract with `token_sites`"):
        ActivationStore.open(tmp_path / "t").token_prompt()


def test_every_differing_field_is_named(tmp_path):
    fill(tmp_path / "s", names("a", 9), [1] * 9)
    other = {**FINGERPRINT, "model": "n", "max_length": 8}
    told = r"max_length: wanted 8, got None; model: wanted 'n', got 'm'.*another work directory"
    with pytest.raises(StoreError, match=told):
        ActivationStore.open(tmp_path / "s", other)
    with pytest.raises(StoreError, match=told), StoreWriter(tmp_path / "s", other):
        pass
    # A refused opening frees the lock; tuples and lists are the same fingerprint.
    with StoreWriter(tmp_path / "s", {**FINGERPRINT, "buckets": (16, 32)}):
        pass
    manifest = tmp_path / "s" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 99}))
    with pytest.raises(StoreError, match="format 99, this version reads and writes 2"):
        ActivationStore.open(tmp_path / "s")
    manifest.write_text("{")
    with pytest.raises(StoreError, match=r"manifest\.json .* missing or damaged"):
        ActivationStore.open(tmp_path / "s")


def test_a_second_writer_is_refused_and_a_reader_sees_what_is_committed(root):
    texts = names("a", 20)
    whole = fill(root, texts, [1] * 20)
    with StoreWriter(root, FINGERPRINT) as writer:
        segment = segment_for(names("b", 20), [1] * 20)
        assert writer.begin(segment) == 0
        writer.append(rows_of(segment, np.random.default_rng(0))[0][0])
        with (
            pytest.raises(StoreError, match="another process is writing"),
            StoreWriter(root, FINGERPRINT),
        ):
            pass
        store = ActivationStore.open(root)
        np.testing.assert_array_equal(store.read(SITE, texts), whole[LAST])
        assert len(store.prompt_hashes()) == 20
    # Leaving commits the batch that was appended.
    assert len(ActivationStore.open(root).prompt_hashes()) == 27
    with StoreWriter(root, FINGERPRINT) as writer:
        assert writer.begin(segment) == 1


def test_rows_that_do_not_fit_the_plan_are_refused(root):
    segment = segment_for(names("a", 10), [1] * 10)
    batches, _ = rows_of(segment, np.random.default_rng(0))
    with StoreWriter(root, FINGERPRINT) as writer:
        writer.begin(segment)
        with pytest.raises(ValueError, match=r"rows of blocks.12.resid_post/last.*\(7, 24\)"):
            writer.append({**batches[0], LAST: batches[0][LAST][:3]})
        writer.append(batches[0])
        with pytest.raises(ValueError, match="the segment has 2 batches, `append` got 1"):
            writer.finish()


def test_a_full_disk_says_so_and_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(store_arrays, "_SHARD_BYTES", {"last": 1 << 14, "tokens": 1 << 16})
    texts = names("a", 60)
    whole = fill(tmp_path / "s", texts, [1] * 60)
    segment = segment_for(names("b", 600), [20] * 600)
    batches, more = rows_of(segment, np.random.default_rng(5))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = StoreWriter(tmp_path / "s", FINGERPRINT)
    with pytest.raises(StoreError, match=r"cannot write to .*free space"), writer:
        writer.begin(segment)
        try:  # no file may grow over 40 kB: what a full disk does, without one
            resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
            for rows in batches:
                writer.append(rows)
            writer.finish()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    store = ActivationStore.open(tmp_path / "s")
    np.testing.assert_array_equal(store.read(SITE, texts), whole[LAST])
    with StoreWriter(tmp_path / "s", FINGERPRINT) as writer:
        for rows in batches[writer.begin(segment) :]:
            writer.append(rows)
        writer.finish()
    store = ActivationStore.open(tmp_path / "s")
    np.testing.assert_array_equal(store.read(SITE, names("b", 600)), more[LAST])


class LostWrite:
    """A write that the disk refuses, as TensorStore reports it."""

    def done(self):
        return True

    def result(self):
        raise ValueError("RESOURCE_EXHAUSTED: no space left on device")


def test_nothing_counts_after_a_lost_write(root, monkeypatch):
    monkeypatch.setattr(store_writing, "WRITES_IN_FLIGHT", 0)
    monkeypatch.setattr(store_writing._Shard, "append", lambda shard, x_ND: [LostWrite()])
    segment = segment_for(names("a", 10), [1] * 10)
    batches, _ = rows_of(segment, np.random.default_rng(0))
    with (
        pytest.raises(StoreError, match="no space left"),
        StoreWriter(root, FINGERPRINT) as writer,
    ):
        writer.begin(segment)
        with pytest.raises(StoreError):
            writer.append(batches[0])
        # A caller that goes on regardless: leaving must not commit what was lost.
        writer._appended = 1
        raise StoreError("no space left")
    assert ActivationStore.open(root).prompt_hashes() == []


def test_an_unwritable_place_says_so(tmp_path):
    (tmp_path / "s").write_text("a file where the store should be")
    with (
        pytest.raises(StoreError, match="cannot write to"),
        StoreWriter(tmp_path / "s", FINGERPRINT),
    ):
        pass


def test_a_flipped_bit_is_noticed(tmp_path):
    texts = names("a", 30)
    fill(tmp_path / "s", texts, [1] * 30)
    path = tmp_path / "s" / "blocks.12.resid_post" / "last" / "c" / "0" / "0"
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="cannot be read"):
        ActivationStore.open(tmp_path / "s").read(SITE, texts)
    (tmp_path / "s" / "segments" / "000000.npy").write_bytes(b"")
    with pytest.raises(StoreError, match=r"000000\.npy .* missing or damaged"):
        ActivationStore.open(tmp_path / "s")


@pytest.mark.parametrize("size", [100_000, 30_000])
def test_a_header_that_would_crash_tensorstores_parser_is_refused(root, size):
    texts = names("a", 30)
    fill(root, texts, [1] * 30)
    (root / "blocks.12.resid_post" / "last" / "zarr.json").replace(b"[" * size + b"]" * size)
    with pytest.raises(StoreError, match=r"zarr\.json .*(at most 65,536 bytes|nested too deep)"):
        ActivationStore.open(root).read(SITE, texts)
    segment = segment_for(names("b", 4), [1] * 4)
    with pytest.raises(StoreError, match=r"zarr\.json"), StoreWriter(root, FINGERPRINT) as writer:
        writer.begin(segment)


def test_rows_wider_than_memory_are_refused(root):
    texts = names("a", 30)
    fill(root, texts, [1] * 30)
    place = root / "blocks.12.resid_post" / "last" / "zarr.json"
    header = json.loads(place.read())
    place.replace(json.dumps(header | {"shape": [30, (1 << 53) + 1]}).encode())
    with pytest.raises(StoreError, match="its rows must be 24 wide"):
        ActivationStore.open(root).read(SITE, texts)


@pytest.mark.parametrize("place", ["zarr.json", "c/0/0", "c/0", "c"])
def test_a_pipe_in_place_of_an_arrays_file_is_refused_not_waited_for(tmp_path, place):
    root, texts = tmp_path / "s", names("a", 30)
    fill(root, texts, [1] * 30)
    path = root / "blocks.12.resid_post" / "tokens" / place
    path.rename(tmp_path / "whole")
    os.mkfifo(path)
    told = rf"tokens/{place} must be a regular file, got a pipe; restore it"
    with pytest.raises(StoreError, match=told):
        ActivationStore.open(root).read_tokens(SITE, slice(0, 30))
    segment = segment_for(names("b", 4), [1] * 4)
    with pytest.raises(StoreError, match=told), StoreWriter(root, FINGERPRINT) as writer:
        writer.begin(segment)
    path.unlink()
    path.symlink_to(tmp_path / "whole")  # on another disk, say
    assert ActivationStore.open(root).read_tokens(SITE, slice(0, 30)).shape == (30, 24)


def test_a_run_goes_on_where_another_place_stopped_and_memory_holds_what_a_path_holds(tmp_path):
    texts, counts = names("a", 40), [3] * 40
    segment = segment_for(texts, counts)
    batches, _ = rows_of(segment, np.random.default_rng(0))
    contents = []
    for root in (Place.parse(tmp_path) / "s", Place.parse("memory://store_test/same") / "s"):
        for stop in (2, len(batches)):  # in two runs
            with StoreWriter(root, FINGERPRINT) as writer:
                for rows in batches[writer.begin(segment) : stop]:
                    writer.append(rows)
        contents.append({name: (root / name).read() for name in objects(root)})
    assert contents[0] == contents[1]
    assert len(contents[0]) == 8


def objects(root: Place, above: str = "") -> list[str]:
    """Every object below a place but its lock."""
    found = []
    for name in (root / above[:-1] if above else root).children():
        inner = f"{above}{name}"
        found += [inner] if (root / inner).exists() else objects(root, f"{inner}/")
    return [name for name in found if name != ".lock"]


def test_a_store_goes_on_on_another_device(root):
    texts = names("a", 30)
    whole = fill(root, texts, [1] * 30, fingerprint={**FINGERPRINT, "device": "cpu"})
    digest = ActivationStore.open(root).digest
    on_gpu = {**FINGERPRINT, "device": "gpu"}
    more = fill(root, names("b", 30), [1] * 30, seed=1, fingerprint=on_gpu)
    store = ActivationStore.open(root, on_gpu)
    assert store.fingerprint["device"] == "cpu"  # what it was begun on stays on record
    assert store.digest == digest == layout.digest(FINGERPRINT)
    with StoreWriter(root, on_gpu) as writer:
        assert writer.store().fingerprint["device"] == "cpu"
    both = np.concatenate([whole[LAST], more[LAST]])
    np.testing.assert_array_equal(store.read(SITE, texts + names("b", 30)), both)
    with pytest.raises(StoreError, match="model: wanted 'n', got 'm'\\)"):
        ActivationStore.open(root, {**on_gpu, "model": "n"})


def test_a_store_whose_identity_counted_the_device_is_read_and_gone_on_with(tmp_path):
    root, texts = Place.parse(tmp_path) / "s", names("a", 30)
    fingerprint = {**FINGERPRINT, "device": "cpu"}
    whole = fill(root, texts, [1] * 30, fingerprint=fingerprint)
    told = json.dumps({"fingerprint": fingerprint, "format": 1}, indent=1, sort_keys=True)
    former = hashlib.sha256(f"{told}\n".encode()).hexdigest()
    rows = checksums.path_of(root, 0)
    record, arrays = sealed.read_safetensors(rows, checksums.ENTRY, "")
    assert record["store"] != former
    for digest in (former, "0" * 64):
        changed = sealed.to_safetensors(arrays, checksums.ENTRY, {**record, "store": digest})
        rows.replace(changed)
        if digest == former:
            found = ActivationStore.open(root).read(SITE, texts)
            np.testing.assert_array_equal(found, whole[LAST])
            fill(root, names("b", 3), [1] * 3, fingerprint=fingerprint)
    with pytest.raises(StoreError, match="another store"):
        ActivationStore.open(root).read(SITE, texts)


def plant(folder: Path) -> None:
    folder.mkdir()
    (folder / "precious").write_text("precious")


def test_files_of_others_in_a_store_survive(tmp_path):
    root, outside = tmp_path / "s", tmp_path / "outside"
    fill(root, names("a", 30), [1] * 30)
    plant(outside)
    others = [
        "segments/mine",
        "segments/000009.npy",
        "x.tmp",
        "segments/.000000.npy.tmp",
        "y.__lock",
    ]
    others += ["blocks.12.resid_post/last/c/0/0.__lock", "notes/zarr.json_0f.__lock"]
    for name in others:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(name)
    for name in ("segments/linked", "linked", "manifest.json.tmp", "progress.json.tmp"):
        (root / name).symlink_to(outside / "precious")
    (root / "folder").symlink_to(outside)
    left = root / "blocks.12.resid_post/last/c/0/0_0123456789abcde.__lock"
    left.write_text("what TensorStore leaves when it is killed")
    fill(root, names("b", 30), [1] * 30)
    assert not left.exists()
    assert all((root / name).read_text() == name for name in others)
    assert (root / "folder").is_symlink() and (root / "manifest.json.tmp").is_symlink()
    assert os.listdir(outside) == ["precious"]
    assert (outside / "precious").read_text() == "precious"


SHARD = "blocks.12.resid_post/last/c/0/0"


@pytest.mark.parametrize(
    "name", ["manifest.json", "progress.json", "segments/000000.rows", SHARD, f"{SHARD}.__lock"]
)
def test_a_link_in_place_of_a_stores_file_is_not_written_through(tmp_path, name):
    root, outside = tmp_path / "s", tmp_path / "outside"
    texts = names("a", 30)
    segment = segment_for(texts, [1] * 30)
    batches, whole = rows_of(segment, np.random.default_rng(0))
    with StoreWriter(root, FINGERPRINT) as writer:
        writer.begin(segment)
        for rows in batches[:2]:
            writer.append(rows)
    content = (root / name).read_bytes() if (root / name).exists() else b"precious"
    outside.write_bytes(content)
    (root / name).unlink(missing_ok=True)
    (root / name).symlink_to(outside)
    with StoreWriter(root, FINGERPRINT) as writer:
        for rows in batches[writer.begin(segment) :]:
            writer.append(rows)
        writer.finish()
    assert outside.read_bytes() == content
    np.testing.assert_array_equal(ActivationStore.open(root).read(SITE, texts), whole[LAST])


@pytest.mark.parametrize("name", ["segments", *(str(p) for p in Path(SHARD).parents if p.name)])
def test_a_link_in_place_of_a_stores_folder_is_read_and_not_written_through(tmp_path, name):
    root, outside = tmp_path / "s", tmp_path / "outside"
    texts = names("a", 30)
    whole = fill(root, texts, [1] * 30)
    (root / name).rename(outside)
    (root / name).symlink_to(outside)
    before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    np.testing.assert_array_equal(ActivationStore.open(root).read(SITE, texts), whole[LAST])
    with pytest.raises(StoreError, match=rf"symbolic link is in the place of a folder.*{name}"):
        fill(root, names("b", 30), [1] * 30)
    assert {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()} == before


def test_reading_few_rows_reads_few_bytes(tmp_path):
    texts = names("a", 20_000)
    segment = segment_for(texts, [0] * 20_000, batch_rows=2000, taps=(LAST,))
    fingerprint = {**FINGERPRINT, "d_model": 256}
    x_ND = np.random.default_rng(0).normal(size=(20_000, 256)).astype(np.float32)
    with StoreWriter(tmp_path / "s", fingerprint) as writer:
        writer.begin(segment)
        for start in range(0, 20_000, 2000):
            writer.append({LAST: x_ND[start : start + 2000]})
        writer.finish()
    store = ActivationStore.open(tmp_path / "s")
    chosen_N = np.random.default_rng(1).choice(20_000, 400, replace=False)
    store.read(SITE, texts[:1])  # opens the array
    before = _bytes_read()
    found = store.read(SITE, [texts[index] for index in chosen_N])
    spent = _bytes_read() - before
    np.testing.assert_array_equal(found, x_ND[chosen_N])
    # 2% of the rows, in chunks of 4: at most 8% of the bytes, and the files' indices.
    assert 400 * 1024 <= spent < 0.12 * x_ND.nbytes


def _bytes_read() -> int:
    status = Path("/proc/self/io")
    if not status.exists():
        pytest.skip("counting bytes needs /proc/self/io")
    return int(status.read_text().split("rchar: ")[1].split()[0])
