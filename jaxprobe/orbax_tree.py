"""Parameter trees in Orbax directories: leaves by name, read a part at a time through TensorStore.

Orbax keeps every leaf of a tree as a zarr array, all of them in one OCDBT database or each in a folder of its own.
Orbax itself is not needed to read them.

References:
    https://orbax.readthedocs.io/en/latest/guides/checkpoint/checkpoint_format.html
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

_DATABASE = "manifest.ocdbt"
_DRIVERS = {".zarray": "zarr", "zarr.json": "zarr3"}


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
        """The directory, whichever leaf."""
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
        for size in array.shape:  # the axes that each stored axis was split into
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
            raise ValueError(f"`{name}` of {self.folder} cannot be read ({error})") from error
        return values.reshape(sizes)[tuple(inner)]


def find_tree(folder: Path) -> Path | None:
    """The Orbax directory at `folder` or one level below it; None where there is none or several."""
    if _is_tree(folder):
        return folder
    below = [path for path in sorted(folder.iterdir()) if path.is_dir() and _is_tree(path)]
    return below[0] if len(below) == 1 else None


def open_tree(folder: Path) -> OrbaxTree:
    """Opens every leaf's header.

    Raises:
        ValueError: A damaged directory.
    """
    try:
        base: dict[str, Any] = {"driver": "file", "path": f"{folder.absolute()}/"}
        if (folder / _DATABASE).exists():
            base = {"driver": "ocdbt", "base": base}
            keys = [key.decode() for key in ts.KvStore.open(base).result().list().result()]
        else:
            found = [path for name in _DRIVERS for path in folder.rglob(name)]
            keys = [path.relative_to(folder).as_posix() for path in found]
        opened = {}
        for key in sorted(keys):
            leaf, _, header = key.rpartition("/")
            if header not in _DRIVERS:
                continue
            place = {**base, "path": f"{base.get('path', '')}{leaf}/"}
            spec = {"driver": _DRIVERS[header], "kvstore": place}
            opened[leaf.replace(".", "/")] = ts.open(spec, read=True, open=True)
        arrays = {name: future.result() for name, future in opened.items()}
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{folder} is not a whole Orbax directory ({error}); fetch it again"
        ) from error
    if not arrays:
        raise ValueError(f"{folder} holds no arrays; is it a whole Orbax directory?")
    return OrbaxTree(folder=folder, arrays=arrays)


def _is_tree(folder: Path) -> bool:
    marks = ("_METADATA", "_CHECKPOINT_METADATA", "checkpoint", _DATABASE)
    if (folder / _DATABASE).exists():
        return True
    return any((folder / mark).is_file() for mark in marks) and any(folder.rglob(".zarray"))
