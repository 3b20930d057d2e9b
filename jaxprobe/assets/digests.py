"""Digests of files: each file is read once a process, and again as soon as anything about it has changed.

What was hashed is remembered in memory only, by device, inode, size, modification and change time. The last
cannot be set by a program, so a file that is replaced or edited is noticed even where its size and times are
copied; and a bit that a disk flips is noticed by the next process.
"""

import concurrent.futures
import hashlib
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

from jaxprobe import boundary

_THREADS = 8
_TICK_NS = 20_000_000  # file systems' clocks step by up to 10 ms
_COARSE_NS = 2_000_000_000  # of those that keep whole seconds, or every second one
_known: dict[tuple[int, ...], str] = {}


class AssetError(RuntimeError):
    """Bytes that are unavailable, or not the pinned ones; the message says which file to put where."""


def file_sha256(path: Path) -> str:
    """A file's SHA-256 in hex; free for a file that is unchanged since this process hashed it.

    Raises:
        AssetError: The file lies in a Hub cache, which names it by another digest: it is damaged.
        FileError: No regular file.
        OSError: It cannot be read.
    """
    with boundary.open_regular(path) as file:
        state = _wait_until_settled(file.fileno())
        digest = _known.get(state)
        if digest is None:
            digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
            _check_hub_name(path, digest)
            after = _state(file.fileno())
            if after == state and _is_settled(after):
                _known[state] = digest
    return digest


def files_sha256(paths: Sequence[Path]) -> list[str]:
    """`file_sha256` of several files, side by side: hashing frees the interpreter's lock."""
    threads = min(_THREADS, os.cpu_count() or 1)
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        return list(pool.map(file_sha256, paths))


def check_hub_files(path: Path) -> None:
    """Reads the files of a Hub cache at `path`, or up to two folders below it, against their names.

    Files that lie elsewhere have no digest to compare with and are not read.

    Raises:
        AssetError: One is damaged.
    """
    found = [path] if path.is_file() else [*path.glob("*"), *path.glob("*/*")]
    files_sha256([file for file in found if file.is_file() and _hub_name(file)])


def _hub_name(path: Path) -> str:
    """What the Hub's cache calls a file: its SHA-256, or Git's id for a small one."""
    real = path.resolve()
    is_blob = real.parent.name == "blobs" and re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", real.name)
    return real.name if is_blob else ""


def _check_hub_name(path: Path, digest: str) -> None:
    name = _hub_name(path)
    if not name:
        return
    found = {digest}
    if len(name) == 40:
        content = path.read_bytes()
        found = {
            hashlib.sha1(start + content, usedforsecurity=False).hexdigest()
            for start in (b"blob %d\0" % len(content), b"")  # a mirror may leave Git's header out
        }
    if name not in found:
        raise AssetError(
            f"{path} is damaged: the Hub's cache names it {name}, its content has the SHA-256 {digest};"
            f" delete {path.resolve()} and it is fetched again"
        )


def _state(descriptor: int) -> tuple[int, ...]:
    stat = os.fstat(descriptor)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _is_settled(state: tuple[int, ...]) -> bool:
    """Whether an edit from now on must show in the change time."""
    return time.time_ns() - state[-1] > _step(state)


def _step(state: tuple[int, ...]) -> int:
    return _COARSE_NS if state[-1] % 1_000_000 == 0 else _TICK_NS


def _wait_until_settled(descriptor: int) -> tuple[int, ...]:
    """The state of a file; of one that was only just written, when the clock has moved on."""
    state = _state(descriptor)
    left = state[-1] + _step(state) - time.time_ns()
    if 0 <= left <= _COARSE_NS:
        time.sleep(left / 1e9 + 1e-3)
        state = _state(descriptor)
    return state
