"""Files that are whole or absent: atomic replacement and locks that die with their process."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

TEMPORARY = ".tmp"  # suffix of a file that is not yet whole


def replace_file(path: Path, *content: bytes | memoryview) -> None:
    """Replaces a file's content (its parts, one after the other) so that a crash at any moment leaves the old or the new one.

    The temporary file's name is fixed, so a killed writer leaves at most one, which the next
    overwrites; callers hold a lock.

    Raises:
        OSError: The disk is full or the directory cannot be written.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with temporary.open("wb") as file:
            file.writelines(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        error.filename = os.fspath(path)  # a full disk's error names none, others the temporary
        error.filename2 = None
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames and new names in a directory survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Holds an exclusive lock on `path`, an empty file that stays; the kernel frees it on any exit.

    Raises:
        BlockingIOError: Another process holds the lock and `wait` is false.
    """
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
