"""Files inside zip archives, read where they lie."""

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from jaxprobe.assets.cache import AssetError
from jaxprobe.checks import check_choice


def member_names(archive: Path) -> tuple[str, ...]:
    """The files in a zip archive (a wheel is one), in its order; AssetError if it is not one."""
    with _open_zip(archive) as opened:
        return tuple(name for name in opened.namelist() if not name.endswith("/"))


def open_member(archive: Path, member: str) -> bytes:
    """One file of a zip archive; nothing is unpacked to disk.

    Raises:
        ValueError: The archive has no such member; the nearest names are listed.
        AssetError: Not a readable zip archive.
    """
    return b"".join(blocks(archive, member))


def blocks(archive: Path, member: str) -> Iterator[bytes]:
    """One file of a zip archive in blocks of 1 MiB; AssetError where it is missing or broken."""
    with _open_zip(archive) as opened:
        check_choice(f"member of {archive.name}", member, opened.namelist())
        with opened.open(member) as stream:
            while block := stream.read(1 << 20):
                yield block


@contextlib.contextmanager
def _open_zip(archive: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(archive) as opened:
            yield opened
    except (OSError, zipfile.BadZipFile, zlib.error) as error:
        raise AssetError(
            f"cannot read {archive} as a zip archive ({error}); delete it if it lies in the cache,"
            " and it is fetched again"
        ) from None
