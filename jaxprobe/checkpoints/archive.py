"""Zip archives of arrays (`.npz`, `torch.save`): what their directory claims is checked before it is believed."""

import contextlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from jaxprobe import boundary

DIRECTORY_BYTES = 1 << 20  # some 10,000 members; zipfile keeps a kilobyte for each
_METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
_ENCRYPTED = 0x1


class Archive:
    """The members of an open zip file, each of which can be read whole.

    Attributes:
        path: The file.
        sizes: How many bytes each member unpacks to.
    """

    def __init__(self, path: Path, file: BinaryIO):
        """Reads and checks the directory; for callers, `open_archive` does it."""
        self.path = path
        self._packed = os.fstat(file.fileno()).st_size
        bounded: Any = _Bounded(file)
        self._zip = zipfile.ZipFile(bounded)
        bounded.limit = self._packed  # members are read through it too
        items = self._zip.infolist()
        self.sizes = {item.filename: item.file_size for item in items}
        self._check(items)

    def read(self, name: str) -> bytes:
        """A member's bytes, as many as the directory says and never more.

        Raises:
            ValueError: It holds another number of bytes.
        """
        size = self.sizes[name]
        with self._zip.open(name) as stream:
            content = stream.read(size + 1)
        if len(content) != size:
            raise ValueError(f"its member {name} must have {size:,} bytes, got {len(content):,}")
        return content

    def _check(self, items: list[zipfile.ZipInfo]) -> None:
        """Raises ValueError for a directory that describes no plain archive."""
        if len(self.sizes) != len(items):
            raise ValueError("two of its members have the same name")
        for item in items:
            if item.flag_bits & _ENCRYPTED:
                raise ValueError(f"its member {item.filename} is encrypted")
            if item.compress_type not in _METHODS:
                raise ValueError(f"its member {item.filename} is compressed in a way not read here")
            if item.compress_type == zipfile.ZIP_STORED and item.compress_size != item.file_size:
                raise ValueError(f"its member {item.filename} claims two sizes")
        # Members that lie over each other make a small file unpack to any size.
        packed = sum(item.compress_size for item in items)
        if packed > self._packed:
            raise ValueError(
                f"its members claim {packed:,} bytes, and the file has {self._packed:,}: they overlap,"
                " or it was cut short"
            )
        boundary.check_unpacked(self.path, sum(self.sizes.values()), self._packed)

    def is_stored(self, name: str) -> bool:
        """Whether a member lies in the file as it is."""
        return self._zip.getinfo(name).compress_type == zipfile.ZIP_STORED


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Opens a zip archive.

    Raises:
        FileError: No regular file, or one that unpacks to more than `boundary.unpacked_limit`.
        ValueError: Encrypted, overlapping or equally named members, sizes that disagree.
        Exception: Whatever `zipfile` raises at other bytes; callers stand in `boundary.reader`.
    """
    with boundary.open_regular(path) as file:
        yield Archive(path, file)


class _Bounded:
    """A file for `zipfile`, which reads a whole directory at once, however long it is."""

    def __init__(self, file: BinaryIO):
        self._file, self.limit = file, DIRECTORY_BYTES

    def read(self, size: int = -1) -> bytes:
        if size > self.limit:
            raise ValueError(
                f"its directory has {size:,} bytes, more than the {self.limit:,} of any weight file"
            )
        return self._file.read(size)

    def __getattr__(self, name: str):
        return getattr(self._file, name)
