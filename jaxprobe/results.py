"""Result rows: one Parquet object per finished job, and the tables that the report merges them into.

An object is whole or absent, so its existence means that the job is done: nothing is rewritten or locked. Every
file written here holds a digest of its columns' content, which is checked when it is read.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jaxprobe.base import ResultRow
from jaxprobe.place import Place

_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
_FIELDS = dataclasses.fields(ResultRow)
COLUMNS = tuple(field.name for field in _FIELDS)
SCHEMA = pa.schema([pa.field(field.name, _ARROW[field.type], nullable=False) for field in _FIELDS])  # type: ignore[index]
# The columns that identify a row: the first columns of `metrics.parquet`.
KEY = (
    *("model", "site", "features", "method", "num_latents"),
    *("dataset", "regime", "level", "protocol", "seed", "fingerprint"),
    *("pooling", "test_set", "selection"),
)
METRICS_SCHEMA = pa.schema(
    [SCHEMA.field(name) for name in KEY]
    + [
        pa.field("metric", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
    ]
)
_DIGEST, _ABOUT = b"jaxprobe.sha256", b"jaxprobe.about"  # entries of a file's metadata
_METRIC = "metric."  # prefix of a job's further columns, one per metric


class TableError(RuntimeError):
    """A result file that cannot be read, or rows that contradict each other."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
    """The results of a job.

    Attributes:
        rows: A row per split, arrow and test set.
        metrics: Per metric beyond the columns of a row, a value per row.
        about: JSON types: the record of the run that made it, the latents that its probes chose.
    """

    rows: Sequence[ResultRow]
    metrics: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def write_job(place: Place, scored: Scored) -> None:
    """Writes a finished job's object, whole or not at all.

    Raises:
        TypeError: A field of a row has another type than `ResultRow` says.
        OSError: The disk is full or the place cannot be written.
    """
    table = of_rows(scored.rows)
    for name, values in scored.metrics.items():
        table = table.append_column(
            pa.field(_METRIC + name, pa.float64(), nullable=False),
            pa.array([float(value) for value in values], pa.float64(), from_pandas=False),
        )
    place.replace(_sealed(table, scored.about))


def read_job(place: Place) -> Scored:
    """Reads what `write_job` wrote.

    Raises:
        TableError: There is no file, or it is not what was written.
    """
    table, about = _opened(place)
    extra = [name for name in table.column_names if name not in COLUMNS]
    if unknown := [name for name in extra if not name.startswith(_METRIC)]:
        raise TableError(f"{place} holds the unknown column {unknown[0]!r}; {_remedy(place)}")
    metrics = {name.removeprefix(_METRIC): table[name].to_pylist() for name in extra}
    rows = to_rows(_checked(place, table.drop_columns(extra)))
    return Scored(rows=rows, metrics=metrics, about=about)


def write(place: Place, rows: Sequence[ResultRow]) -> None:
    """Writes `results.parquet`, with the rows in the given order."""
    place.replace(_sealed(of_rows(rows), {}))


def write_metrics(place: Place, parts: Iterable[Scored]) -> None:
    """Writes `metrics.parquet`: the metrics beyond the columns of a row, one per line."""
    lines: dict[str, list] = {name: [] for name in METRICS_SCHEMA.names}
    for part in parts:
        for metric, values in part.metrics.items():
            for row, value in zip(part.rows, values, strict=True):
                for name in KEY:
                    lines[name].append(getattr(row, name))
                lines["metric"].append(metric)
                lines["value"].append(float(value))
    columns = [pa.array(lines[f.name], f.type, from_pandas=False) for f in METRICS_SCHEMA]
    place.replace(_sealed(pa.Table.from_arrays(columns, schema=METRICS_SCHEMA), {}))


def read(place: Place) -> pa.Table:
    """All rows of a `results.parquet`, as a table with the columns `COLUMNS`, in the order of the file.

    Files made by others (without a digest, and without the columns added later) are read as well.

    Raises:
        TableError: The file is missing or damaged, or its columns or types are not as expected.
    """
    return _checked(place, _opened(place)[0])


def read_rows(place: Place) -> list[ResultRow]:
    """All rows as `ResultRow`, in the order of the file.

    Raises:
        TableError: As `read`.
    """
    return to_rows(read(place))


def of_rows(rows: Sequence[ResultRow]) -> pa.Table:
    """Rows as a table with the columns `COLUMNS`.

    Raises:
        TypeError: A field of a row has another type than `ResultRow` says.
    """
    columns = []
    for field in _FIELDS:
        values = [getattr(row, field.name) for row in rows]
        for value in values:
            if not _fits(value, field.type):
                raise TypeError(
                    f"`{field.name}` of a result row must be {field.type.__name__},"  # type: ignore[union-attr]
                    f" got {value!r} ({type(value).__name__})"
                )
        columns.append(pa.array(values, _ARROW[field.type], from_pandas=False))  # type: ignore[index]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def to_rows(table: pa.Table) -> list[ResultRow]:
    """A table with the columns `COLUMNS` as rows."""
    columns = [table[name].to_pylist() for name in COLUMNS]
    return [
        ResultRow(**dict(zip(COLUMNS, values, strict=True)))
        for values in zip(*columns, strict=True)
    ]


