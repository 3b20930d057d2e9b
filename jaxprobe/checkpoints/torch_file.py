"""Tensors out of `torch.save` files (`ae.pt`, `.sae.pt`, `.pth`), without torch and without running anything.

Such a file is a zip of a pickle (`data.pkl`) and one raw file per storage (`data/N`). A pickle is a
program; `state_pickle` reads it as data. What it says of storages and tensors is compared with the
members of the zip before a byte of them is read.
"""

import math
from pathlib import Path

import ml_dtypes
import numpy as np

from jaxprobe import boundary
from jaxprobe.checkpoints import state_pickle
from jaxprobe.checkpoints.archive import Archive, open_archive
from jaxprobe.checkpoints.state_pickle import Refused, Storage, Tensor

STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
WAY_OUT = (
    "jaxprobe reads plain state dictionaries only and never runs a pickle; if you trust the file,"
    " convert it where torch is: `safetensors.torch.save_file({k: v.contiguous() for k, v in"
    " torch.load(FILE, weights_only=True).items()}, OUT)`"
)


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dictionary by name, of the types that were stored.

    Args:
        path: The file.

    Raises:
        FileError: Not such an archive, a damaged one, or a pickle that asks for anything else.
    """
    what, remedy = "a zip archive as `torch.save` writes it", "was its download cut short?"
    with boundary.reader(path, what, f"{remedy} {WAY_OUT}"), open_archive(path) as archive:
        try:
            return _State(archive).tensors()
        except Refused as error:
            raise boundary.FileError(f"{path} is refused: {error}; {WAY_OUT}") from None


class _State:
    """The state dictionary of an archive."""

    def __init__(self, archive: Archive):
        pickles = [name for name in archive.sizes if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Refused(f"it holds {len(pickles)} members data.pkl, wanted one")
        self._archive = archive
        self._root = pickles[0].removesuffix("data.pkl")
        packed = [name for name in archive.sizes if not archive.is_stored(name)]
        if packed:
            raise Refused(f"its member {packed[0]} is compressed")
        order = f"{self._root}byteorder"
        if archive.sizes.get(order, 6) > 16 or (
            order in archive.sizes and archive.read(order).strip() != b"little"
        ):
            raise Refused("its numbers are not little-endian")
        if archive.sizes[pickles[0]] > state_pickle.BYTES:
            raise Refused(f"its pickle has {archive.sizes[pickles[0]]:,} bytes")
        content = archive.read(pickles[0])
        self._content = state_pickle.read(content, frozenset(STORAGES))
        self._storages: dict[str, tuple[Storage, np.ndarray]] = {}

    def tensors(self) -> dict[str, np.ndarray]:
        """The tensors of the dictionary; numbers and texts beside them are left out."""
        content = self._content
        if type(content) is not dict:
            raise Refused(f"it must hold a dictionary of tensors, got {type(content).__name__}")
        found = {name: value for name, value in content.items() if type(value) is Tensor}
        if not found or not all(type(name) is str for name in found):
            names = ", ".join(f"{name!s:.40}" for name in list(content)[:8]) or "nothing"
            raise Refused(f"it must hold tensors by name, got {names}")
        return {name: self._view(tensor) for name, tensor in found.items()}

    def _view(self, tensor: Tensor) -> np.ndarray:
        """A tensor as a view of its storage; a shape that leaves it, or repeats it, is refused."""
        numbers, size = self._numbers(tensor.storage), tensor.size
        count = math.prod(size)
        steps = zip(size, tensor.stride, strict=True)
        last = tensor.offset + sum((n - 1) * step for n, step in steps)
        if count and (last >= numbers.size or count > numbers.size):
            raise Refused(f"a tensor of shape {size} does not fit its storage")
        if not count:
            return np.zeros(size, numbers.dtype)
        strides = [step * numbers.itemsize for step in tensor.stride]
        return np.lib.stride_tricks.as_strided(
            numbers[tensor.offset :], size, strides, writeable=False
        )

    def _numbers(self, storage: Storage) -> np.ndarray:
        """Bytes of the archive's member, viewed, never interpreted."""
        if storage.key not in self._storages:
            member, dtype = f"{self._root}data/{storage.key}", STORAGES[storage.kind]
            wanted, there = storage.count * dtype.itemsize, self._archive.sizes.get(member)
            if there != wanted:
                raise Refused(f"storage {storage.key!r} must have {wanted} bytes, got {there}")
            numbers = np.frombuffer(self._archive.read(member), dtype)
            self._storages[storage.key] = storage, numbers
        known, numbers = self._storages[storage.key]
        if known != storage:
            raise Refused(f"storage {storage.key!r} is described in two ways")
        return numbers
