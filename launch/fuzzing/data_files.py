"""Valid datasets, work directories and addresses, and how they are read."""

import zipfile
from pathlib import Path

import numpy as np
import zstandard

from fuzzing.reader import Reader, seal_again
from jaxprobe import assets, base, datasets, records, results
from jaxprobe.features import kept
from jaxprobe.place import Place
from jaxprobe.runs import gathering, plans
from jaxprobe.store import ActivationStore, Segment, StoreWriter, sha256_of
from jaxprobe.workdir import Workdir
from jaxprobe.workspace import Workspace

_SITE = base.Site(block=1, stream="resid_post")
_TEXTS = tuple(f"prompt {at}, “quoted” and a\nline" for at in range(24))
_CONFIG = {"experiment": "probing", "model": "m", "fit": {"solver": "converged"}}
_FINGERPRINT = {"model": "m", "d_model": 8, "token_dtype": "float32", "buckets": [16, 32]}


def _csv(first: str = "yes", second: str = "no") -> str:
    lines = ["prompt,target"]
    for at, text in enumerate(_TEXTS):
        quoted = text.replace('"', '""')
        lines.append(f'"{quoted}",{first if at % 2 else second}')
    return "\n".join(lines) + "\n"


def make_csv(folder: Path, labels: tuple[str, str]) -> None:
    """A user's CSV file."""
    (folder / "data.csv").write_text(_csv(*labels))


def make_zst(folder: Path) -> None:
    """A user's CSV file, compressed."""
    (folder / "data.csv.zst").write_bytes(zstandard.compress(_csv().encode()))


def make_source(folder: Path) -> None:
    """The published layout in a zip archive, as in a wheel."""
    master = "Dataset save name,Data type\ncleaned_data/1_a.csv,Binary Classification\n"
    with zipfile.ZipFile(folder / "source.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/probing_datasets_MASTER.csv", master)
        archive.writestr("x/cleaned_data/1_a.csv", _csv())
        archive.writestr("x/OOD data/1_a_OOD.csv.zst", zstandard.compress(_csv().encode()))


def make_store(folder: Path) -> None:
    """An activation store of one array."""
    keys = np.frombuffer(b"".join(sha256_of(_TEXTS)), np.uint8).reshape(-1, 32)
    segment = Segment(
        taps=((_SITE, "last"),),
        sha256_N=keys,
        tokens_N=np.full(len(_TEXTS), 3, np.int32),
        batch_N=np.arange(len(_TEXTS), dtype=np.int32) // 8,
    )
    draw = np.random.default_rng(0)
    with StoreWriter(folder / "activations", _FINGERPRINT) as writer:
        for _ in range(writer.begin(segment) or 0, segment.num_batches):
            writer.append({(_SITE, "last"): draw.normal(size=(8, 8)).astype(np.float32)})
        writer.finish()


def make_latents(folder: Path) -> None:
    """One dataset's latents."""
    draw = np.random.default_rng(0)
    z_NU = np.maximum(draw.normal(size=(20, 6)), 0).astype(np.float32)
    found = kept.DatasetLatents(
        rows=kept.Columns.of([z_NU], 20),
        top_PK=np.arange(4, dtype=np.int32).reshape(2, 2),
        random_PK=np.arange(4, dtype=np.int32).reshape(2, 2),
        latent_U=np.arange(6),
    )
    kept.write(Place.parse(folder / "latents.safetensors"), {"sae": "x"}, found)


def _row() -> base.ResultRow:
    return base.ResultRow(
        **{"model": "m", "site": str(_SITE), "features": "activations", "method": "logistic"},
        **{"num_latents": 0, "dataset": "d", "regime": "standard", "level": float("nan")},
        **{"protocol": "paper", "seed": 42, "num_train": 10, "num_test": 5, "valid_auroc": 0.5},
        **{"test_auroc": 0.5, "test_f1": 0.5, "test_accuracy": 0.5, "best_c": 1.0},
        **{"converged": True, "fingerprint": "f"},
    )


