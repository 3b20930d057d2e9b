"""The GGUF container: metadata, and tensors dequantised a few rows at a time.

The `gguf` package knows the quantised types; its reader is not used, because it spends seconds on a
vocabulary of 262,144 pieces that is read here in a fraction of one.

References:
    https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import dataclasses
import math
import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_CHUNK_VALUES = 1 << 22  # values dequantised at once: 16 MiB as float32

_SCALARS = {
    gguf.GGUFValueType.UINT8: np.dtype("<u1"),
    gguf.GGUFValueType.INT8: np.dtype("<i1"),
    gguf.GGUFValueType.UINT16: np.dtype("<u2"),
    gguf.GGUFValueType.INT16: np.dtype("<i2"),
    gguf.GGUFValueType.UINT32: np.dtype("<u4"),
    gguf.GGUFValueType.INT32: np.dtype("<i4"),
    gguf.GGUFValueType.FLOAT32: np.dtype("<f4"),
    gguf.GGUFValueType.BOOL: np.dtype("?"),
    gguf.GGUFValueType.UINT64: np.dtype("<u8"),
    gguf.GGUFValueType.INT64: np.dtype("<i8"),
    gguf.GGUFValueType.FLOAT64: np.dtype("<f8"),
}

_HALVES = {
    gguf.GGMLQuantizationType.F16: np.dtype("<f2"),
    gguf.GGMLQuantizationType.BF16: np.dtype(ml_dtypes.bfloat16),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Where a tensor lies in the file.

    Attributes:
        shape: Sizes, slowest axis first (the file itself lists them the other way round).
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class GgufFile:
    """An open GGUF file.

    Attributes:
        path: The file.
        metadata: Key to value: a number, a boolean, a string, a list of strings or an array.
        tensors: Tensor name to its place.
    """

    path: Path
    metadata: Mapping[str, Any] = dataclasses.field(repr=False)
    tensors: Mapping[str, StoredTensor] = dataclasses.field(repr=False)

    def value(self, key: str) -> Any:
        """The metadata under `key`.

        Raises:
            ValueError: The file has no such key.
        """
        if key not in self.metadata:
            raise ValueError(f"{self.path.name} has no metadata `{key}`; is it a whole model file?")
        return self.metadata[key]

    def fetch(self, name: str, start: int, count: int) -> np.ndarray:
        """Entries of one tensor laid out flat, dequantised.

        Args:
            name: One of `tensors`.
            start: First entry; a quantised tensor is read from the beginning of a row.
            count: Entries; whole rows of a quantised tensor.

        Returns:
            float16 or bfloat16 [count] where the tensor is stored so, otherwise float32.
        """
        tensor = self.tensors[name]
        block, size = gguf.GGML_QUANT_SIZES[tensor.kind]
        first = tensor.offset + start // block * size
        raw = np.fromfile(self.path, np.uint8, count // block * size, offset=first)
        if tensor.kind in _HALVES:
            return raw.view(_HALVES[tensor.kind])
        # The library works on 16 rows at a time: long rows spare it many small steps.
        blocks = len(raw) // size
        row = next(n for n in (256, 128, 64, 32, 16, 8, 4, 2, 1) if blocks % n == 0)
        return np.ravel(gguf.dequantize(raw.reshape(-1, row * size), tensor.kind))

    def stored_dtype(self, name: str) -> np.dtype:
        """What `fetch` returns."""
        return _HALVES.get(self.tensors[name].kind, np.dtype(np.float32))

    def read(self, name: str, dtype) -> np.ndarray:
        """Dequantises one tensor, holding at most a few rows of it in float32 besides the result.

        Args:
            name: One of `tensors`.
            dtype: Type of the result.

        Returns:
            Array of the tensor's shape.
        """
        tensor = self.tensors[name]
        width = tensor.shape[-1]
        out = np.empty(math.prod(tensor.shape), dtype)
        step = max(1, _CHUNK_VALUES // width) * width
        for start in range(0, len(out), step):
            count = min(step, len(out) - start)
            out[start : start + count] = self.fetch(name, start, count)
        return out.reshape(tensor.shape)


def open_gguf(path: Path) -> GgufFile:
    """Reads the header of a GGUF file.

    Raises:
        ValueError: Not a little-endian GGUF file of version 2 or 3, or one that is cut short.
    """
    path = Path(path)
    with path.open("rb") as file:
        head = file.read(len(_MAGIC))
        if head != _MAGIC:
            raise ValueError(
                f"{path} must be a GGUF file (it would open with {_MAGIC!r}), got {head!r}"
            )
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            try:
                metadata, tensors = _parse(_Cursor(view, len(_MAGIC)))
            except (struct.error, IndexError) as error:
                raise ValueError(f"{path} ends inside its header; fetch it again") from error
            _check_complete(path, tensors, len(view))
    return GgufFile(path=path, metadata=metadata, tensors=tensors)


class _Cursor:
    """Reads little-endian values one after the other."""

    def __init__(self, view: mmap.mmap, at: int):
        self.view, self.at = view, at

    def number(self, code: str):
        size = struct.calcsize(code)
        (value,) = struct.unpack_from("<" + code, self.view, self.at)
        self.at += size
        return value

    def text(self) -> str:
        size = self.number("Q")
        raw = self.view[self.at : self.at + size]
        if len(raw) != size:
            raise IndexError(size)
        self.at += size
        return raw.decode("utf-8")

    def array(self, dtype: np.dtype, count: int) -> np.ndarray:
        raw = self.view[self.at : self.at + count * dtype.itemsize]
        if len(raw) != count * dtype.itemsize:
            raise IndexError(count)
        self.at += len(raw)
        return np.frombuffer(raw, dtype)


def _parse(cursor: _Cursor) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
    version = cursor.number("I")
    if version not in _VERSIONS:
        raise ValueError(
            f"the GGUF version must be one of {_VERSIONS} (little-endian), got {version}"
        )
    num_tensors, num_keys = cursor.number("Q"), cursor.number("Q")
    metadata = {}
    for _ in range(num_keys):
        key = cursor.text()
        metadata[key] = _value(cursor, gguf.GGUFValueType(cursor.number("I")))
    found = [_tensor(cursor) for _ in range(num_tensors)]
    alignment = int(metadata.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT))
    start = -(-cursor.at // alignment) * alignment
    tensors = {
        name: StoredTensor(shape=shape, kind=kind, offset=start + offset)
        for name, shape, kind, offset in found
    }
    return metadata, tensors


def _value(cursor: _Cursor, kind: gguf.GGUFValueType):
    if kind == gguf.GGUFValueType.STRING:
        return cursor.text()
    if kind != gguf.GGUFValueType.ARRAY:
        return cursor.array(_SCALARS[kind], 1)[0].item()
    kind, count = gguf.GGUFValueType(cursor.number("I")), cursor.number("Q")
    if kind in _SCALARS:
        return cursor.array(_SCALARS[kind], count)
    return [_value(cursor, kind) for _ in range(count)]


def _tensor(cursor: _Cursor):
    name = cursor.text()
    sizes = tuple(cursor.number("Q") for _ in range(cursor.number("I")))
    kind = gguf.GGMLQuantizationType(cursor.number("I"))
    return name, sizes[::-1], kind, cursor.number("Q")


def _check_complete(path: Path, tensors: Mapping[str, StoredTensor], size: int) -> None:
    for name, tensor in tensors.items():
        end = tensor.offset + math.prod(tensor.shape[:-1]) * tensor.row_bytes
        if end > size:
            raise ValueError(
                f"{path} is cut short: tensor `{name}` ends at byte {end}, the file at {size};"
                " fetch it again"
            )
