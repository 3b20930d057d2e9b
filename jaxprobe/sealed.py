"""Files that hold a digest of all their own bytes, which is verified when they are read.

The digest is in the file's own record (a JSON object, or the JSON text in a safetensors header) under
`content_sha256`. It is the SHA-256 of the SHA-256 of each 16 MiB block, in order, computed with `PLACEHOLDER` in
place of the digest itself; so a change of any byte is detected, in the header, the padding, the arrays and the
digest. Blocks are hashed by several threads, which saves seconds for a large file on several processors.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import safetensors.numpy

from jaxprobe import boundary
from jaxprobe.boundary import FileError
from jaxprobe.place import Place

Where = Place | PathLike | str
KEY = "content_sha256"
PLACEHOLDER = hashlib.sha256(b"jaxprobe: here stands the digest of this file").hexdigest()
_BLOCK = 16 << 20
_WHAT = "the undamaged safetensors file that was written"
_THREADS = 8


def to_json(record: Mapping[str, Any], *, indent: int = 2) -> bytes:
    """A JSON file with its digest; values of types that JSON lacks become text.

    Raises:
        ValueError: The record holds the placeholder of the digest.
    """
    text = json.dumps({**record, KEY: PLACEHOLDER}, indent=indent, default=str)
    return b"".join(_sealed((text + "\n").encode()))


def to_safetensors(
    arrays: Mapping[str, np.ndarray], entry: str, record: Mapping[str, Any]
) -> list[bytes | memoryview]:
    """A safetensors file with its digest, in parts to be written one after the other.

    Args:
        arrays: The arrays.
        entry: The header entry that holds the record. It is the only one, because safetensors does not
            promise an order for several, and equal content must give equal files.
        record: JSON types.

    Raises:
        ValueError: The record holds the placeholder of the digest.
    """
    text = json.dumps({**record, KEY: PLACEHOLDER}, sort_keys=True)
    return _sealed(safetensors.numpy.save(dict(arrays), metadata={entry: text}))


class Held:
    """A safetensors file in memory, with those methods of `safetensors.safe_open` that are used here."""

    def __init__(self, content: bytes):
        """Reads header and arrays; raises the library's errors for a file that is not safetensors."""
        self.content = content
        self._arrays = safetensors.numpy.load(content)
        length = int.from_bytes(content[:8], "little")
        self._metadata = json.loads(content[8 : 8 + length]).get("__metadata__")

    def keys(self) -> list[str]:
        """Names of the arrays."""
        return list(self._arrays)

    def metadata(self) -> dict[str, str] | None:
        """The header's texts."""
        return self._metadata

    def get_tensor(self, name: str) -> np.ndarray:
        """One array."""
        return self._arrays[name]


@contextlib.contextmanager
def open_safetensors(where: Where) -> Iterator[Any]:
    """Opens a safetensors file, local (`safe_open`) or in another place (`Held`)."""
    place = Place.parse(where)
    if place.local is None:
        yield Held(place.read())
        return
    boundary.open_regular(place.local).close()
    with safetensors.safe_open(place.local, framework="numpy") as file:
        yield file


def read_json(where: Where, remedy: str, *, needed: bool = True) -> dict[str, Any]:
    """Reads what `to_json` wrote, without the digest.

    Args:
        where: The file.
        remedy: What to do about a damaged one, as an imperative.
        needed: Whether a file without a digest is refused.

    Raises:
        FileError: Not a JSON object, or not what was written.
        FileNotFoundError: There is no file.
    """
    place = Place.parse(where)
    again = "fetch or save it again"
    with boundary.missing_stays_missing(str(place)):
        with boundary.reader(str(place), "a JSON file", again):
            content = place.read(limit=boundary.JSON_BYTES)
            record = json.loads(content)
    if not isinstance(record, dict):
        raise FileError(f"{place} must hold a JSON object, got a {type(record).__name__}; {remedy}")
    verify(place, record.get(KEY), remedy, needed=needed, content=content)
    return {name: value for name, value in record.items() if name != KEY}


