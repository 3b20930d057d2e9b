"""A place: something that a user named, or a name below it."""

import contextlib
import dataclasses
import functools
import os
from pathlib import Path

from jaxprobe.place import files, keys
from jaxprobe.place.parts import Data, check_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """A place for one object, or for several below it; made by `parse` and `/`.

    An object is whole or absent, whichever process is killed and when. Every method that reads or writes may
    raise OSError, which names the place.

    Links on a local path: what the user named may be a link or be behind one. Below it, nothing is written or
    deleted through a link: a link in place of a folder is refused, one in place of an object is itself
    replaced or removed. Reading follows links, so a large folder may be moved to another disk and read there.

    Attributes:
        root: What the user named, as it was given.
        below: The names under it.
    """

    root: str
    below: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: "str | os.PathLike | Place") -> "Place":
        """Reads what a user named; a Place comes back as it is.

        Args:
            text: A path, or `memory://NAME` (of this process), `gs://BUCKET/NAME`, `s3://BUCKET/NAME`.

        Raises:
            ValueError: Not a place: empty, another scheme, no bucket, or names such as `..` in a URL.
        """
        if isinstance(text, Place):
            return text
        root = os.fspath(text)
        if not isinstance(root, str) or not root or "\0" in root:
            raise ValueError(f"a place must be a path or a URL, got {root!r}; name a directory")
        keys.check_url(root)
        return cls(root=root)

    def __truediv__(self, name: str) -> "Place":
        """The place `name` below this one; `name` may hold several names with slashes between them.

        Raises:
            ValueError: It leads elsewhere (`..`, an absolute path) or is not a valid file name.
        """
        names = tuple(name.split("/"))
        for part in names:
            check_name(part, name)
        return dataclasses.replace(self, below=(*self.below, *names))

    def __str__(self) -> str:
        """What was parsed, and the names below it."""
        if not self.below:
            return self.root
        between = "" if self.root.endswith("/") else "/"
        return f"{self.root}{between}{'/'.join(self.below)}"

    def __fspath__(self) -> str:
        """The path in the file system, for libraries that take paths.

        Raises:
            ValueError: The place is not on a local path.
        """
        if self.local is None:
            raise ValueError(f"{self} is not a path on this machine; name a directory")
        return str(self.local)

    @property
    def name(self) -> str:
        """The last name."""
        return self.below[-1] if self.below else Path(self.root).name

    @functools.cached_property
    def local(self) -> Path | None:
        """The path in the file system, or None for a place that is not on one."""
        return None if keys.is_url(self.root) else Path(self.root, *self.below)

    def read(self, *, limit: int | None = None) -> bytes:
        """The object's bytes.

        Args:
            limit: Most bytes that it may have.

        Raises:
            FileNotFoundError: There is no object.
            FileError: It is longer than `limit`, or is a folder, pipe or device.
        """
        return self._driver.read(limit)

    def exists(self) -> bool:
        """Whether there is an object; a folder is not one, see `children`."""
        return self._driver.exists()

    def size(self) -> int:
        """The number of the object's bytes; where the place is not on a path, the object is read.

        Raises:
            FileNotFoundError: There is no object.
        """
        return self._driver.size()

    def replace(self, data: Data) -> None:
        """Writes the object, in place of what is there: whole or not at all, and durable.

        Args:
            data: Its bytes, or a list of parts that are written one after the other.
        """
        self._driver.replace(data)

    def create(self, data: Data) -> bool:
        """Writes the object unless it exists: whole, durable, and with one winner among several writers.

        Args:
            data: Its bytes, or a list of parts that are written one after the other.

        Returns:
            Whether it was written; False where the object exists already.

        Raises:
            ObstacleError: A folder, a device or a broken link is in its place.
        """
        return self._driver.create(data)

    def children(self) -> list[str]:
        """The names directly below, sorted; empty where there are none.

        On a path, empty folders and other people's files are listed too; unfinished files never are.
        """
        return self._driver.children()

    def delete(self) -> None:
        """Removes this one object, or the link in its place; does nothing where there is none."""
        self._driver.delete()

    def locked(self, *, wait: bool = False) -> contextlib.AbstractContextManager[None]:
        """Holds this place, which serves only as a lock, until the block ends.

        On a path the kernel releases the lock however its process ends, and an empty file stays. Elsewhere an
        object represents the lock, and one that a killed process left must be deleted by hand.

        Args:
            wait: Whether to wait for another process to release it; on paths only.

        Raises:
            BlockingIOError: Another process holds it.
        """
        return self._driver.locked(wait)

    def kvstore(self) -> dict:
        """TensorStore's spec for arrays below this place, to be opened with `place.context()`.

        On a path, only one process at a time may write there, and only where `check_folders` finds no
        links, which TensorStore would follow.
        """
        return self._driver.kvstore()

    def check_folders(self, depth: int) -> None:
        """Refuses links in place of folders, from what the user named to `depth` levels below here.

        Raises:
            ObstacleError: There is one; its path is named.
        """
        if isinstance(self._driver, files.Files):
            self._driver.check_folders(depth)

    @functools.cached_property
    def _driver(self) -> "files.Files | keys.Keys":
        if self.local is None:
            return keys.Keys(text=str(self))
        return files.Files(root=Path(self.root), below=self.below, text=str(self))
