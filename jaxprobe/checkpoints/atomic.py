"""Files that appear whole or not at all, whenever the process is killed."""

import os
from pathlib import Path


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` to a temporary neighbour, flushes it to the disk, then renames it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # else a power cut may forget the rename
    finally:
        os.close(folder)
