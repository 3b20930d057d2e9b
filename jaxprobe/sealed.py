"""Files of ours that hold a digest of all their own bytes, written with them and verified when they are read.

The digest stands in the file's own record (a JSON object, or the JSON text in a safetensors header)
under `content_sha256`. It is the SHA-256 of the SHA-256 of each 16 MiB block, in order, taken with
`PLACEHOLDER` where the digest itself stands; so any other byte anywhere in the file is noticed, in
its header, its padding, its arrays and its digest. Blocks are hashed by several threads: a large file
costs seconds less where there are processors to do it.
"""

import concurrent.futures
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from jaxprobe import boundary
from jaxprobe.boundary import FileError

KEY = "content_sha256"
PLACEHOLDER = hashlib.sha256(b"jaxprobe: here stands the digest of this file").hexdigest()
_BLOCK = 16 << 20
_WHAT = "the undamaged safetensors file that was written"
_THREADS = 8


def to_json(record: Mapping[str, Any], *, indent: int = 2) -> bytes:
    """A JSON file of ours with its digest; whatever JSON has no word for becomes text.

    Raises:
        ValueError: The record holds the placeholder of the digest.
    """
    text = json.dumps({**record, KEY: PLACEHOLDER}, indent=indent, default=str)
    return b"".join(_sealed((text + "\n").encode()))


def to_safetensors(
    arrays: Mapping[str, np.ndarray], entry: str, record: Mapping[str, Any]
) -> list[bytes | memoryview]:
    """A safetensors file of ours with its digest, in parts to be written one after the other.

    Args:
        arrays: What it holds.
        entry: The header entry that holds the record. It is the only one, since safetensors does
            not promise an order for several, and equal content shall be equal files.
        record: JSON types.

    Raises:
        ValueError: The record holds the placeholder of the digest.
    """
    text = json.dumps({**record, KEY: PLACEHOLDER}, sort_keys=True)
    return _sealed(safetensors.numpy.save(dict(arrays), metadata={entry: text}))


def read_json(path: Path, remedy: str, *, needed: bool = True) -> dict[str, Any]:
    """Reads what `to_json` wrote, without the digest.

    Args:
        path: The file.
        remedy: What to do about a damaged one, as an imperative.
        needed: Whether a file without a digest is refused.

    Raises:
        FileError: No JSON object, or not what was written.
        FileNotFoundError: Nothing lies there.
    """
    record = boundary.read_json(path)
    if not isinstance(record, dict):
        raise FileError(f"{path} must hold a JSON object, got a {type(record).__name__}; {remedy}")
    verify(path, record.get(KEY), remedy, needed=needed)
    return {name: value for name, value in record.items() if name != KEY}


