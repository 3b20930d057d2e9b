"""Everything that a stage reads back: a flipped byte or an absent file is an error, never another number."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxprobe import checkpoints, sealed, table
from jaxprobe.base import Site
from jaxprobe.checkpoints import training_state
from jaxprobe.stages import extract, latents, report, shards
from jaxprobe.store import ActivationStore, StoreError
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
        patch.setattr(store_arrays, "_SHARD_BYTES", {"last": 1 << 12, "tokens": 1 << 14})
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