def make_parquet(folder: Path) -> None:
    """A table of results."""
    results.write(Place.parse(folder / "results.parquet"), [_row()] * 3)


def make_run(folder: Path) -> None:
    """The results of a finished run: a job's object, the record that it names, the plan, resolved settings."""
    work = Workdir.parse(folder)
    quality = {"x": {"variance_explained": 0.5, "l0": 8.0}}
    fingerprints = {"activations": {"model": "m"}, "x": "f"}
    seeds = {"splits": 42}
    record = records.keep(
        work,
        records.make(_CONFIG, seeds=seeds, fingerprints=fingerprints, sae_quality=quality),
    )
    chosen = {"dataset": "d", "sae": "x", "latent": 3, "weight": 0.5, "texts": ["a"], "site": ""}
    scored = results.Scored(
        rows=[_row()],
        metrics={"log_loss": [0.1]},
        about={"record": record, "chosen": [chosen]},
    )
    results.write_job(work.jobs / "d.parquet", scored)
    leaks = {"leaks": {"d": {"rows": 10, "leak rate": 0.0}}}
    plans.write(work, _CONFIG, None, record=record, objects=["d.parquet"], facts=leaks)
    Workspace(work).begin()


def make_address(folder: Path) -> None:
    """Addresses of assets, one per line."""
    lines = ("pypi://sae-probes==0.4.2", "hf://google/gemma-scope/a@main", "./x.csv")
    (folder / "address.txt").write_text("\n".join(lines))


def read_dataset(folder: Path) -> None:
    """Reads the CSV file in the folder, of either kind."""
    datasets.load(next(iter(sorted(folder.glob("data.csv*")))))


def read_source(folder: Path) -> None:
    """Reads every dataset of a source."""
    source = str(folder / "source.whl")
    for name in datasets.names(source):
        datasets.load(name, source)
    for name in datasets.shifted_names(source):
        datasets.load_shifted(name, source)


def read_store(folder: Path) -> None:
    """Reads all rows."""
    ActivationStore.open(folder / "activations", _FINGERPRINT).read(_SITE, _TEXTS)


def read_latents(folder: Path) -> None:
    """Reads all columns."""
    found = kept.read(Place.parse(folder / "latents.safetensors"), {"sae": "x"}, 20)
    found.rows.dense(np.arange(len(found.latent_U)))


def read_run(folder: Path) -> None:
    """Reads what a report is made from, and what a resumed fit stage reads."""
    work = Workdir.parse(folder)
    gathering.evidence(gathering.gather(work, _CONFIG))
    Workspace(work).fit_dtype("auto")


def read_address(folder: Path) -> None:
    """Fetches each address; there is no file to name, so an error needs only a message."""
    raw = (folder / "address.txt").read_bytes()
    for line in raw.decode("utf-8", "surrogateescape").splitlines()[:20]:
        try:
            assets.fetch(line)
        except (ValueError, assets.AssetError) as error:
            if not str(error).strip():
                raise


READERS = {
    "csv": Reader(
        makes={
            "words": lambda folder: make_csv(folder, ("yes", "no")),
            "numbers": lambda folder: make_csv(folder, ("1.0", "0")),
        },
        read=read_dataset,
    ),
    "zst": Reader(makes={"words": make_zst}, read=read_dataset),
    "source": Reader(makes={"wheel": make_source}, read=read_source),
    "store": Reader(
        makes={"last": make_store},
        read=read_store,
        files=("**/*.json", "**/*.npy", "**/*.rows", "**/c/**/*"),
        mend=seal_again,
    ),
    "latents": Reader(makes={"columns": make_latents}, read=read_latents, mend=seal_again),
    "parquet": Reader(
        makes={"rows": make_parquet},
        read=lambda folder: results.read_rows(Place.parse(folder / "results.parquet")),
        files=("results.parquet",),
    ),
    "run": Reader(makes={"finished": make_run}, read=read_run, mend=seal_again),
    "address": Reader(makes={"lines": make_address}, read=read_address),
}