def read_safetensors(
    path: Path, entry: str, remedy: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads what `to_safetensors` wrote: the record without the digest, and the arrays.

    Raises:
        FileError: Not such a file, or not what was written.
        FileNotFoundError: Nothing lies there.
    """
    with boundary.missing_stays_missing(path):
        with boundary.reader(path, _WHAT, remedy):
            boundary.open_regular(path).close()
            with safetensors.safe_open(path, framework="numpy") as file:
                record = json.loads((file.metadata() or {}).get(entry, "{}"))
                if not isinstance(record, dict):
                    raise FileError(f"{path} must hold a JSON object in {entry!r}; {remedy}")
                verify(path, record.get(KEY), remedy)
                arrays = {name: file.get_tensor(name) for name in file.keys()}
    return {name: value for name, value in record.items() if name != KEY}, arrays


def loads_json(name: object, data: bytes, remedy: str) -> dict[str, Any]:
    """`read_json` of bytes that were read already; `name` is what errors call them."""
    with boundary.reader(str(name), "a JSON object of ours", remedy):
        record = json.loads(data)
        if not isinstance(record, dict):
            raise ValueError(f"it must hold a JSON object, got a {type(record).__name__}")
    _verify_bytes(name, data, record.pop(KEY, None), remedy)
    return record


def loads_safetensors(
    name: object, data: bytes, entry: str, remedy: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """`read_safetensors` of bytes that were read already; `name` is what errors call them."""
    with boundary.reader(str(name), _WHAT, remedy):
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        record = json.loads(header.get("__metadata__", {}).get(entry, "{}"))
        if not isinstance(record, dict):
            raise ValueError(f"it must hold a JSON object in {entry!r}")
    _verify_bytes(name, data, record.pop(KEY, None), remedy)
    with boundary.reader(str(name), _WHAT, remedy):
        return record, safetensors.numpy.load(data)


def _verify_bytes(name: object, data: bytes, digest: object, remedy: str) -> None:
    known = isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) is not None
    first = data[:_BLOCK]
    if known and first.count(str(digest).encode()) == 1:
        first = first.replace(str(digest).encode(), PLACEHOLDER.encode())
        rest = [data[start : start + _BLOCK] for start in range(_BLOCK, len(data), _BLOCK)]
        if _joined(hashlib.sha256, [first, *rest]) == digest:
            return
    raise FileError(
        f"{name} does not hold what was written: its digest is another than the one it holds, or it holds"
        f" none; it was changed, or damaged on the disk or on the way; {remedy}"
    )


def verify(path: Path, digest: object, remedy: str, *, needed: bool = True) -> bool:
    """Compares a file with the digest that it holds.

    Args:
        path: The file.
        digest: What its record has under `KEY`; None where it has nothing.
        remedy: What to do about a damaged one, as an imperative.
        needed: Whether a file without a digest is refused.

    Returns:
        Whether there was a digest.

    Raises:
        FileError: The file is not what was written, or holds no digest though it must.
        OSError: It cannot be read.
    """
    if digest is None and not needed:
        return False
    if digest is None:
        raise FileError(
            f"{path} must hold a digest of its content ({KEY!r} in its record), got none: another"
            f" version of jaxprobe wrote it, or it is damaged; {remedy}"
        )
    known = isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) is not None
    if not known or _digest_of_file(path, str(digest)) != digest:
        raise FileError(
            f"{path} does not hold what was written: its digest is another than the one it holds; it"
            f" was changed, or damaged on the disk or on the way; {remedy}"
        )
    return True


def _sealed(content: bytes) -> list[bytes | memoryview]:
    if content[:_BLOCK].count(PLACEHOLDER.encode()) != 1:
        raise ValueError(f"a record must not hold {PLACEHOLDER}, the placeholder of its digest")
    whole = memoryview(content)
    blocks = [whole[start : start + _BLOCK] for start in range(0, len(content), _BLOCK)]
    digest = _joined(hashlib.sha256, blocks)
    first = content[:_BLOCK].replace(PLACEHOLDER.encode(), digest.encode())
    return [first, whole[_BLOCK:]]  # the rest is not copied: SAEs have gigabytes


def _digest_of_file(path: Path, held: str) -> str:
    """What a file's digest must be; empty where it does not hold `held` once in its first block."""
    with boundary.open_regular(path) as file:
        number, size = file.fileno(), os.fstat(file.fileno()).st_size
        first = os.pread(number, _BLOCK, 0)
        if first.count(held.encode()) != 1:
            return ""
        first = first.replace(held.encode(), PLACEHOLDER.encode())

        def block(start: int):
            return hashlib.sha256(os.pread(number, _BLOCK, start) if start else first)

        return _joined(block, range(0, size, _BLOCK))


def _joined(hashed: Callable, parts: Sequence) -> str:
    """The digest of all blocks, hashed side by side: hashing frees the interpreter's lock."""
    threads = min(_THREADS, os.cpu_count() or 1, len(parts))
    if threads <= 1:  # most files are one block, and starting a thread takes longer
        digests = [hashed(part).digest() for part in parts]
    else:
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            digests = [made.digest() for made in pool.map(hashed, parts)]
    return hashlib.sha256(b"".join(digests)).hexdigest()
