"""The latents of one dataset that some split kept, in memory and as a file.

SAE latents are mostly zeros, so columns are stored sparse: the 113 datasets of a run with 4,096 latents,
62 of them active per row, take 0.2 GB instead of 5.5 GB dense.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Self

import numpy as np
from absl import logging

from jaxprobe import boundary, sealed
from jaxprobe.place import Place

_ENTRY = "latents"  # the header entry that says what the latents were made from
_AGAIN = "run the encode stage again"
_STORED = ("value_E", "row_E", "start_C")  # of `Columns`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """A matrix z_NU by its nonzero entries, column after column.

    Attributes:
        value_E: float32 entries.
        row_E: int32 row of each entry, increasing within a column.
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
        rows: Latents of the dataset's rows at the union of kept columns.
        top_PK: Columns per split, best latent first.
        random_PK: Columns per split: latents drawn from those active in training.
        latent_U: The SAE's latent in each column.
    """

    rows: Columns
    top_PK: np.ndarray
    random_PK: np.ndarray
    latent_U: np.ndarray


def read(place: Place, identity: Mapping[str, object], num_rows: int) -> DatasetLatents:
    """Reads what `write` wrote.

    Args:
        place: The file.
        identity: What the file must have been made from.
        num_rows: Rows of the dataset, which the file's own count must match: empty rows take no bytes
            in a sparse file, so a wrong count would not show otherwise.

    Raises:
        FileNotFoundError: The encode stage has not written the file.
        ValueError: The file was made from another SAE, dataset or config, or is damaged.
    """
    try:
        record, arrays = sealed.read_safetensors(place, _ENTRY, _AGAIN)
    except FileNotFoundError:
        raise FileNotFoundError(f"no latents at {place}; run the encode stage first") from None
    if record != _record(identity):
        raise ValueError(
            f"{place} was made from another SAE, dataset, activations or config; {_AGAIN}"
        )
    with boundary.reader(str(place), "a dataset's latents", _AGAIN):
        if int(arrays["num_rows"]) != num_rows:
            raise ValueError(f"it has {arrays['num_rows']} rows, but its dataset {num_rows}")
        rows = Columns(**{key: arrays[f"rows.{key}"] for key in _STORED}, num_rows=num_rows)
        kept = {name: arrays[name] for name in ("top_PK", "random_PK", "latent_U")}
        _check_columns(rows, len(kept["latent_U"]))
    return DatasetLatents(rows=rows, **kept)


def _check_columns(columns: Columns, num_columns: int) -> None:
    """Raises ValueError unless every entry is in an existing row and column."""
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
        raise ValueError("its entries are outside the matrix that its header describes")


def write(place: Place, identity: Mapping[str, object], latents: DatasetLatents) -> None:
    """Writes a file, whole or not at all."""
    arrays = {name: getattr(latents, name) for name in ("top_PK", "random_PK", "latent_U")}
    arrays |= {f"rows.{key}": getattr(latents.rows, key) for key in _STORED}
    arrays["num_rows"] = np.array(latents.rows.num_rows, np.int64)
    place.replace(sealed.to_safetensors(arrays, _ENTRY, _record(identity)))


def is_done(place: Place, identity: Mapping[str, object]) -> bool:
    """Whether the file was made from exactly this and is whole; any other file is made again."""
    try:
        return sealed.read_safetensors(place, _ENTRY, _AGAIN)[0] == _record(identity)
    except FileNotFoundError:
        return False
    except sealed.FileError as error:
        logging.warning("%s; this is done now", error)
        return False


def _record(identity: Mapping[str, object]) -> dict[str, object]:
    """The identity as it comes back from JSON."""
    return json.loads(json.dumps({"identity": dict(identity)}))
