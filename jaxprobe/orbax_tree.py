"""Parameter trees in Orbax directories: leaves by name, read a part at a time through TensorStore.

Orbax stores every leaf of a tree as a zarr array, all in one OCDBT database or each in its own folder. Orbax itself
is not needed to read them. TensorStore unpacks no chunk beyond the size in its header, so headers are compared with
the files' sizes before TensorStore reads them.

References:
    https://orbax.readthedocs.io/en/latest/guides/checkpoint/checkpoint_format.html
"""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from jaxprobe import boundary

_DATABASE = "manifest.ocdbt"
_DRIVERS = {".zarray": "zarr", "zarr.json": "zarr3"}
_METADATA = "_METADATA"
_LARGEST_METADATA, _LARGEST_HEADER, _MOST_LEAVES = 32 << 20, 1 << 20, 1 << 16
_WHAT, _REMEDY = "a whole Orbax directory", "fetch it again"
# Bytes per entry; leaves of other types are refused when they are read.
_ITEM_BYTES = {"<f4": 4, "float32": 4, "<f2": 2, "float16": 2, "bfloat16": 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrbaxTree:
    """An opened tree.

    Attributes:
        folder: The directory that Orbax wrote.
        arrays: Leaf to its array; a leaf's name is its path in the tree, joined by slashes.
    """

    folder: Path
    arrays: Mapping[str, ts.TensorStore] = dataclasses.field(repr=False)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every leaf's shape."""
        return {name: tuple(array.shape) for name, array in self.arrays.items()}

    def path(self, name: str) -> Path:
        """The directory, the same for all leaves."""
        return self.folder

    def dtype(self, name: str) -> np.dtype:
        """Number format of a leaf.

        Raises:
            ValueError: Not a floating-point format.
        """
        kind = self.arrays[name].dtype.name
        if kind not in ("float32", "float16", "bfloat16"):
            raise ValueError(
                f"`{name}` of {self.folder} must be float32, float16 or bfloat16, got {kind}"
            )
        return self.arrays[name].dtype.numpy_dtype

    def read(
        self, name: str, shape: tuple[int, ...], slab: tuple[slice, ...], dtype: np.dtype
    ) -> np.ndarray:
        """A part of a leaf.

        Args:
            name: One of `arrays`.
            shape: The leaf's shape, or one with axes split further.
            slab: A range of each axis of `shape`.
            dtype: Type of the result.
        """
        array, outer, inner, sizes, at = self.arrays[name], [], [], [], 0
        for size in array.shape:  # finds the axes of `shape` that each stored axis was split into
            end = at + 1
            while math.prod(shape[at:end]) != size:
                end += 1
            rest = math.prod(shape[at + 1 : end])
            outer.append(slice(slab[at].start * rest, slab[at].stop * rest))
            inner += [slice(None), *slab[at + 1 : end]]
            sizes += [slab[at].stop - slab[at].start, *shape[at + 1 : end]]
            at = end
        view = ts.cast(array[tuple(outer)], np.dtype(dtype))
        try:
            values = np.asarray(view.read().result())
        except (ValueError, OSError) as error:
            raise boundary.FileError(
                f"`{name}` of {self.folder} cannot be read ({' '.join(str(error).split())[:300]}); fetch"
                " it again, or, if it was written by an old version of Orbax, which left out chunks of"
                " zeros, save it again with a recent one"
            ) from error
        return values.reshape(sizes)[tuple(inner)]


def find_tree(folder: Path) -> Path | None:
    """The Orbax directory at `folder` or one level below it; None where there is none or several."""
    if _is_tree(folder):
        return folder
    below = [path for path in sorted(folder.iterdir()) if path.is_dir() and _is_tree(path)]
    return below[0] if len(below) == 1 else None


def open_tree(folder: Path) -> OrbaxTree:
    """Opens every leaf's header.

    Reading a missing chunk is an error and does not give zeros, because Orbax stores chunks of zeros too.

    Raises:
        ValueError: The directory is damaged, or its files are too small for its arrays.
    """
    with boundary.reader(folder, _WHAT, _REMEDY):
        packed = _packed_bytes(folder)
        base: dict[str, Any] = {"driver": "file", "path": f"{folder.absolute()}/"}
        if (folder / _DATABASE).exists():
            base = {"driver": "ocdbt", "base": base}
        specs = _leaves(ts.KvStore.open(base).result(), base, folder, packed)
        _check_metadata(folder, set(specs))
        opened = {name: ts.open(spec, read=True, open=True) for name, spec in specs.items()}
        arrays = {name.replace(".", "/"): _opened(name, future) for name, future in opened.items()}
        if len(arrays) < len(specs):
            raise ValueError("two of its leaves have the same name")
    return OrbaxTree(folder=folder, arrays=arrays)


def _opened(leaf: str, future: ts.Future) -> ts.TensorStore:
    try:
        return future.result()
    except (ValueError, OSError) as error:  # TensorStore's messages go on for pages
        raise ValueError(f"its leaf {leaf[:80]}: {' '.join(str(error).split())[:300]}") from error


def _packed_bytes(folder: Path) -> int:
    """Total size of the files, all of which must be regular."""
    total = 0
    for path in folder.rglob("*"):
        if not path.is_dir():
            with boundary.open_regular(path) as file:
                total += os.fstat(file.fileno()).st_size
    return total


def _leaves(
    store: ts.KvStore, base: Mapping[str, Any], folder: Path, packed: int
) -> dict[str, dict[str, Any]]:
    """Name of each leaf, as in the files, to the spec that opens it."""
    specs, wanted = {}, 0
    for key in sorted(key.decode() for key in store.list().result()):
        leaf, _, header = key.rpartition("/")
        if header not in _DRIVERS:
            continue
        if leaf in specs or len(specs) >= _MOST_LEAVES:
            raise ValueError(f"it has more than one header of `{leaf[:80]}`, or too many leaves")
        with boundary.reader(folder / key, "a zarr array's header", _REMEDY):
            value = store.read(key).result().value
            boundary.check_size(folder / key, len(value), _LARGEST_HEADER)
            wanted += _unpacked_bytes(leaf, json.loads(value), folder, packed)
        boundary.check_unpacked(folder, wanted, packed)
        place = {**base, "path": f"{base.get('path', '')}{leaf}/"}
        specs[leaf] = {
            "driver": _DRIVERS[header],
            "kvstore": place,
            "fill_missing_data_reads": False,
        }
    if not specs:
        raise ValueError(f"{folder} holds no arrays; is it a whole Orbax directory?")
    return specs


def _unpacked_bytes(leaf: str, header: Any, folder: Path, packed: int) -> int:
    """Bytes that a leaf takes in memory, by its header; checks that its chunks are within the limit."""
    if "chunk_grid" in header:
        chunk, kind = header["chunk_grid"]["configuration"]["chunk_shape"], header["data_type"]
    else:
        chunk, kind = header["chunks"], header["dtype"]
    item = _ITEM_BYTES.get(kind if isinstance(kind, str) else "", 8)
    sizes = [*header["shape"], *chunk]
    if len(header["shape"]) != len(chunk) or any(type(n) is not int or n < 0 for n in sizes):
        raise ValueError(f"the shapes of `{leaf[:80]}` must be lists of whole numbers")
    boundary.check_unpacked(folder, math.prod(chunk) * item, packed)
    return math.prod(header["shape"]) * item


def _check_metadata(folder: Path, leaves: set[str]) -> None:
    """Raises ValueError unless the leaves are those that the tree's metadata lists, where it has them."""
    path = folder / _METADATA
    if not path.exists():
        return
    listed = boundary.read_json(path, _LARGEST_METADATA)["tree_metadata"]
    wanted = {
        ".".join(str(key["key"]) for key in entry["key_metadata"])
        for entry in listed.values()
        if entry["value_metadata"]["value_type"] in ("jax.Array", "np.ndarray")
    }
    if wanted != leaves:
        absent, extra = sorted(wanted - leaves), sorted(leaves - wanted)
        raise ValueError(
            f"its {_METADATA} and arrays disagree: without {absent[:4]}, extra {extra[:4]}"
        )


def _is_tree(folder: Path) -> bool:
    marks = ("_METADATA", "_CHECKPOINT_METADATA", "checkpoint", _DATABASE)
    if (folder / _DATABASE).exists():
        return True
    return any((folder / mark).is_file() for mark in marks) and any(folder.rglob(".zarray"))
