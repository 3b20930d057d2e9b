"""Places on a local path.

TensorStore's `file` driver does not write objects here. By default it opens `NAME.__lock`, a predictable name, and
follows a link planted there and writes through it; with its locks off, two processes can both win a conditional
write. Both were observed with 0.1.86, and tests/place_test.py checks the first again. So this module writes
objects itself: to a file of a random name, created exclusively and synced, then renamed or hard-linked into place.
Arrays below a place still go through the `file` driver, with its locks off: then its names are random and exclusive
too, and the one process that writes holds our own lock.

Folders below what the user named are opened each relative to the one above and links are refused, so that no link
is followed however quickly it appears.
"""

import contextlib
import dataclasses
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from jaxprobe import boundary
from jaxprobe.place.parts import UNFINISHED, Data, parts_of

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OURS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # never through a link, never waits for a pipe


class ObstacleError(OSError):
    """A link, or something other than a file, is where an object is to be written or deleted; names it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Files:
    """One file, or the folder of that name: `below` what a user named as `root`."""

    root: Path
    below: tuple[str, ...]
    text: str

    @property
    def path(self) -> Path:
        """The whole path."""
        return self.root.joinpath(*self.below)

    def read(self, limit: int | None = None) -> bytes:
        """As `Place.read`."""
        with self._named():
            if limit is not None:
                return boundary.read_bytes(self.path, limit)
            with boundary.open_regular(self.path) as file:
                return file.read()

    def exists(self) -> bool:
        """As `Place.exists`."""
        with self._named():
            return self.path.is_file()

    def size(self) -> int:
        """As `Place.size`."""
        with self._named(), boundary.open_regular(self.path) as file:
            return os.fstat(file.fileno()).st_size

    def replace(self, data: Data) -> None:
        """As `Place.replace`; first removes what killed processes left of the same object."""
        with self._named(), self._folder(make=True) as folder:
            _sweep(folder, self.path.name)
            with _unfinished(folder, self.path.name, data) as name:
                os.rename(name, self.path.name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)

    def create(self, data: Data) -> bool:
        """As `Place.create`."""
        with self._named(), self._folder(make=True) as folder:
            if self._lies(folder):
                return False
            with _unfinished(folder, self.path.name, data) as name:
                try:
                    ends = {"src_dir_fd": folder, "dst_dir_fd": folder}
                    os.link(name, self.path.name, **ends, follow_symlinks=False)
                except FileExistsError:
                    self._lies(folder)  # raises where it is not an object
                    return False
            os.fsync(folder)
        return True

    def children(self) -> list[str]:
        """As `Place.children`."""
        with self._named(), contextlib.suppress(FileNotFoundError):
            return sorted(name for name in os.listdir(self.path) if not UNFINISHED.fullmatch(name))
        return []

    def delete(self) -> None:
        """As `Place.delete`."""
        with self._named(), contextlib.suppress(FileNotFoundError):
            with self._folder(make=False) as folder:
                os.unlink(self.path.name, dir_fd=folder)
                os.fsync(folder)

    @contextlib.contextmanager
    def locked(self, wait: bool) -> Iterator[None]:
        """As `Place.locked`."""
        with self._named(), self._folder(make=True) as folder:
            flags = os.O_RDWR | os.O_CREAT | _OURS
            descriptor = os.open(self.path.name, flags, 0o666, dir_fd=folder)
        try:
            with self._named():
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            yield
        finally:
            os.close(descriptor)

    def kvstore(self) -> dict:
        """As `Place.kvstore`."""
        path = f"{self.path.absolute()}/"
        return {"driver": "file", "path": path, "file_io_locking": {"mode": "none"}}

    def check_folders(self, depth: int) -> None:
        """As `Place.check_folders`."""
        inner = dataclasses.replace(self, below=(*self.below, "any"))
        with self._named(), contextlib.suppress(FileNotFoundError):
            with inner._folder(make=False) as folder:
                _check_linked(folder, self.path, depth)

    @contextlib.contextmanager
    def _folder(self, *, make: bool) -> Iterator[int]:
        """The descriptor of the file's folder."""
        path = self.root if self.below else self.root.parent
        if make:
            _make_folders(path)
        folder = os.open(path, _FOLDER)
        try:
            for name in self.below[:-1]:
                path /= name
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, dir_fd=folder)
                        os.fsync(folder)
                inner = _open_folder(folder, name, path)
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)

    def _lies(self, folder: int) -> bool:
        """Whether a file is here, perhaps behind a link; raises where something else is."""
        try:
            os.stat(self.path.name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        with contextlib.suppress(OSError):
            if stat.S_ISREG(os.stat(self.path.name, dir_fd=folder).st_mode):
                return True
        said = "a folder, a device or a broken link is in the way of a file; remove it"
        raise ObstacleError(errno.EEXIST, said, self.text)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Puts the place's name into errors: a full disk's has none, others a temporary file's."""
        try:
            yield
        except ObstacleError:
            raise
        except OSError as error:
            error.filename = self.text
            del error.filename2  # None would be printed
            raise


def _make_folders(path: Path) -> None:
    """Makes a folder and those above it, each durable; follows links, which are the user's own."""
    if path.is_dir():
        return
    _make_folders(path.parent)
    path.mkdir(exist_ok=True)
    above = os.open(path.parent, _FOLDER)
    try:
        os.fsync(above)
    finally:
        os.close(above)


def _open_folder(above: int, name: str, path: Path) -> int:
    """The descriptor of the folder `name`, which must not be a link."""
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=above)
    except OSError:
        if stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            raise _linked(path) from None
        raise


