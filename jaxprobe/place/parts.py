"""What places hold and how they may be called: content in parts, names that are good everywhere."""

import re
from collections.abc import Sequence
from typing import Any

Bytes = bytes | bytearray | memoryview
Data = Bytes | list[Any] | tuple[Any, ...]  # an object's content, or parts of it in their order

MOST_NAME = 200  # bytes; file systems take 255, and names of unfinished files are longer
UNFINISHED = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{16}\.tmp", re.DOTALL)


def parts_of(data: Data) -> Sequence[Bytes]:
    """The parts of what is to be written; any other buffer, such as Arrow's, is one part too."""
    if isinstance(data, list | tuple):
        return data
    return [memoryview(data)]


def check_name(name: str, whole: str) -> None:
    """Raises ValueError for what is not the name of one file everywhere.

    Args:
        name: The name.
        whole: What it is part of, for the error.
    """
    told = f"{whole!r:.200} must hold names of files with single slashes between them, got"
    if name in ("", ".", ".."):
        raise ValueError(f"{told} {name!r}; leave out `.`, `..` and slashes at the ends")
    if "\0" in name or any("\ud800" <= letter <= "\udfff" for letter in name):
        raise ValueError(f"{told} letters that no file's name may have everywhere; take others")
    if len(name.encode()) > MOST_NAME:
        raise ValueError(f"{told} one of {len(name.encode())} bytes; take at most {MOST_NAME}")
    if UNFINISHED.fullmatch(name):
        raise ValueError(f"{told} {name!r}, which names an unfinished file; take another")
