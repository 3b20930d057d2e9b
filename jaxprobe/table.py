"""The result rows, `results.parquet`: append, read, what is done, merge.

The file is whole at any moment: an append writes the old rows and the new ones to a temporary file, syncs it
and renames it over the old one (0.4 s at 295,000 rows). A row that is there already is left out if it says the
same, and refused if it says something else.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jaxprobe.base import ResultRow
from jaxprobe.place import Place

_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
_FIELDS = dataclasses.fields(ResultRow)
COLUMNS = tuple(field.name for field in _FIELDS)
SCHEMA = pa.schema([pa.field(field.name, _ARROW[field.type], nullable=False) for field in _FIELDS])  # type: ignore[index]
KEY = (
    *("model", "site", "features", "method", "num_latents"),
    *("dataset", "regime", "level", "protocol", "seed", "fingerprint"),
    *("pooling", "test_set", "selection"),
)


class TableError(RuntimeError):
    """A result file that cannot be read, or rows that contradict it."""


def append(path: Path | str, rows: Sequence[ResultRow]) -> int:
    """Adds rows to a result file, or begins one.

    Several processes may append to one file: each waits its turn.

    Args:
        path: The file, `WORKDIR/results.parquet`.
        rows: New rows, in the order to be kept. Nothing is written where there are none.

    Returns:
        The number of rows added; rows that the file holds with the same values are not added again.

    Raises:
        TypeError: A field of a row has another type than `ResultRow` says.
        TableError: The file is damaged, has other columns, or holds a row of the same key with other
            values.
        OSError: The disk is full or the directory cannot be written.
    """
    path = Path(path)
    if not rows:
        return 0
    new = _to_table(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with Place.parse(path.with_name(f".{path.name}.lock")).locked(wait=True):
        old = read(path) if path.exists() else SCHEMA.empty_table()
        # Only rows of these datasets can collide.
        near = old.filter(pc.field("dataset").isin(new["dataset"].unique()))
        fresh = _without_known(new, near, path)
        if len(fresh):
            _write(path, pa.concat_tables([old, fresh]))
    return len(fresh)


def read(path: Path | str) -> pa.Table:
    """All rows, as a table with the columns `COLUMNS`, in the order of their appending.

    Raises:
        TableError: No such file, a damaged one, or other columns or types than expected.
    """
    path = Path(path)
    try:
        table = pq.ParquetFile(path, memory_map=False).read()
        table.validate(full=True)  # else texts that are none are met when they are used
    except FileNotFoundError as error:
        raise TableError(f"there are no results at {path}; run the fit stage first") from error
    except (pa.ArrowException, OSError) as error:
        raise TableError(
            f"{path} is damaged or not a Parquet file ({error}); restore it from a copy, or delete it"
            " and run the fit stage again"
        ) from error
    _check_columns(path, table.schema)
    for name in COLUMNS:
        if table[name].null_count:
            raise TableError(
                f"column `{name}` of {path} holds nulls; a result has a value everywhere"
            )
    return table.cast(SCHEMA)


def read_rows(path: Path | str) -> list[ResultRow]:
    """All rows as `ResultRow`, in the order of their appending.

    Raises:
        TableError: As `read`.
    """
    return _to_rows(read(path))


def done_keys(path: Path | str) -> set[tuple]:
    """`ResultRow.key()` of each row; empty where there is no file yet.

    Raises:
        TableError: The file is damaged or has other columns.
    """
    return set(_keys(read(path))) if Path(path).exists() else set()


def merge(paths: Iterable[Path | str]) -> pa.Table:
    """The rows of several files (shards of one job) as one table.

    Returns:
        Distinct rows, sorted by `KEY` (NaN levels last): the same for any order of the files.

    Raises:
        TableError: As `read`, or two files disagree about a row.
    """
    merged = SCHEMA.empty_table()
    for path in paths:
        merged = pa.concat_tables([merged, _without_known(read(path), merged, Path(path))])
    return merged.sort_by([(name, "ascending") for name in KEY]).combine_chunks()


def of_rows(rows: Sequence[ResultRow]) -> pa.Table:
    """Rows as a table with the columns `COLUMNS`.

    Raises:
        TypeError: A field of a row has another type than `ResultRow` says.
    """
    return _to_table(rows)


def write(path: Path | str, table: pa.Table) -> None:
    """Writes a whole table, such as a merged one, in place of whatever is there.

    Raises:
        TableError: Other columns or types than a result file has.
    """
    path = Path(path)
    _check_columns(path, table.schema)
    path.parent.mkdir(parents=True, exist_ok=True)
    with Place.parse(path.with_name(f".{path.name}.lock")).locked(wait=True):
        _write(path, table.select(COLUMNS).cast(SCHEMA))


def _write(path: Path, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table.combine_chunks(), sink, compression="zstd", compression_level=1)
    Place.parse(path).replace(sink.getvalue())


def _to_table(rows: Sequence[ResultRow]) -> pa.Table:
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


def _fits(value, wanted) -> bool:
    if wanted is float:
        return isinstance(value, (int, float, np.floating)) and not isinstance(value, bool)
    if wanted is int:
        return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return isinstance(value, (bool, np.bool_) if wanted is bool else wanted)


def _to_rows(table: pa.Table) -> list[ResultRow]:
    columns = [table[name].to_pylist() for name in COLUMNS]
    return [
        ResultRow(**dict(zip(COLUMNS, values, strict=True)))
        for values in zip(*columns, strict=True)
    ]


def _keys(table: pa.Table) -> list[tuple]:
    columns = {name: table[name].to_pylist() for name in KEY}
    # As ResultRow.key(): Python's own rounding, and each distinct level once.
    rounded = {level: round(level, 6) for level in set(columns["level"]) if not math.isnan(level)}
    columns["level"] = [rounded.get(level) for level in columns["level"]]
    return list(zip(*columns.values(), strict=True))


def _without_known(new: pa.Table, old: pa.Table, path: Path) -> pa.Table:
    """The rows of `new` that neither `old` nor `new` itself has before them."""
    known = dict(zip(_keys(old), range(len(old)), strict=True))
    both = pa.concat_tables([old, new])
    keep, repeats = [], []
    for index, key in enumerate(_keys(new), start=len(old)):
        first = known.setdefault(key, index)
        if first == index:
            keep.append(index)
        else:
            repeats.append((first, index))
    if repeats:
        _check_same(both, np.array(repeats), path)
    return both.take(pa.array(keep, pa.int64()))


def _check_same(table: pa.Table, pairs: np.ndarray, path: Path) -> None:
    """Raises unless the two rows of each pair, which share their key, agree in all that they scored."""
    for name in COLUMNS:
        one, other = (table[name].take(pa.array(side)).to_pylist() for side in pairs.T)
        for at, (a, b) in enumerate(zip(one, other, strict=True)):
            if repr(a) != repr(b) and name not in KEY:  # NaN is not equal to itself
                key = dict(zip(KEY, _keys(table.slice(pairs[at, 1], 1))[0], strict=True))
                raise TableError(
                    f"two results for one probe in {path}: {key} has {name} {a} and {b}; use another"
                    " file, or delete the wrong one"
                )


def _check_columns(path: Path, schema: pa.Schema) -> None:
    missing = [name for name in COLUMNS if name not in schema.names]
    extra = [name for name in schema.names if name not in COLUMNS]
    if missing or extra:
        raise TableError(
            f"{path} must have the columns of a result file; missing: {', '.join(missing) or 'none'};"
            f" unknown: {', '.join(extra) or 'none'}; use another file"
        )
    for field in SCHEMA:
        got = schema.field(field.name).type
        if got != field.type:
            raise TableError(
                f"column `{field.name}` of {path} must be {field.type}, got {got}; use another file"
            )
    if tuple(schema.names) != COLUMNS:
        raise TableError(f"the columns of {path} must stand in the order {', '.join(COLUMNS)}")
