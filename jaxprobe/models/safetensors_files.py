"""Safetensors: one file or the shards of an index, read with plain reads of the bytes that are wanted.

No memory map: what a map has touched counts as the process's memory until the kernel takes it back.

References:
    https://github.com/huggingface/safetensors#format
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from jaxprobe.models.slabs import Slab, read_slab

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
_DTYPES = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_LARGEST_HEADER = 100 << 20  # the format's own limit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where a tensor lies: its file, the offset of its first byte, its stored type and shape."""

    path: Path
    offset: int
    kind: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SafetensorsFiles:
    """The tensors of one file or of an index's shards; a `parameters.TensorFiles`.

    Attributes:
        paths: The files, in order of their names.
        places: Tensor name to its place.
    """

    paths: tuple[Path, ...]
    places: Mapping[str, Place] = dataclasses.field(repr=False)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's shape."""
        return {name: place.shape for name, place in self.places.items()}

    def dtype(self, name: str) -> np.dtype:
        """Number format of a tensor.

        Raises:
            ValueError: A format other than F32, F16 and BF16.
        """
        place = self.places[name]
        if place.kind not in _DTYPES:
            raise ValueError(
                f"tensor `{name}` of {place.path.name} must be stored as one of {', '.join(_DTYPES)},"
                f" got {place.kind}; quantised models are read from GGUF files"
            )
        return _DTYPES[place.kind]

    def read(self, name: str, shape: tuple[int, ...], slab: Slab, dtype: np.dtype) -> np.ndarray:
        """A slab of a tensor seen as `shape`, as `parameters.TensorFiles` says."""
        place, stored = self.places[name], self.dtype(name)
        with place.path.open("rb", buffering=0) as file:

            def fetch(start: int, count: int) -> np.ndarray:
                run = np.empty(count, stored)
                file.seek(place.offset + start * stored.itemsize)
                view, filled = run.view(np.uint8).data, 0
                while filled < len(view):
                    got = file.readinto(view[filled:])
                    if not got:
                        raise ValueError(f"{place.path} is cut short in `{name}`; fetch it again")
                    filled += got
                return run

            return read_slab(fetch, shape, slab, dtype, stored.itemsize)


def has_weights(folder: Path) -> bool:
    """Whether a directory holds safetensors under the names that `open_safetensors` reads."""
    return (folder / INDEX).is_file() or (folder / SINGLE).is_file()


def open_safetensors(folder: Path) -> SafetensorsFiles:
    """Reads the headers of a directory's weights: `model.safetensors`, or what its index names.

    Raises:
        ValueError: No such files, or files that are damaged or disagree with the index.
    """
    index = folder / INDEX
    if index.exists():
        weight_map = _weight_map(index)
        paths = tuple(folder / name for name in sorted(set(weight_map.values())))
    else:
        weight_map = None
        paths = (folder / SINGLE,)
        if not paths[0].exists():
            raise ValueError(
                f"{folder} must hold {SINGLE} or {INDEX}; other weight formats (.bin, .pt) are pickles"
                " and are never opened: convert them with `save_pretrained(..., safe_serialization=True)`"
            )
    places: dict[str, Place] = {}
    for path in paths:
        if not path.exists():
            raise ValueError(f"{INDEX} names {path.name}, which {folder} lacks; fetch it too")
        places |= read_header(path)
    absent = sorted(set(weight_map or ()) - set(places))
    if absent:
        raise ValueError(f"{INDEX} of {folder} names tensors that its files lack: {absent[:4]}")
    return SafetensorsFiles(paths=paths, places=places)


def read_header(path: Path) -> dict[str, Place]:
    """The tensors of one file and their places.

    Raises:
        ValueError: Not a safetensors file, or one that is cut short.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(_LARGEST_HEADER, size - 8):
            raise ValueError(f"{path} is not a whole safetensors file; fetch it again")
        try:
            header = json.loads(file.read(length))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            return {name: _place(path, 8 + length, size, entry) for name, entry in entries.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is not a whole safetensors file ({error})") from error


def _place(path: Path, start: int, size: int, entry: Mapping) -> Place:
    begin, end = entry["data_offsets"]
    shape = tuple(int(axis) for axis in entry["shape"])
    kind = str(entry["dtype"])
    wanted = math.prod(shape) * _DTYPES[kind].itemsize if kind in _DTYPES else end - begin
    if end - begin != wanted or begin < 0 or min((*shape, 1)) < 0:
        raise ValueError(f"an entry of shape {shape} takes {end - begin} bytes, wanted {wanted}")
    if start + end > size:
        raise ValueError(f"an entry ends at byte {start + end}, the file at {size}: fetch it again")
    return Place(path=path, offset=start + begin, kind=kind, shape=shape)


def _weight_map(index: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        names = {str(name): str(file) for name, file in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} must be JSON with a `weight_map` ({error})") from error
    outside = [file for file in names.values() if Path(file).name != file]
    if outside:
        raise ValueError(f"{index} names a file outside its folder: {outside[0]!r}")
    return names
