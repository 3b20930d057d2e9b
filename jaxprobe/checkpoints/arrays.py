"""Reading the arrays of weight files, whatever number format they are stored in."""

import contextlib
import os
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes  # gives NumPy the type bfloat16, which safetensors asks it for
import numpy as np
import safetensors

from jaxprobe import boundary, sealed
from jaxprobe.checkpoints import torch_file
from jaxprobe.place import Place
from jaxprobe.saes import described

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
EXACT = 2**24  # up to which float32 holds every whole number
_HEADER_BYTES = 8 << 20  # of a safetensors file: an SAE's takes 600, ours holds one JSON text more


@contextlib.contextmanager
def open_safetensors(
    path: Path | Place,
    what: str = "a safetensors file",
    remedy: str = "was it cut short while being copied? fetch it again",
) -> Iterator[Any]:
    """Opens a safetensors file; the library checks that its arrays cover it without holes or overlaps.

    Args:
        path: The file, or the place of one of ours.
        what: What it should be, for the message.
        remedy: What to do where it is not.

    Raises:
        FileError: Not such a file, or a damaged one.
    """
    if isinstance(path, Place):
        with boundary.reader(str(path), what, remedy), sealed.open_safetensors(path) as opened:
            yield opened
        return
    with boundary.reader(path, what, remedy):
        with boundary.open_regular(path) as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(_HEADER_BYTES, os.fstat(file.fileno()).st_size):
                raise ValueError(f"its header claims {length:,} bytes")
        with safetensors.safe_open(path, framework="numpy") as opened:
            yield opened


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a safetensors file, of the types that were stored.

    Raises:
        FileError: Not such a file, or a damaged one.
    """
    with open_safetensors(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a safetensors file or of what `torch.save` wrote.

    Raises:
        FileError: A damaged file, or a pickle of more than tensors.
    """
    return read_safetensors(path) if path.suffix == ".safetensors" else torch_file.read(path)


def check_keys(
    arrays: Mapping[str, Any],
    wanted: Iterable[str],
    path: Path | Place,
    optional: Iterable[str] = (),
) -> None:
    """Raises ValueError unless all wanted arrays are there and none that is neither.

    An array that nobody reads may change what the others mean.
    """
    wanted = list(wanted)
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise boundary.FileError(
            f"{path} must hold the arrays {', '.join(wanted)}; it lacks {', '.join(missing)} and"
            f" has {_listed(arrays)}"
        )
    extra = [name for name in arrays if name not in {*wanted, *optional}]
    if extra:
        raise boundary.FileError(
            f"{path} must hold the arrays {', '.join(wanted)} only; it also has"
            f" {_listed(extra)}, whose meaning is not known"
        )


def fields(
    arrays: Mapping[str, np.ndarray],
    keys: Mapping[str, str],
    path: Path | Place,
    transposed: Container[str] = (),
) -> dict[str, jax.Array]:
    """The arrays that fill fields of an SAE, as `float32` gives them.

    Args:
        arrays: What the file holds.
        keys: Array name in the file -> field that it fills.
        path: The file, for messages.
        transposed: Names of matrices that are stored the other way round.

    Raises:
        FileError: See `float32`.
    """
    return {
        field: float32(arrays[key], key, path, transpose=key in transposed)
        for key, field in keys.items()
    }


def float32(array, name: str, path: Path | Place, *, transpose: bool = False) -> jax.Array:
    """A stored array as float32 on the device.

    Raises:
        FileError: It holds no numbers, one that is not finite, or one that float32 cannot hold:
            beyond 3.4e38, or a whole number beyond 2^24. In thresholds infinity is a number, that
            of a latent which is switched off.
    """
    array = np.asarray(array)
    array = array.T if transpose and array.ndim == 2 else array
    if array.dtype.kind not in "fiu" and array.dtype != BFLOAT16:
        raise boundary.FileError(f"{path} must hold numbers as `{name}`, got {array.dtype!s:.60}")
    if array.dtype.kind in "iu" and array.size and max(-int(array.min()), int(array.max())) > EXACT:
        raise boundary.FileError(
            f"{path} must hold whole numbers up to {EXACT} as `{name}`, got"
            f" {max(-int(array.min()), int(array.max()))}, which float32 would round"
        )
    with np.errstate(over="ignore"):
        single = np.asarray(array, np.float32, order="C")  # scalars stay scalars
    if not described.is_finite(single):
        _explain(array, single, name, path)
    return jnp.asarray(single)


def whole_numbers(array, name: str, path: Path | Place) -> tuple[int, ...]:
    """An array of counts, in order.

    Raises:
        FileError: It is no list of whole numbers above zero.
    """
    array = np.asarray(array)
    if array.dtype.kind not in "iu" or array.ndim > 1 or not array.size or array.min() < 1:
        raise boundary.FileError(
            f"{path} must hold whole numbers above zero as `{name}`, got {array.dtype} of shape"
            f" {array.shape}: {np.ravel(array)[:4].tolist()!s:.80}"
        )
    return tuple(int(number) for number in np.ravel(array))


def _explain(array: np.ndarray, single: np.ndarray, name: str, path: Path | Place) -> None:
    """Raises FileError for numbers that may not stand where they do."""
    rounded = ~np.isfinite(single) & np.isfinite(np.asarray(array, np.float64))
    wrong = described.not_finite(single, name) | rounded
    if wrong.any():
        place = tuple(int(number) for number in np.argwhere(wrong)[0])
        raise boundary.FileError(
            f"{path} must hold finite float32 numbers as `{name}`, got {array[place]!s:.40} at index"
            f" {place} ({int(wrong.sum())} such entries); it is damaged, or its training diverged"
        )


def _listed(names: Iterable[str]) -> str:
    """Names of arrays as they can be shown."""
    shown = [ascii(name)[1:-1][:80] for name in names]
    more = f" and {len(shown) - 20} more" if len(shown) > 20 else ""
    return ", ".join(shown[:20]) + more or "none"