def _fits(value: object, wanted: object) -> bool:
    if wanted is float:
        return isinstance(value, (int, float, np.floating)) and not isinstance(value, bool)
    if wanted is int:
        return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return isinstance(value, (bool, np.bool_) if wanted is bool else wanted)  # type: ignore[arg-type]


def _sealed(table: pa.Table, about: Mapping[str, Any]) -> bytes:
    """The file's bytes, with its digest and `about` in its metadata."""
    text = json.dumps(about, sort_keys=True)
    metadata = {_DIGEST: _digest(table, text).encode(), _ABOUT: text.encode()}
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(metadata).combine_chunks(),
        sink,
        compression="zstd",
        compression_level=1,
        write_page_checksum=True,
    )
    return sink.getvalue().to_pybytes()


def _opened(place: Place) -> tuple[pa.Table, dict[str, Any]]:
    """A file's table and its `about`, both checked against the digest."""
    try:
        data = place.read()
    except FileNotFoundError:
        raise TableError(f"there are no results at {place}; run the fit stage first") from None
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        _check_size(file)
        table = file.read()
        table.validate(full=True)  # otherwise invalid text would only fail when it is used
        metadata = table.schema.metadata or {}
        about = json.loads(metadata.get(_ABOUT, b"{}"))
    except Exception as error:  # a parser may raise anything on a damaged file
        raise TableError(
            f"{place} is damaged or not a Parquet file ({' '.join(str(error).split())[:200]});"
            f" {_remedy(place)}"
        ) from error
    digest = metadata.get(_DIGEST)
    if digest is not None and digest.decode(errors="replace") != _digest(
        table, metadata.get(_ABOUT, b"{}").decode(errors="replace")
    ):
        raise TableError(f"{place} is not what was written (its digest differs); {_remedy(place)}")
    return table, about


_MOST_CELLS = 200_000_000


def _check_size(file: pq.ParquetFile) -> None:
    """Raises ValueError before memory is allocated for rows that a small file cannot hold."""
    cells = file.metadata.num_rows * max(file.metadata.num_columns, 1)
    if cells > _MOST_CELLS:
        raise ValueError(f"it claims {file.metadata.num_rows:,} rows")


def _remedy(place: Place) -> str:
    return f"restore {place.name} from a copy, or delete it and run the fit stage again"


def _digest(table: pa.Table, about: str) -> str:
    """Hex SHA-256 of the columns' content, independent of the file's encoding."""
    digest = hashlib.sha256(about.encode())
    for name in table.column_names:
        column = table[name].combine_chunks()
        digest.update(f"\0{name}\0{column.type}\0{len(column)}\0".encode())
        if pa.types.is_string(column.type):
            texts = ["" if text is None else text for text in column.to_pylist()]
            digest.update(json.dumps([len(text) for text in texts]).encode())
            digest.update("".join(texts).encode("utf-8", "surrogatepass"))
        else:
            digest.update(np.ascontiguousarray(column.to_numpy(zero_copy_only=False)).tobytes())
    return digest.hexdigest()


def _checked(place: Place, table: pa.Table) -> pa.Table:
    """The table with all columns of a result file, in their order and types."""
    missing = [name for name in COLUMNS[:PUBLISHED] if name not in table.column_names]
    extra = [name for name in table.column_names if name not in COLUMNS]
    if missing or extra:
        raise TableError(
            f"{place} must have the columns of a result file; missing: {', '.join(missing) or 'none'};"
            f" unknown: {', '.join(extra) or 'none'}; use another file"
        )
    for name in table.column_names:
        wanted, got = SCHEMA.field(name).type, table.schema.field(name).type
        if got != wanted:
            raise TableError(
                f"column `{name}` of {place} must be {wanted}, got {got}; use another file"
            )
        if table[name].null_count:
            raise TableError(f"column `{name}` of {place} must not hold nulls; use another file")
    for field in _FIELDS[PUBLISHED:]:
        if field.name not in table.column_names:  # written before this column was added
            table = table.append_column(
                SCHEMA.field(field.name), pa.array([field.default] * len(table), pa.string())
            )
    return table.select(COLUMNS).cast(SCHEMA)


PUBLISHED = COLUMNS.index("fingerprint") + 1  # columns that every result file has


def level_key(level: float) -> float | None:
    """A level as used in keys: rounded, None where the regime has none."""
    return None if math.isnan(level) else round(level, 6)
