"""The latents of one dataset that some split kept, in memory and as a file.

SAE latents are mostly zeros, so columns are kept sparse: 113 datasets of a run at 4,096 latents,
62 of them active, take 0.2 GB where dense arrays take 5.5 GB.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

import numpy as np
from absl import logging

from jaxprobe import base, boundary, sealed
from jaxprobe.store import replace_file

FOLDER = "latents"  # below the work directory
_ENTRY = "latents"  # the header entry that says what they were made from
_AGAIN = "run the encode stage again"
_STORED = ("value_E", "row_E", "start_C")  # of `Columns`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """A matrix z_NU by its nonzero entries, column after column.

    Attributes:
        value_E: float32 entries.
        row_E: int32 row of each entry, rising in a column.
        start_C: int64 [U + 1]; column u has the entries from `start_C[u]` to `start_C[u + 1]`.
        num_rows: N.
    """

    value_E: np.ndarray
    row_E: np.ndarray
    start_C: np.ndarray
    num_rows: int

    @classmethod
    def of(cls, parts: Iterable[np.ndarray], num_rows: int) -> Self:
        """From dense blocks of neighbouring columns, [N, B] each."""
        values, rows, counts = (
            [np.zeros(0, np.float32)],
            [np.zeros(0, np.int32)],
            [np.zeros(1, int)],
        )
        for z_NB in parts:
            column_E, row_E = np.nonzero(z_NB.T)
            values.append(z_NB[row_E, column_E].astype(np.float32))
            rows.append(row_E.astype(np.int32))
            counts.append(np.bincount(column_E, minlength=z_NB.shape[1]))
        start_C = np.cumsum(np.concatenate(counts)).astype(np.int64)
        return cls(
            value_E=np.concatenate(values),
            row_E=np.concatenate(rows),
            start_C=start_C,
            num_rows=num_rows,
        )

    def dense(self, column_K: np.ndarray) -> np.ndarray:
        """float32 z_NK, the columns asked for, in that order."""
        z_KN = np.zeros((len(column_K), self.num_rows), np.float32)
        for z_N, column in zip(z_KN, column_K, strict=True):
            here = slice(self.start_C[column], self.start_C[column + 1])
            z_N[self.row_E[here]] = self.value_E[here]
        return np.ascontiguousarray(z_KN.T)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetLatents:
    """The latents of one dataset that some split kept.

    Attributes:
        rows: Latents of the dataset's rows at the union of kept columns; `z_NU` makes them dense.
        shifted: The same of its shifted test set's rows; no rows where there is no such set.
        top_PK: Columns per split, best latent first.
        random_PK: Columns per split: latents drawn from those active in training.
        latent_U: The SAE's latent in each column.
    """

    rows: Columns
    shifted: Columns
    top_PK: np.ndarray
    random_PK: np.ndarray
    latent_U: np.ndarray

    @functools.cached_property
    def z_NU(self) -> np.ndarray:
        """float32 latents of the dataset's rows, which every split's `train_N` numbers."""
        return self.rows.dense(np.arange(len(self.latent_U)))

    @functools.cached_property
    def z_MU(self) -> np.ndarray:
        """float32 latents of the shifted set's rows, which covariate shift's `test_N` numbers."""
        return self.shifted.dense(np.arange(len(self.latent_U)))

    def of_split(self, split: base.Split, column_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Dense columns of the split's training rows and of its test rows."""
        z_NK = np.concatenate([self.rows.dense(column_K), self.shifted.dense(column_K)])
        return z_NK[split.train_N], z_NK[split.test_N]


def latents_path(workdir: Path | str, sae_id: str, dataset: str) -> Path:
    """Where a dataset's latents lie; user files are told apart by a hash of their path."""
    folder = hashlib.sha256(sae_id.encode()).hexdigest()[:12]
    stem = Path(dataset).stem if dataset.endswith((".csv", ".zst")) else dataset
    digest = hashlib.sha256(dataset.encode()).hexdigest()[:8]
    return Path(workdir) / FOLDER / folder / f"{stem}-{digest}.safetensors"


def read(path: Path, identity: Mapping[str, object]) -> DatasetLatents:
    """Reads what `write` wrote.

    Args:
        path: From `latents_path`.
        identity: What the file must have been made from, or it is of no use.

    Raises:
        FileNotFoundError: The encode stage has not been here.
        ValueError: It has been here with another SAE, dataset or config, or the file is damaged.
    """
    if not path.exists():
        raise FileNotFoundError(f"no latents at {path}; run the encode stage first")
    record, arrays = sealed.read_safetensors(path, _ENTRY, _AGAIN)
    if record != _record(identity):
        raise ValueError(
            f"{path} was made with another SAE, dataset, activations or config; {_AGAIN}"
        )
    with boundary.reader(path, "a dataset's latents", _AGAIN):
        rows, shifted = (
            Columns(**{key: arrays[f"{name}.{key}"] for key in _STORED}, num_rows=int(count))
            for name, count in zip(("rows", "shifted"), arrays["num_rows"], strict=True)
        )
        kept = {name: arrays[name] for name in ("top_PK", "random_PK", "latent_U")}
        for columns in (rows, shifted):
            _check_columns(columns, len(kept["latent_U"]))
    return DatasetLatents(rows=rows, shifted=shifted, **kept)


def _check_columns(columns: Columns, num_columns: int) -> None:
    """Raises ValueError unless every entry lies in a row and a column that there are."""
    start_C, row_E = columns.start_C, columns.row_E
    whole = (
        start_C.ndim == 1
        and len(start_C) in (1, num_columns + 1)  # without rows there may be no columns either
        and start_C.dtype.kind == row_E.dtype.kind == "i"
        and start_C[0] == 0
        and (np.diff(start_C) >= 0).all()
        and start_C[-1] == len(row_E) == len(columns.value_E)
    )
    if not whole or (len(row_E) and not (row_E.min() >= 0 and row_E.max() < columns.num_rows)):
        raise ValueError("its entries leave the matrix that its header tells of")


def write(path: Path, identity: Mapping[str, object], latents: DatasetLatents) -> None:
    """Writes a file, whole or not at all."""
    arrays = {name: getattr(latents, name) for name in ("top_PK", "random_PK", "latent_U")}
    for name in ("rows", "shifted"):
        columns = getattr(latents, name)
        arrays |= {f"{name}.{key}": getattr(columns, key) for key in _STORED}
    arrays["num_rows"] = np.array([latents.rows.num_rows, latents.shifted.num_rows], np.int64)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, *sealed.to_safetensors(arrays, _ENTRY, _record(identity)))


def is_done(path: Path, identity: Mapping[str, object]) -> bool:
    """Whether the file was made in this very way and is whole; any other is made again."""
    if not path.exists():
        return False
    try:
        return sealed.read_safetensors(path, _ENTRY, _AGAIN)[0] == _record(identity)
    except sealed.FileError as error:
        logging.warning("%s, which is done now", error)
        return False


def _record(identity: Mapping[str, object]) -> dict[str, object]:
    """The identity as it comes back from JSON."""
    return json.loads(json.dumps({"identity": dict(identity)}))
