"""What a worker is at, in a small file that its parent can read after it died."""

import mmap
import struct
from pathlib import Path
from typing import NamedTuple

_HEAD = struct.Struct("<QQ")
_COUNT = struct.Struct("<Q")


class Place(NamedTuple):
    """Where a worker is.

    Attributes:
        reader: Index of the reader in work.
        number: The file in work; -1 before the first.
    """

    reader: int
    number: int


class State:
    """A worker's side of the file: kept in memory that survives the process."""

    def __init__(self, path: Path, num_readers: int):
        """Opens a file of `create`."""
        with path.open("r+b") as file:
            self._view = mmap.mmap(file.fileno(), _HEAD.size + num_readers * _COUNT.size)

    def begin(self, place: Place) -> None:
        """Says which file is read next, and counts it: should it be the last, it was one."""
        _HEAD.pack_into(self._view, 0, place.reader, place.number + 1)
        at = _HEAD.size + place.reader * _COUNT.size
        _COUNT.pack_into(self._view, at, _COUNT.unpack_from(self._view, at)[0] + 1)

    def rest(self, reader: int) -> None:
        """Says that no file is in work."""
        _HEAD.pack_into(self._view, 0, reader, 0)


def create(path: Path, num_readers: int) -> None:
    """A file that says: nothing yet."""
    path.write_bytes(bytes(_HEAD.size + num_readers * _COUNT.size))


def forget_place(path: Path) -> None:
    """Takes back what a dead worker was at, keeping its counts."""
    with path.open("r+b") as file:
        file.write(bytes(_HEAD.size))


def place(path: Path) -> Place:
    """Where the worker is, or was; a number that nobody wrote, should it be written at this moment."""
    reader, number = _HEAD.unpack_from(path.read_bytes())
    return Place(reader, number - 1)


def counts(path: Path) -> list[int]:
    """Files begun, by reader."""
    return [count for (count,) in _COUNT.iter_unpack(path.read_bytes()[_HEAD.size :])]
