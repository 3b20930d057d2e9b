"""The one door to artefacts: bytes that are whole or absent, in a directory, in memory or in a bucket."""

import contextlib
import dataclasses
import functools
import os
import re
import secrets
from pathlib import Path
from typing import Any

import tensorstore as ts

_SCHEMES = {"memory": "memory", "gs": "gcs", "s3": "s3"}


@functools.cache
def _context() -> ts.Context:
    """What `memory://` lives in, as long as the process does."""
    return ts.Context()


@dataclasses.dataclass(frozen=True)
class Place:
    """A name below which artefacts lie, or the name of one."""

    root: str
    key: str = ""

    @classmethod
    def parse(cls, text: "str | os.PathLike | Place") -> "Place":
        if isinstance(text, Place):
            return text
        return cls(os.fspath(text).rstrip("/") or "/")

    def __truediv__(self, name: str) -> "Place":
        if not name or any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name:
            raise ValueError(f"{name!r} names nothing below {self}")
        return Place(self.root, f"{self.key}/{name}" if self.key else name)

    def __str__(self) -> str:
        return f"{self.root}/{self.key}" if self.key else self.root

    def __fspath__(self) -> str:
        if self.local is None:
            raise ValueError(f"{self} is not a path of this machine")
        return str(self.local)

    @property
    def name(self) -> str:
        return str(self).rpartition("/")[2]

    @property
    def local(self) -> Path | None:
        return None if self._driver() else Path(str(self))

    def _driver(self) -> str:
        found = re.match(r"(memory|gs|s3)://", self.root)
        return _SCHEMES[found[1]] if found else ""

    def kvstore(self) -> dict[str, Any]:
        driver = self._driver()
        if not driver:
            return {"driver": "file", "path": os.path.abspath(str(self)) + "/"}
        rest = str(self).partition("://")[2]
        if driver == "memory":
            return {"driver": "memory", "path": rest + "/"}
        bucket, _, path = rest.partition("/")
        return {"driver": driver, "bucket": bucket, "path": path + "/"}

    @functools.cached_property
    def _store(self) -> ts.KvStore:
        return ts.KvStore.open(Place(self.root).kvstore(), context=_context()).result()

    def read(self) -> bytes:
        if self.local is not None:
            return self.local.read_bytes()
        found = self._store.read(self.key).result()
        if found.state != "value":
            raise FileNotFoundError(f"nothing lies at {self}")
        return found.value

    def exists(self) -> bool:
        if self.local is not None:
            return self.local.exists()
        return self._store.read(self.key).result().state == "value" or bool(self.children())

    def replace(self, *content: bytes) -> None:
        if self.local is None:
            self._store.write(self.key, b"".join(map(bytes, content))).result()
            return
        self._write(os.replace, *content)

    def create(self, *content: bytes) -> bool:
        if self.local is None:
            data = b"".join(map(bytes, content))
            stamp = self._store.write(self.key, data, if_equal=b"").result()
            return stamp.generation != b""
        try:
            self._write(os.link, *content)
        except FileExistsError:
            return False
        return True

    def _write(self, finish, *content: bytes) -> None:
        path = self.local
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            with temporary.open("xb") as file:
                file.writelines(content)
                file.flush()
                os.fsync(file.fileno())
            finish(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def children(self) -> list[str]:
        if self.local is not None:
            try:
                return sorted(n for n in os.listdir(self.local) if not n.startswith("."))
            except FileNotFoundError:
                return []
        prefix = f"{self.key}/" if self.key else ""
        keys = self._store.list(
            ts.KvStore.KeyRange(prefix, prefix[:-1] + "0" if prefix else "")
        ).result()
        return sorted({key.decode().removeprefix(prefix).split("/")[0] for key in keys})

    def delete(self) -> None:
        if self.local is not None:
            self.local.unlink(missing_ok=True)
        else:
            self._store.delete_range(ts.KvStore.KeyRange(self.key, self.key + "\0")).result()