def check_types(where: Where, record: Mapping[str, Any], types: Mapping[str, type], remedy: str):
    """Raises FileError unless a JSON object has these entries, of these types."""
    for name, wanted in types.items():
        if not isinstance(record.get(name), wanted):
            got = type(record[name]).__name__ if name in record else "nothing"
            raise FileError(
                f"{Place.parse(where)} must hold a {wanted.__name__} under {name!r}, got {got}; {remedy}"
            )


def read_safetensors(
    where: Where, entry: str, remedy: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads what `to_safetensors` wrote: the record without the digest, and the arrays.

    Raises:
        FileError: Not such a file, or not what was written.
        FileNotFoundError: There is no file.
    """
    place = Place.parse(where)
    with boundary.missing_stays_missing(str(place)):
        with boundary.reader(str(place), _WHAT, remedy), open_safetensors(place) as file:
            record = json.loads((file.metadata() or {}).get(entry, "{}"))
            if not isinstance(record, dict):
                raise FileError(f"{place} must hold a JSON object in {entry!r}; {remedy}")
            content = getattr(file, "content", None)
            verify(place, record.get(KEY), remedy, content=content)
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    return {name: value for name, value in record.items() if name != KEY}, arrays


def verify(
    where: Where, digest: object, remedy: str, *, needed: bool = True, content: bytes | None = None
) -> bool:
    """Compares a file with the digest that it holds.

    Args:
        where: The file.
        digest: The value under `KEY` in its record; None where there is none.
        remedy: What to do about a damaged one, as an imperative.
        needed: Whether a file without a digest is refused.
        content: Its bytes, where they have been read already.

    Returns:
        Whether there was a digest.

    Raises:
        FileError: The file is not what was written, or lacks a digest though it is needed.
        OSError: It cannot be read.
    """
    if digest is None and not needed:
        return False
    if digest is None:
        raise FileError(
            f"{where} must hold a digest of its content ({KEY!r} in its record), got none: another"
            f" version of jaxprobe wrote it, or it is damaged; {remedy}"
        )
    known = isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) is not None
    if not known or _digest_of(Place.parse(where), str(digest), content) != digest:
        raise FileError(
            f"{where} does not hold what was written: the digest of its bytes differs from the one that"
            f" it holds; it was changed, or damaged on disk or in transfer; {remedy}"
        )
    return True


def _sealed(content: bytes) -> list[bytes | memoryview]:
    if content[:_BLOCK].count(PLACEHOLDER.encode()) != 1:
        raise ValueError(f"a record must not hold {PLACEHOLDER}, the placeholder of its digest")
    whole = memoryview(content)
    blocks = [whole[start : start + _BLOCK] for start in range(0, len(content), _BLOCK)]
    digest = _joined(hashlib.sha256, blocks)
    first = content[:_BLOCK].replace(PLACEHOLDER.encode(), digest.encode())
    return [first, whole[_BLOCK:]]  # the rest is not copied: an SAE can have gigabytes


def _digest_of(place: Place, held: str, content: bytes | None) -> str:
    """The digest that an object must hold; empty unless its first block holds `held` exactly once."""
    if content is None and place.local is not None:
        with boundary.open_regular(place.local) as file:
            number, size = file.fileno(), os.fstat(file.fileno()).st_size
            # A large file is never read into memory as a whole.
            return _digest_of_blocks(lambda start: os.pread(number, _BLOCK, start), size, held)
    whole = memoryview(place.read() if content is None else content)
    return _digest_of_blocks(lambda start: whole[start : start + _BLOCK], len(whole), held)


def _digest_of_blocks(read: Callable[[int], bytes | memoryview], size: int, held: str) -> str:
    first = bytes(read(0))
    if first.count(held.encode()) != 1:
        return ""
    first = first.replace(held.encode(), PLACEHOLDER.encode())

    def block(start: int):
        return hashlib.sha256(read(start) if start else first)

    return _joined(block, range(0, size, _BLOCK))


def _joined(hashed: Callable, parts: Sequence) -> str:
    """The digest of all blocks, hashed in parallel: hashing releases the interpreter's lock."""
    threads = min(_THREADS, os.cpu_count() or 1, len(parts))
    if threads <= 1:  # most files are one block, and starting a thread takes longer
        digests = [hashed(part).digest() for part in parts]
    else:
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            digests = [made.digest() for made in pool.map(hashed, parts)]
    return hashlib.sha256(b"".join(digests)).hexdigest()
