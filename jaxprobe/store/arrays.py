"""The zarr3 arrays of an activation store: their chunks, sizes and dimension names.

A file is a shard of a few MiB; small chunks inside it, each with a checksum, can be read alone, so reading a
dataset's rows costs about their own bytes, wherever they lie. Nothing is compressed: float activations hardly
shrink, and raw bytes do not depend on a compressor's version.
"""

import json
import re
from collections.abc import Iterable, Mapping

import tensorstore as ts

from jaxprobe import boundary, place
from jaxprobe.base import POOLINGS
from jaxprobe.place import Place
from jaxprobe.store.layout import StoreError, Tap, tap_name, width_of

_SHARD_BYTES = dict.fromkeys(POOLINGS, 4 << 20) | {"tokens": 16 << 20}
# `last` is read in single rows, because a dataset's prompts are scattered: with 4 rows a chunk, 5,000 of
# 50,000 rows are read in 0.13 s. `tokens` are read in runs.
_CHUNK_ROWS = dict.fromkeys(POOLINGS, 4) | {"tokens": 128}
_ITEM_BYTES = {"float32": 4, "bfloat16": 2}
_LITTLE_ENDIAN = {"name": "bytes", "configuration": {"endian": "little"}}
# Zeros are stored explicitly, so that missing data cannot pass for zeros.
_STRICT = {"fill_missing_data_reads": False, "store_data_equal_to_fill_value": True}
_HEADER, _HEADER_BYTES = "zarr.json", 64 << 10
_REMEDY = "restore it from a copy, or delete {root} to extract again"
_DEPTH = 2  # folders below an array's own: c/ROWS/COLUMNS
_CHECKED = [_LITTLE_ENDIAN, {"name": "crc32c"}]


def dtype_of(tap: Tap, fingerprint: Mapping) -> str:
    """Number format on disk: float32 for `last`, the fingerprint's `token_dtype` for `tokens`."""
    return fingerprint["token_dtype"] if tap[1] == "tokens" else "float32"


def open_array(root: Place, tap: Tap, fingerprint: Mapping) -> ts.TensorStore:
    """Opens one array for reading and writing; reading what was never written is an error, not zeros.

    Raises:
        StoreError: The array is missing, damaged, or does not fit the fingerprint.
    """
    _check_files(root, tap)
    _check_header(root, tap, width_of(tap, fingerprint))
    metadata = _metadata(tap, fingerprint)
    del metadata["chunk_grid"]  # an earlier version's files may have been larger
    try:
        return _open(root, tap, metadata)
    except (ValueError, OSError) as error:
        raise StoreError(
            f"the array {root / tap_name(tap)} is missing or damaged ({error});"
            f" {_REMEDY.format(root=root)}"
        ) from error


def sized_array(root: Place, tap: Tap, num_rows: int, fingerprint: Mapping) -> ts.TensorStore:
    """Opens or creates one array and gives it `num_rows` rows.

    Rows that are cut off are zeroed first: those in the same file as kept rows would otherwise stay in it.
    """
    (root / tap_name(tap)).check_folders(_DEPTH)  # TensorStore would write through links
    if not (root / tap_name(tap) / _HEADER).exists():
        _check_files(root, tap)
        metadata = _metadata(tap, fingerprint) | {"shape": [num_rows, width_of(tap, fingerprint)]}
        return _open(root, tap, metadata, create=True)
    array = open_array(root, tap, fingerprint)
    have = array.shape[0]
    if have > num_rows:
        array[num_rows:have].write(0).result()
    if have != num_rows:
        array = array.resize(exclusive_max=[num_rows, None]).result()
    return array


def shard_rows(array: ts.TensorStore) -> int:
    """The number of rows in one file."""
    return array.spec().to_json()["metadata"]["chunk_grid"]["configuration"]["chunk_shape"][0]


def sweep(root: Place, taps: Iterable[Tap]) -> None:
    """Removes the temporary files that TensorStore left for these arrays when its process was killed.

    Only files with TensorStore's temporary names for our files, in folders that are not links: nothing else
    is known to be ours.
    """
    for tap in taps:
        folder = root / tap_name(tap)
        if folder.local is None:
            return  # in other places an object is whole or absent
        _check_files(root, tap)
        folder.check_folders(_DEPTH)
        rows = [folder / "c" / name for name in (folder / "c").children() if name.isdecimal()]
        for above, name in ((folder, _HEADER), *((row, "0") for row in rows)):
            for left in above.children():
                if re.fullmatch(rf"{re.escape(name)}_[0-9a-f]{{1,16}}\.__lock", left):
                    (above / left).delete()


def _open(root: Place, tap: Tap, metadata: dict, *, create: bool = False) -> ts.TensorStore:
    kvstore = (root / tap_name(tap)).kvstore()
    spec = {"driver": "zarr3", "kvstore": kvstore, "metadata": metadata} | _STRICT
    return ts.open(spec, open=not create, create=create, context=place.context()).result()


def _check_header(root: Place, tap: Tap, width: int) -> None:
    """Refuses a header that is no short JSON, or one of wider rows.

    TensorStore's parser crashes on one that is nested too deep, and a read of rows that no memory holds ends the
    process.
    """
    header = root / tap_name(tap) / _HEADER
    try:
        with boundary.reader(str(header), "a zarr array's header", _REMEDY.format(root=root)):
            shape = json.loads(header.read(limit=_HEADER_BYTES))["shape"]
            if len(shape) != 2 or shape[1] != width:
                raise ValueError(f"its rows must be {width} wide, got the shape {shape!r:.80}")
    except boundary.FileError as error:
        raise StoreError(str(error)) from error


def _check_files(root: Place, tap: Tap) -> None:
    """Refuses a pipe in place of a file: TensorStore would wait on it forever."""
    folder = root / tap_name(tap)
    if folder.local is None:
        return
    try:
        boundary.check_regular_below(folder.local, _DEPTH)
    except boundary.FileError as error:
        raise StoreError(f"{error}; {_REMEDY.format(root=root)}") from error


def _metadata(tap: Tap, fingerprint: Mapping) -> dict:
    width, dtype, pooling = width_of(tap, fingerprint), dtype_of(tap, fingerprint), tap[1]
    chunk = _CHUNK_ROWS[pooling]
    fitting = _SHARD_BYTES[pooling] // (width * _ITEM_BYTES[dtype])
    # A power of two, so that read-ahead buffers and shards line up.
    rows = max(chunk, min(1 << 16, 1 << (max(1, fitting).bit_length() - 1)))
    sharding = {
        "chunk_shape": [chunk, width],
        "codecs": _CHECKED,
        "index_codecs": _CHECKED,
        "index_location": "end",
    }
    return {
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [rows, width]}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "fill_value": 0.0,
        "dimension_names": ["token" if pooling == "tokens" else "prompt", "d_model"],
    }