def _check_linked(folder: int, path: Path, depth: int) -> None:
    """Raises for the first link to a folder among the entries down to `depth` levels."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_symlink() and entry.is_dir():
            raise _linked(path / entry.name)
        if depth > 1 and entry.is_dir():
            inner = _open_folder(folder, entry.name, path / entry.name)
            try:
                _check_linked(inner, path / entry.name, depth - 1)
            finally:
                os.close(inner)


def _linked(path: Path) -> ObstacleError:
    said = (
        "a symbolic link is in the place of a folder, and nothing is written or deleted through a link;"
        " remove it, or give its target as the work directory"
    )
    return ObstacleError(errno.ELOOP, said, str(path))


@contextlib.contextmanager
def _unfinished(folder: int, name: str, data: Data) -> Iterator[str]:
    """The name of a new file with this content, durable; the name is gone when the block ends."""
    temporary, descriptor = _begin(folder, name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(parts_of(data))
            file.flush()
            os.fsync(descriptor)
            yield temporary
    finally:
        with contextlib.suppress(OSError):  # renamed already, or the disk is gone
            os.unlink(temporary, dir_fd=folder)


def _begin(folder: int, name: str) -> tuple[str, int]:
    """A new file of a random name, locked: the lock tells `_sweep` that its writer is alive."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OURS
    while True:
        temporary = f".{name}.{secrets.token_hex(8)}.tmp"
        descriptor = os.open(temporary, flags, 0o666, dir_fd=folder)
        with contextlib.suppress(OSError):  # the file system has no locks: then nothing is swept
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return temporary, descriptor
        os.close(descriptor)  # another process swept it before it was locked


def _sweep(folder: int, name: str) -> None:
    """Removes the unfinished files of the object `name` that killed processes left."""
    for left in os.listdir(folder):
        known = UNFINISHED.fullmatch(left)
        if known and known["name"] == name:
            with contextlib.suppress(OSError):  # a link, or a file whose writer is alive
                _remove_dead(folder, left)


def _remove_dead(folder: int, name: str) -> None:
    descriptor = os.open(name, os.O_RDONLY | _OURS, dir_fd=folder)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name, dir_fd=folder)
    finally:
        os.close(descriptor)
