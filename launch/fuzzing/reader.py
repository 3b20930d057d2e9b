"""What the fuzzer needs of a reader: how valid files of its kind are made, and how they are read."""

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from jaxprobe import sealed

_DIGEST = re.compile(sealed.KEY.encode() + rb"\W{1,8}([0-9a-f]{64})")


class Reader(NamedTuple):
    """One function of jaxprobe that reads files made by others.

    Attributes:
        makes: By name, functions that fill an empty folder with valid files; each is a starting point.
        read: Reads such a folder completely: headers, every array, every text.
        files: Patterns, relative to the folder, of the files that are mutated.
        mend: Corrects a mutated file's own checksum, so that the code after its check is reached.
    """

    makes: Mapping[str, Callable[[Path], object]]
    read: Callable[[Path], object]
    files: tuple[str, ...] = ("**/*",)
    mend: Callable[[bytes], bytes] | None = None

    def targets(self, folder: Path) -> list[Path]:
        """The files of a made folder that are mutated, in a stable order."""
        found = {path for pattern in self.files for path in folder.glob(pattern) if path.is_file()}
        return sorted(found)


def seal_again(content: bytes) -> bytes:
    """A mutated sealed file of up to 16 MiB, with its digest corrected."""
    found = _DIGEST.search(content)
    if found is None or len(content) > 16 << 20:
        return content
    blank = content.replace(found[1], sealed.PLACEHOLDER.encode(), 1)
    digest = hashlib.sha256(hashlib.sha256(blank).digest()).hexdigest()
    return content.replace(found[1], digest.encode(), 1)
