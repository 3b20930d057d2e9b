"""Tensors out of `torch.save` files (`ae.pt`, `.sae.pt`, `.pth`), without torch and without running anything.

Such a file is a zip of a pickle (`data.pkl`) and one raw file per storage (`data/N`). A pickle is a
program, so this one is read by an interpreter that knows three names: the ordered dictionary, the
types of storages and the assembly of a tensor from one, the latter two replaced by functions of this
module that only describe and view bytes. Any other name is refused.
"""

import collections
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

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


class _StorageType(NamedTuple):
    """Stands for a storage class of torch; cannot be called."""

    name: str


class _Tensor(NamedTuple):
    """A tensor that was assembled; a type of its own, so that nothing else passes for one."""

    array: np.ndarray


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dictionary by name, of the types that were stored.

    Args:
        path: The file.

    Raises:
        ValueError: Not such an archive, a damaged one, or a pickle that asks for anything else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = _Reader(archive, path).load_pickle()
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise ValueError(
            f"{path} must be a zip archive as `torch.save` writes it, and cannot be read as one"
            f" ({error}); was its download cut short? {WAY_OUT}"
        ) from None
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is refused: {error}; {WAY_OUT}") from None
    except (AttributeError, IndexError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} holds a pickle that makes no state dictionary ({error}); {WAY_OUT}"
        ) from None
    return _tensors(content, path)


def _tensors(content: Any, path: Path) -> dict[str, np.ndarray]:
    """The tensors of a dictionary; numbers and texts beside them are left out."""
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} must hold a dictionary of tensors, got {type(content).__name__}; {WAY_OUT}"
        )
    found = {name: value.array for name, value in content.items() if isinstance(value, _Tensor)}
    if not found or not all(isinstance(name, str) for name in found):
        names = ", ".join(str(name) for name in list(content)[:8]) or "nothing"
        raise ValueError(f"{path} must hold tensors by name, got {names}; {WAY_OUT}")
    return found


class _Reader(pickle.Unpickler):
    """The interpreter: every name it can look up is in `find_class`."""

    def __init__(self, archive: zipfile.ZipFile, path: Path):
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise pickle.UnpicklingError(f"it holds {len(pickles)} members data.pkl, wanted one")
        self._archive, self._path = archive, path
        self._root = pickles[0].removesuffix("data.pkl")
        packed = [i.filename for i in archive.infolist() if i.compress_type != zipfile.ZIP_STORED]
        if packed:
            raise pickle.UnpicklingError(f"its member {packed[0]} is compressed")
        self._sizes = {item.filename: item.file_size for item in archive.infolist()}
        self._storages: dict[str, np.ndarray] = {}
        order = f"{self._root}byteorder"
        if order in self._sizes and archive.read(order).strip() != b"little":
            raise pickle.UnpicklingError("its numbers are not little-endian")
        super().__init__(archive.open(pickles[0]), encoding="utf-8")

    def load_pickle(self) -> Any:
        """What the pickle describes."""
        return self.load()

    def find_class(self, module: str, name: str) -> Any:
        """The three names that a state dictionary needs, each harmless."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *arguments: _rebuild(*arguments)  # a new one, which nobody can prepare
        if module == "torch" and name in STORAGES:
            return _StorageType(name)
        raise pickle.UnpicklingError(f"its pickle asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> np.ndarray:
        """The numbers of a storage: bytes of the archive's member, viewed, never interpreted."""
        fits = isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage"
        if not (fits and isinstance(pid[1], _StorageType) and isinstance(pid[2], str)):
            raise pickle.UnpicklingError(
                f"its pickle refers to {str(pid)[:60]!r}, not to a storage"
            )
        _, kind, key, _, count = pid
        if key not in self._storages:
            member, dtype = f"{self._root}data/{key}", STORAGES[kind.name]
            if self._sizes.get(member) != count * dtype.itemsize:
                raise pickle.UnpicklingError(
                    f"storage {key!r} must have {count * dtype.itemsize} bytes, got"
                    f" {self._sizes.get(member)}"
                )
            self._storages[key] = np.frombuffer(self._archive.read(member), dtype)
        return self._storages[key]


def _rebuild(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Tensor:
    """A tensor as a view of its storage; a shape that leaves it, or repeats it, is refused."""
    numbers = (offset, *size, *stride)
    if not isinstance(storage, np.ndarray) or not all(
        isinstance(n, int) and 0 <= n < 2**48 for n in numbers
    ):
        raise pickle.UnpicklingError("a tensor's place in its storage makes no sense")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count and (last >= storage.size or count > storage.size):
        raise pickle.UnpicklingError(f"a tensor of shape {tuple(size)} does not fit its storage")
    if not count:
        return _Tensor(np.zeros(size, storage.dtype))
    steps = [step * storage.itemsize for step in stride]
    return _Tensor(np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False))
