"""A worker's progress, in a small file that its parent can read after it died."""

import mmap
import struct
from pathlib import Path
from typing import NamedTuple

_HEAD = struct.Struct("<QQ")
_COUNT = struct.Struct("<Q")


class Place(NamedTuple):
    """Where a worker is.

    Attributes:
        reader: Index of the current reader.
        number: The current file; -1 before the first.
    """

    reader: int
    number: int


class State:
    """A worker's side of the file: kept in memory that survives the process."""

    def __init__(self, path: Path, num_readers: int):
        """Opens a file made by `create`."""
        with path.open("r+b") as file:
            self._view = mmap.mmap(file.fileno(), _HEAD.size + num_readers * _COUNT.size)

    def begin(self, place: Place) -> None:
        """Records which file is read next, and counts it now, in case the worker dies on it."""
        _HEAD.pack_into(self._view, 0, place.reader, place.number + 1)
        at = _HEAD.size + place.reader * _COUNT.size
        _COUNT.pack_into(self._view, at, _COUNT.unpack_from(self._view, at)[0] + 1)

    def rest(self, reader: int) -> None:
        """Records that no file is being read."""
        _HEAD.pack_into(self._view, 0, reader, 0)


def create(path: Path, num_readers: int) -> None:
    """Makes a file that records no progress yet."""
    path.write_bytes(bytes(_HEAD.size + num_readers * _COUNT.size))


def forget_place(path: Path) -> None:
    """Clears a dead worker's current file, keeping its counts."""
    with path.open("r+b") as file:
        file.write(bytes(_HEAD.size))


def place(path: Path) -> Place:
    """Where the worker is, or was; may be garbage if it is being written at this moment."""
    reader, number = _HEAD.unpack_from(path.read_bytes())
    return Place(reader, number - 1)


def counts(path: Path) -> list[int]:
    """Number of files begun, by reader."""
    return [count for (count,) in _COUNT.iter_unpack(path.read_bytes()[_HEAD.size :])]
