"""Files inside zip archives, read where they lie, within limits."""

import contextlib
import os
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

from jaxprobe import boundary
from jaxprobe.assets.cache import AssetError
from jaxprobe.checks import check_choice

_DIRECTORY_BYTES = 8 * boundary.MIB  # of an archive's list of members, 170,000 of them
_END = struct.Struct("<4s4H2LH")  # of the archive: signature, counts, the list's size and place
_REMEDY = "delete it if it lies in the cache, and it is fetched again"


def member_names(archive: Path) -> tuple[str, ...]:
    """The files in a zip archive (a wheel is one), in its order; AssetError if it is not one."""
    with _told(archive), _open_zip(archive) as opened:
        return tuple(name for name in opened.namelist() if not name.endswith("/"))


def open_member(archive: Path, member: str) -> bytes:
    """One file of a zip archive; nothing is unpacked to disk.

    Raises:
        ValueError: The archive has no such member; the nearest names are listed.
        AssetError: Not a readable zip archive, an encrypted member, or one that unpacks to more than
            `boundary.unpacked_limit`.
    """
    return b"".join(blocks(archive, member))


def blocks(archive: Path, member: str) -> Iterator[bytes]:
    """One file of a zip archive in blocks of 1 MiB; errors as for `open_member`."""
    with _told(archive), _open_zip(archive) as opened:
        known = opened.namelist()
        if member in known:
            yield from _unpacked(archive, opened, opened.getinfo(member))
            return
    check_choice(f"member of {archive.name}", member, known)


def _unpacked(archive: Path, opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    if info.flag_bits & 1:
        raise ValueError(f"its member {info.filename!r} is encrypted")
    place, size = f"{archive}, member {info.filename!r}", 0
    # A member cannot be packed into more than the archive holds, whatever it claims.
    packed = min(info.compress_size, archive.stat().st_size)
    boundary.check_unpacked(place, info.file_size, packed)
    with opened.open(info) as stream:
        while block := stream.read(boundary.MIB):
            size += len(block)
            boundary.check_unpacked(place, size, packed)
            yield block


@contextlib.contextmanager
def _told(archive: Path) -> Iterator[None]:
    """Whatever zipfile meets is one AssetError."""
    try:
        with boundary.reader(archive, "a zip archive", _REMEDY):
            yield
    except boundary.FileError as error:
        raise AssetError(str(error)) from None


@contextlib.contextmanager
def _open_zip(archive: Path) -> Iterator[zipfile.ZipFile]:
    with boundary.open_regular(archive) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - _END.size - 0xFFFF))
        tail = file.read(_END.size + 0xFFFF)
        at = tail.rfind(b"PK\5\6")
        if 0 <= at <= len(tail) - _END.size:
            listed = _END.unpack_from(tail, at)[5]
            if listed > _DIRECTORY_BYTES:
                raise ValueError(f"its list of members has {listed:,} bytes")
        with zipfile.ZipFile(file) as opened:
            yield opened
