"""Content of objects in parts, and names that are valid in every place."""

import re
from collections.abc import Sequence
from typing import Any

Bytes = bytes | bytearray | memoryview
Data = Bytes | list[Any] | tuple[Any, ...]  # an object's content, or parts of it in their order

MOST_NAME = 200  # bytes; file systems take 255, and names of unfinished files are longer
UNFINISHED = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{16}\.tmp", re.DOTALL)


def parts_of(data: Data) -> Sequence[Bytes]:
    """The parts to be written; any single buffer, such as Arrow's, is one part."""
    if isinstance(data, list | tuple):
        return data
    return [memoryview(data)]


def check_name(name: str, whole: str) -> None:
    """Raises ValueError for a name that is not valid for one file in every place.

    Args:
        name: The name.
        whole: What it is part of, for the error.
    """
    told = f"{whole!r:.200} must be file names with single slashes between them, got"
    if name in ("", ".", ".."):
        raise ValueError(f"{told} {name!r}; leave out `.`, `..` and slashes at the ends")
    if "\0" in name or any("\ud800" <= letter <= "\udfff" for letter in name):
        raise ValueError(f"{told} characters that some file systems refuse; use others")
    if len(name.encode()) > MOST_NAME:
        raise ValueError(f"{told} one of {len(name.encode())} bytes; use at most {MOST_NAME}")
    if UNFINISHED.fullmatch(name):
        raise ValueError(f"{told} {name!r}, which names an unfinished file; use another")
