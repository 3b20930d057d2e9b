"""The former names of `Place.replace` and `Place.locked`, for callers that hold paths."""

import contextlib
from pathlib import Path

from jaxprobe.place import Place


def replace_file(path: Path | str, *content: bytes | memoryview) -> None:
    """As `Place.replace`; `content` are the parts, one after the other."""
    Place.parse(path).replace(list(content))


def locked(path: Path | str, *, wait: bool) -> contextlib.AbstractContextManager[None]:
    """As `Place.locked`."""
    return Place.parse(path).locked(wait=wait)
