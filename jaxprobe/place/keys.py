"""Places in TensorStore's key-value stores: memory, Google Cloud Storage, S3."""

import contextlib
import dataclasses
import errno
import functools
import json
import os
import secrets
import socket
from collections.abc import Iterator

import tensorstore as ts

from jaxprobe import boundary
from jaxprobe.place.parts import Data, check_name, parts_of

_DRIVERS = {"memory": "memory", "gs": "gcs", "s3": "s3"}  # schemes, and TensorStore's drivers


def is_url(text: str) -> bool:
    """Whether a place is a URL that `check_url` takes; everything else is a path."""
    scheme, between, _ = text.partition("://")
    return bool(between) and scheme in _DRIVERS


def check_url(text: str) -> None:
    """Raises ValueError for a URL that is not a place; a path passes.

    Args:
        text: What a user named.
    """
    scheme, between, rest = text.partition("://")
    if not between or "/" in scheme:
        return
    if scheme not in _DRIVERS:
        raise ValueError(
            f"a place must be a path or begin with {', '.join(f'{name}://' for name in _DRIVERS)},"
            f" got {text!r}; name a local directory by its path alone"
        )
    names = rest.rstrip("/").split("/")
    if scheme != "memory" and not names[0]:
        raise ValueError(f"{text!r} must name a bucket after {scheme}://")
    for name in names if rest else []:
        check_name(name, text)
    if scheme != "memory":
        ts.KvStore.Spec({"driver": _DRIVERS[scheme], "bucket": names[0]})


def context() -> ts.Context:
    """The context of every TensorStore of this process; it holds what is stored in `memory://`."""
    return _context()


@functools.cache
def _context() -> ts.Context:
    return ts.Context()


@functools.lru_cache(maxsize=64)
def _open(spec: str) -> ts.KvStore:
    return ts.KvStore.open(json.loads(spec), context=context()).result()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Keys:
    """One object of a key-value store, and the objects whose keys begin with its key and a slash."""

    text: str

    @functools.cached_property
    def spec(self) -> dict:
        """TensorStore's spec of the whole bucket."""
        scheme, _, rest = self.text.partition("://")
        bucket = {} if scheme == "memory" else {"bucket": rest.split("/")[0]}
        return {"driver": _DRIVERS[scheme], **bucket}

    @functools.cached_property
    def key(self) -> str:
        """The object's whole key in its bucket."""
        scheme, _, rest = self.text.partition("://")
        return (rest if scheme == "memory" else rest.partition("/")[2]).rstrip("/")

    def read(self, limit: int | None = None) -> bytes:
        """As `Place.read`."""
        with self._named():
            found = self._store.read(self.key).result()
            if found.state != "value":
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if limit is not None:
            boundary.check_size(self.text, len(found.value), limit)
        return found.value

    def exists(self) -> bool:
        """As `Place.exists`."""
        with self._named():
            return self._look().state == "value"

    def size(self) -> int:
        """As `Place.size`; reads the object, because TensorStore reports no sizes."""
        return len(self.read())

    def replace(self, data: Data) -> None:
        """As `Place.replace`."""
        with self._named():
            self._store.write(self.key, b"".join(parts_of(data))).result()

    def create(self, data: Data) -> bool:
        """As `Place.create`."""
        return self._claim(data) is not None

    def children(self) -> list[str]:
        """As `Place.children`; TensorStore lists everything below."""
        prefix = f"{self.key}/" if self.key else ""
        # Every key with this prefix: "0" is the character after "/".
        wanted = ts.KvStore.KeyRange(f"{self.key}/", f"{self.key}0") if prefix else None
        with self._named():
            found = self._store.list(wanted, strip_prefix_length=len(prefix.encode())).result()
        return sorted({key.decode(errors="replace").split("/")[0] for key in found})

    def delete(self) -> None:
        """As `Place.delete`."""
        with self._named():
            self._store.write(self.key, None).result()

    @contextlib.contextmanager
    def locked(self, wait: bool) -> Iterator[None]:
        """As `Place.locked`; `wait` has no effect here."""
        del wait
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "token": secrets.token_hex(8)}
        generation = self._claim(json.dumps(owner).encode())
        if generation is None:
            with contextlib.suppress(FileNotFoundError):  # it has just been released
                holder = self.read()[:200].decode(errors="replace")
                said = f"held by {holder}; if that process is dead, delete this object"
                raise BlockingIOError(errno.EWOULDBLOCK, said, self.text)
            raise BlockingIOError(errno.EWOULDBLOCK, "held until just now; try again", self.text)
        try:
            yield
        finally:
            with self._named():
                self._store.write(self.key, None, if_equal=generation).result()

    def kvstore(self) -> dict:
        """As `Place.kvstore`."""
        return {**self.spec, "path": f"{self.key}/" if self.key else ""}

    @property
    def _store(self) -> ts.KvStore:
        return _open(json.dumps(self.spec))

    def _look(self) -> ts.KvStore.ReadResult:
        return self._store.read(self.key, byte_range=slice(0, 0)).result()

    def _claim(self, data: Data) -> bytes | None:
        """Writes if there is no object; returns its generation, or None where another was first."""
        with self._named():
            found = self._look()
            if found.state == "value":
                return None
            content, missing = b"".join(parts_of(data)), found.stamp.generation
            written = self._store.write(self.key, content, if_equal=missing).result()
            return written.generation or None  # empty where the condition failed

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Makes TensorStore's errors OSErrors that name the place."""
        try:
            yield
        except OSError as error:
            error.filename = self.text
            raise
        except ValueError as error:  # begins with a status: `PERMISSION_DENIED: ...`
            raise OSError(errno.EIO, " ".join(str(error).split()), self.text) from error
