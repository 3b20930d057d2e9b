"""The header of a GGUF file: metadata and where tensors are stored, within the format's limits and ours.

Whatever the file claims is compared with its length before it is used. The rules are those of llama.cpp: no key or
tensor twice, no arrays of arrays, tensors one after the other.

References:
    https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import dataclasses
import math
import mmap
import os
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from jaxprobe import boundary

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
# The format's limits.
_MOST_AXES, _LONGEST_KEY, _LONGEST_NAME = 4, 65_535, 64
# Our own limits, several times what the largest published vocabularies and models need.
_LARGEST_HEADER = 64 << 20
_MOST_KEYS, _MOST_TENSORS, _MOST_STRINGS = 1 << 14, 1 << 16, 1 << 20

_Kind = gguf.GGUFValueType
_SCALARS = {
    _Kind.UINT8: np.dtype("<u1"),
    _Kind.INT8: np.dtype("<i1"),
    _Kind.UINT16: np.dtype("<u2"),
    _Kind.INT16: np.dtype("<i2"),
    _Kind.UINT32: np.dtype("<u4"),
    _Kind.INT32: np.dtype("<i4"),
    _Kind.FLOAT32: np.dtype("<f4"),
    _Kind.BOOL: np.dtype("?"),
    _Kind.UINT64: np.dtype("<u8"),
    _Kind.INT64: np.dtype("<i8"),
    _Kind.FLOAT64: np.dtype("<f8"),
}

_TYPES = {kind.value: kind for kind in _Kind}
_STORAGE = {kind.value: kind for kind in gguf.GGMLQuantizationType}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Where a tensor is stored in the file.

    Attributes:
        shape: Sizes, slowest axis first (the file itself lists them in reverse order).
        kind: The storage type, for example Q4_K.
        offset: First byte, from the start of the file.
    """

    shape: tuple[int, ...]
    kind: gguf.GGMLQuantizationType
    offset: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one run along the fastest axis."""
        block, size = gguf.GGML_QUANT_SIZES[self.kind]
        return self.shape[-1] // block * size


def read(path: Path) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
    """Metadata (numbers, booleans, strings, lists of strings, arrays) and tensors by name.

    Raises:
        ValueError: Not a GGUF file, or one that breaks a rule of the format.
    """
    with boundary.open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(len(_MAGIC))
        if head != _MAGIC:
            raise boundary.FileError(
                f"{path} must be a GGUF file, which begins with {_MAGIC!r}, got {head!r}"
            )
        length = min(size, _LARGEST_HEADER)
        with mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ) as view:
            return _parse(_Cursor(view, len(_MAGIC), size), size)


class _Cursor:
    """Reads little-endian values one after the other from the beginning of a file."""

    def __init__(self, view: mmap.mmap, at: int, size: int):
        self.view, self.at, self.size = view, at, size
        self.strings_left = _MOST_STRINGS

    def claim(self, count: int, item_bytes: int, what: str) -> int:
        """The number of bytes of `count` items; raises where the rest of the header is shorter."""
        wanted = count * item_bytes
        if wanted <= len(self.view) - self.at:
            return wanted
        if self.at + wanted <= self.size:
            raise ValueError(f"its header must take at most {_LARGEST_HEADER >> 20} MiB")
        raise ValueError(f"it ends inside its header, in {what}: it has {self.size} bytes")

    def numbers(self, code: str, what: str = "its counts") -> tuple:
        form = "<" + code
        self.claim(1, struct.calcsize(form), what)
        found = struct.unpack_from(form, self.view, self.at)
        self.at += struct.calcsize(form)
        return found

    def text(self, longest: int = _LARGEST_HEADER, what: str = "a string") -> str:
        (length,) = self.numbers("Q", what)
        if length > longest:
            raise ValueError(f"{what} must have at most {longest:,} bytes, got {length:,}")
        self.claim(1, length, what)
        start, self.at = self.at, self.at + length
        return self.view[start : self.at].decode("utf-8")

    def texts(self, count: int, what: str) -> list[str]:
        self.claim(count, 8, what)
        self.strings_left -= count
        if self.strings_left < 0:
            raise ValueError(f"its lists must hold at most {_MOST_STRINGS:,} strings")
        view, at, most = self.view, self.at, len(self.view)
        length_at, found = struct.Struct("<Q").unpack_from, []
        try:
            for _ in range(count):
                start = at + 8
                at = start + length_at(view, at)[0]
                if at > most:
                    break
                found.append(str(view[start:at], "utf-8"))
        except struct.error:
            at = most + 1
        self.claim(1, at - self.at, what)
        self.at = at
        return found

    def array(self, kind: gguf.GGUFValueType, count: int, what: str) -> np.ndarray:
        start, dtype = self.at, _SCALARS[kind]
        self.at += self.claim(count, dtype.itemsize, what)
        if kind == _Kind.BOOL and self.view[start : self.at].strip(b"\0\1"):
            raise ValueError(f"{what} must hold true (1) or false (0)")
        return np.frombuffer(self.view[start : self.at], dtype)


def _parse(cursor: _Cursor, size: int) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
    (version,) = cursor.numbers("I")
    if version not in _VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS
        raise ValueError(
            f"the GGUF version must be one of {_VERSIONS} (little-endian), got"
            f" {'a big-endian file' if swapped else version}"
        )
    num_tensors, num_keys = cursor.numbers("QQ")
    for what, count, most in (
        ("tensors", num_tensors, _MOST_TENSORS),
        ("metadata keys", num_keys, _MOST_KEYS),
    ):
        if count > most:
            raise ValueError(f"it must have at most {most:,} {what}, got {count:,}")
    metadata: dict[str, Any] = {}
    for _ in range(num_keys):
        key = cursor.text(_LONGEST_KEY, "a metadata key")
        if key in metadata:
            raise ValueError(f"it has the metadata `{key[:80]}` twice")
        metadata[key] = _value(cursor, key)
    alignment = metadata.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"`general.alignment` must be a power of two, got {alignment!r:.80}")
    return metadata, _tensors(cursor, num_tensors, alignment, size)


def _value(cursor: _Cursor, key: str):
    what = f"`{key[:80]}`"
    kind = _kind(cursor.numbers("I", what)[0], what)
    if kind == _Kind.STRING:
        return cursor.text(what=what)
    if kind != _Kind.ARRAY:
        return cursor.array(kind, 1, what)[0].item()
    number, count = cursor.numbers("IQ", what)
    kind = _kind(number, what)
    if kind == _Kind.ARRAY:
        raise ValueError(f"{what} must hold numbers or strings, got an array of arrays")
    if kind == _Kind.STRING:
        return cursor.texts(count, what)
    return cursor.array(kind, count, what)


def _kind(number: int, what: str) -> gguf.GGUFValueType:
    kind = _TYPES.get(number)
    if kind is None:
        raise ValueError(f"{what} must be of a known type, got type {number}")
    return kind


def _tensors(cursor: _Cursor, count: int, alignment: int, size: int) -> dict[str, StoredTensor]:
    cursor.claim(count, 32, "its tensors")  # each takes at least 32 bytes
    found: dict[str, tuple] = {}
    for _ in range(count):
        name = cursor.text(_LONGEST_NAME, "a tensor's name")
        if name in found:
            raise ValueError(f"it has the tensor `{name}` twice")
        found[name] = _tensor(cursor, name)
    start = -(-cursor.at // alignment) * alignment
    tensors, at = {}, 0
    for name, (shape, kind, offset) in found.items():
        if offset != at:
            raise ValueError(
                f"tensor `{name}` must begin {at} bytes after the header, where the one before it ends,"
                f" got {offset}"
            )
        tensors[name] = StoredTensor(shape=shape, kind=kind, offset=start + offset)
        end = start + at + math.prod(shape[:-1]) * tensors[name].row_bytes
        if end > size:
            raise ValueError(
                f"it is cut short: tensor `{name}` ends at byte {end}, the file at {size}"
            )
        at = -(-(end - start) // alignment) * alignment
    return tensors


def _tensor(cursor: _Cursor, name: str) -> tuple[tuple[int, ...], gguf.GGMLQuantizationType, int]:
    (num_axes,) = cursor.numbers("I", name)
    if not 1 <= num_axes <= _MOST_AXES:
        raise ValueError(f"tensor `{name}` must have 1 to {_MOST_AXES} axes, got {num_axes}")
    *sizes, number, offset = cursor.numbers(f"{num_axes}QIQ", name)
    kind = _STORAGE.get(number)
    if kind is None:
        raise ValueError(f"tensor `{name}` has an unknown storage type, number {number}")
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    if 0 in sizes or sizes[0] % block:
        raise ValueError(
            f"tensor `{name}` must have rows of whole blocks of {block}, got the sizes {sizes}"
        )
    return tuple(sizes[::-1]), kind, offset
