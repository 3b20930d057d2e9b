"""Parts of row-major tensors in files, read and cast a few MiB at a time."""

import math
from collections.abc import Callable

import ml_dtypes
import numpy as np

RUN_BYTES = 16 << 20  # fetched at once
Slab = tuple[slice, ...]

# Entries start to start + count of a tensor laid out flat, in its stored format.
Fetch = Callable[[int, int], np.ndarray]


def read_slab(
    fetch: Fetch, shape: tuple[int, ...], slab: Slab, dtype: np.dtype, item_bytes: int
) -> np.ndarray:
    """A slab of a tensor, cast to `dtype` run by run.

    Whole rows are fetched, of which a slab of the trailing axes keeps a part.

    Args:
        fetch: Reads a run of entries.
        shape: The tensor's shape, slowest axis first.
        slab: A range of each axis, `start` and `stop` given.
        dtype: Type of the result.
        item_bytes: Size of an entry as `fetch` returns it.
    """
    out = np.empty([part.stop - part.start for part in slab], dtype)
    if shape:
        _fill(out, fetch, shape, slab, 0, item_bytes)
    else:
        out[...] = fetch(0, 1)[0]
    return out


# The bits of infinity; only those of infinities and NaN are above, sign aside.
_INFINITY = {
    np.dtype(np.float32): 0x7F80_0000,
    np.dtype(np.float16): 0x7C00,
    np.dtype(ml_dtypes.bfloat16): 0x7F80,
}


def is_finite(values: np.ndarray) -> bool:
    """Whether no entry of a contiguous float32, float16 or bfloat16 array is infinite or NaN.

    Two passes over the bits at the memory's speed: `np.isfinite` takes ten times as long on the halves.
    """
    size, infinity = values.dtype.itemsize, _INFINITY[values.dtype]
    flat = values.reshape(-1)
    if not flat.size:
        return True
    positive, negative = flat.view(f"i{size}").max(), flat.view(f"u{size}").max()
    return bool(positive < infinity and negative < infinity + (1 << (8 * size - 1)))


def _fill(out, fetch: Fetch, shape: tuple[int, ...], slab: Slab, base: int, item_bytes: int):
    first, row = slab[0], math.prod(shape[1:])
    if len(shape) > 1 and row * item_bytes > RUN_BYTES:
        for at, entry in enumerate(range(first.start, first.stop)):
            _fill(out[at], fetch, shape[1:], slab[1:], base + entry * row, item_bytes)
        return
    step = max(1, RUN_BYTES // (row * item_bytes))
    for start in range(first.start, first.stop, step):
        count = min(step, first.stop - start)
        run = fetch(base + start * row, count * row).reshape(count, *shape[1:])
        at = start - first.start
        out[at : at + count] = run[(slice(None), *slab[1:])]
