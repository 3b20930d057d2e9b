"""The GGUF container: metadata, and tensors dequantised a few rows at a time.

The `gguf` package handles the quantised types. Its reader is not used, because it takes seconds for a vocabulary of
262,144 pieces, which is read here in a fraction of a second.

References:
    https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np

from jaxprobe import boundary, gguf_header
from jaxprobe.gguf_header import StoredTensor

_CHUNK_VALUES = 1 << 22  # values dequantised at once: 16 MiB as float32

_HALVES = {
    gguf.GGMLQuantizationType.F16: np.dtype("<f2"),
    gguf.GGMLQuantizationType.BF16: np.dtype(ml_dtypes.bfloat16),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GgufFile:
    """An open GGUF file.

    Attributes:
        path: The file.
        metadata: Key to value: a number, a boolean, a string, a list of strings or an array.
        tensors: Tensor name to where it is stored.
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
            raise ValueError(f"{self.path} has no metadata `{key}`; is it a whole model file?")
        return self.metadata[key]

    def fetch(self, name: str, start: int, count: int) -> np.ndarray:
        """Entries of one tensor, flattened and dequantised.

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
        wanted = count // block * size
        raw = np.fromfile(self.path, np.uint8, wanted, offset=first)
        if len(raw) != wanted:
            raise boundary.FileError(f"{self.path} is cut short in `{name}`; fetch it again")
        if tensor.kind in _HALVES:
            return raw.view(_HALVES[tensor.kind])
        # The library works on 16 rows at a time: long rows mean fewer steps.
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
        ValueError: Not a little-endian GGUF file of version 2 or 3, or one that is cut short, breaks a rule
            of the format, or is part of a split file.
    """
    path = Path(path)
    with boundary.reader(path, "a GGUF file", "fetch it again"):
        metadata, tensors = gguf_header.read(path)
    if metadata.get("split.count", 0) not in (0, 1):
        raise boundary.FileError(
            f"{path} must hold a whole model, got part {metadata.get('split.no')} of"
            f" {metadata['split.count']}; join them with llama.cpp's `llama-gguf-split --merge`"
        )
    return GgufFile(path=path, metadata=metadata, tensors=tensors)
