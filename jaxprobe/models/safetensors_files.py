"""Safetensors of a Hugging Face directory: which file holds a tensor, and its parts through the library.

The library's maps are opened anew for every run of bytes: what a map has touched counts as the process's memory
until it is closed.

References:
    https://github.com/huggingface/safetensors#format
"""

import dataclasses
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import safe_open

from jaxprobe import boundary
from jaxprobe.models.slabs import RUN_BYTES, Slab, read_slab

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
_DTYPES = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
# The library takes headers of 100 MB; 200 bytes for each of 80,000 tensors are 16 MiB.
_LARGEST_HEADER = 16 << 20
_LARGEST_INDEX = 32 << 20
_WHAT, _REMEDY = "a whole safetensors file", "fetch it again"
_WHAT_INDEX = "an index of safetensors files"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where a tensor lies: its file, its stored type and shape."""

    path: Path
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

    def path(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self.places[name].path

    def dtype(self, name: str) -> np.dtype:
        """Number format of a tensor.

        Raises:
            ValueError: A format other than F32, F16 and BF16.
        """
        place = self.places[name]
        if place.kind not in _DTYPES:
            raise boundary.FileError(
                f"tensor `{name}` of {place.path} must be stored as one of {', '.join(_DTYPES)},"
                f" got {place.kind}; quantised models are read from GGUF files"
            )
        return _DTYPES[place.kind]

    def read(self, name: str, shape: tuple[int, ...], slab: Slab, dtype: np.dtype) -> np.ndarray:
        """A slab of a tensor seen as `shape`, as `parameters.TensorFiles` says."""
        place, stored = self.places[name], self.dtype(name)

        def fetch(start: int, count: int) -> np.ndarray:
            return _run(place, name, start, count)

        return read_slab(fetch, shape, slab, dtype, stored.itemsize)


def has_weights(folder: Path) -> bool:
    """Whether a directory holds safetensors under the names that `open_safetensors` reads."""
    return (folder / INDEX).is_file() or (folder / SINGLE).is_file()


def open_safetensors(folder: Path) -> SafetensorsFiles:
    """Reads the headers of a directory's weights, from the files that transformers would read.

    These are `model.safetensors` where it is there, whatever an index beside it says, and else the files
    that the index names.

    Raises:
        ValueError: No such files, or files that are damaged or disagree with the index.
    """
    if (folder / SINGLE).is_file():
        return SafetensorsFiles(paths=(folder / SINGLE,), places=read_header(folder / SINGLE))
    if not (folder / INDEX).exists():
        other = sorted(path.name for path in folder.glob("*.safetensors"))
        raise boundary.FileError(
            f"{folder} must hold {SINGLE} or {INDEX}, got {', '.join(other[:4]) or 'neither'}; other weight"
            " formats (.bin, .pt) are pickles and are never opened: convert them with"
            " `save_pretrained(..., safe_serialization=True)`"
        )
    weight_map = _weight_map(folder / INDEX)
    paths = tuple(folder / name for name in sorted(set(weight_map.values())))
    with boundary.reader(
        folder / INDEX, _WHAT_INDEX, _REMEDY
    ):  # a name may be longer than names can be
        absent = [path.name for path in paths if not path.exists()]
    if absent:
        raise boundary.FileError(
            f"{folder / INDEX} names {absent[0]}, which {folder} lacks; fetch it too"
        )
    return SafetensorsFiles(paths=paths, places=_joined(paths, weight_map, folder / INDEX))


def read_header(path: Path) -> dict[str, Place]:
    """The tensors of one file and their places.

    Raises:
        ValueError: Not a safetensors file, or one that is cut short.
    """
    with boundary.reader(path, _WHAT, _REMEDY):
        with boundary.open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(_LARGEST_HEADER, size - 8):
            raise ValueError(f"its header would take {length} of {size} bytes")
        with safe_open(path, "numpy") as file:
            found = {name: file.get_slice(name) for name in file.keys()}
            return {
                name: Place(path=path, kind=part.get_dtype(), shape=tuple(part.get_shape()))
                for name, part in found.items()
            }


def _joined(paths: Iterable[Path], weight_map: Mapping[str, str], index: Path) -> dict[str, Place]:
    """The tensors of all files, each from the file that the index names.

    transformers reads every tensor of these files and keeps the last one of a name, so a file that holds
    another copy than the index's makes the model ambiguous.
    """
    places: dict[str, Place] = {}
    for path in paths:
        for name, place in read_header(path).items():
            listed, other = weight_map.get(name, path.name), places.get(name)
            if other is not None and not _same(other, place, name):
                raise boundary.FileError(
                    f"{index} names {listed} for the tensor `{name}`, but {other.path.name} and"
                    f" {path.name} hold different ones; remove the old file or fetch both again"
                )
            if other is None or listed == path.name:
                places[name] = place
    astray = [n for n, file in weight_map.items() if n not in places or places[n].path.name != file]
    if astray:
        raise boundary.FileError(
            f"{index} names {weight_map[astray[0]]} for the tensor `{astray[0]}`, which that file lacks"
            f" ({len(astray)} such tensors); fetch the index and its files again"
        )
    return places


def _same(one: Place, other: Place, name: str) -> bool:
    """Whether two files hold the same bits under a name."""
    if (one.kind, one.shape) != (other.kind, other.shape) or one.kind not in _DTYPES:
        return False
    count = math.prod(one.shape)
    step = RUN_BYTES // _DTYPES[one.kind].itemsize
    for start in range(0, count, step):
        runs = [_run(p, name, start, min(step, count - start)).tobytes() for p in (one, other)]
        if runs[0] != runs[1]:
            return False
    return True


def _run(place: Place, name: str, start: int, count: int) -> np.ndarray:
    """Entries `start` to `start + count` of a tensor laid out flat."""
    with safe_open(place.path, "numpy") as file:
        if not place.shape:
            return file.get_tensor(name).reshape(1)
        row = math.prod(place.shape[1:])
        first = start // row
        rows = file.get_slice(name)[first : -(-(start + count) // row)]
        return rows.reshape(-1)[start - first * row :][:count]


def _weight_map(index: Path) -> dict[str, str]:
    with boundary.reader(index, _WHAT_INDEX, _REMEDY):
        found = boundary.read_json(index, _LARGEST_INDEX, unique=True)
        weight_map = found.get("weight_map") if isinstance(found, dict) else None
        if not isinstance(weight_map, dict) or not weight_map:
            raise ValueError("it must hold a `weight_map` of tensors' names to files' names")
        for file in weight_map.values():
            inside = isinstance(file, str) and file not in ("", ".", "..")
            if not inside or Path(file).name != file or "\0" in file:
                raise ValueError(f"it names a file outside its folder: {file!r}")
            if not file.endswith(".safetensors"):
                raise ValueError(f"it names {file!r}, which is no .safetensors file")
        return weight_map
