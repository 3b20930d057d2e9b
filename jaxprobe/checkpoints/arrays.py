"""Reading the arrays of weight files, whatever number format they are stored in."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes  # gives NumPy the type bfloat16, which safetensors asks it for
import numpy as np
import safetensors

from jaxprobe.checkpoints import torch_file

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a safetensors file, of the types that were stored.

    Raises:
        ValueError: Not such a file, or a damaged one.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} must be a safetensors file, and cannot be read as one ({error}); was it cut"
            " short while being copied?"
        ) from None


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a safetensors file or of what `torch.save` wrote.

    Raises:
        ValueError: A damaged file, or a pickle of more than tensors.
    """
    return read_safetensors(path) if path.suffix == ".safetensors" else torch_file.read(path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: There is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} must be a JSON file beside the weights ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def need(config: Mapping[str, Any], key: str, path: Path) -> Any:
    """An entry of a config file.

    Raises:
        ValueError: It is not there.
    """
    if config.get(key) is None:
        known = ", ".join(sorted(config)) or "nothing"
        raise ValueError(f"{path} must have an entry {key!r}, got {known}")
    return config[key]


def check_keys(
    arrays: Mapping[str, Any], wanted: Iterable[str], path: Path, optional: Iterable[str] = ()
) -> None:
    """Raises ValueError unless all wanted arrays are there and none that is neither.

    An array that nobody reads may change what the others mean.
    """
    wanted = list(wanted)
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise ValueError(
            f"{path} must hold the arrays {', '.join(wanted)}; it lacks {', '.join(missing)} and"
            f" has {', '.join(arrays) or 'none'}"
        )
    extra = [name for name in arrays if name not in {*wanted, *optional}]
    if extra:
        raise ValueError(
            f"{path} must hold the arrays {', '.join(wanted)} only; it also has"
            f" {', '.join(extra)}, whose meaning is not known"
        )


def float32(array, transpose: bool = False) -> jax.Array:
    """A stored array as float32 on the device."""
    array = np.asarray(array)
    array = array.T if transpose and array.ndim == 2 else array
    if array.dtype.kind not in "fiub" and array.dtype != BFLOAT16:
        raise ValueError(f"an array must hold numbers, got {array.dtype}")
    return jnp.asarray(np.asarray(array, np.float32, order="C"))  # scalars stay scalars
