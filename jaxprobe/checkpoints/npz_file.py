"""Arrays out of `.npz` files: plain numbers only, of the shapes that the members have bytes for."""

import io
import math
from pathlib import Path

import numpy as np

from jaxprobe import boundary
from jaxprobe.checkpoints.archive import Archive, open_archive

_HEADER_BYTES = 1 << 12  # of an array's description: its type, order and shape
_VERSIONS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an archive that `np.savez` wrote, as stored; nothing is unpickled.

    Raises:
        FileError: Another file, a damaged one, objects or records instead of numbers, shapes that
            disagree with the members' sizes, or more bytes than `boundary.unpacked_limit`.
    """
    what, remedy = "an .npz archive of arrays", "was its download cut short? fetch it again"
    with boundary.reader(path, what, remedy), open_archive(path) as archive:
        strangers = [name for name in archive.sizes if not name.endswith(".npy")]
        if strangers:
            raise ValueError(f"its member {strangers[0]!r:.80} is no array")
        return {name.removesuffix(".npy"): _array(archive, name) for name in archive.sizes}


def _array(archive: Archive, name: str) -> np.ndarray:
    """One member; its description is compared with its size before anything is made of it."""
    content = archive.read(name)
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version not in _VERSIONS:
        raise ValueError(f"its member {name} is of version {version}, which no plain array has")
    shape, is_fortran, dtype = _VERSIONS[version](stream, max_header_size=_HEADER_BYTES)
    if dtype.kind not in "fiu":
        raise ValueError(
            f"its member {name} must hold numbers, got {dtype!s:.60}; objects (pickles) and records are"
            " never loaded"
        )
    start, wanted = stream.tell(), math.prod(shape) * dtype.itemsize
    if len(content) - start != wanted or any(size < 0 for size in shape):
        raise ValueError(
            f"its member {name} of shape {shape!s:.80} must have {wanted:,} bytes, got"
            f" {len(content) - start:,}"
        )
    flat = np.frombuffer(content, dtype, offset=start)
    return flat.reshape(shape, order="F" if is_fortran else "C")
