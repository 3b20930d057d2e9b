"""`hf://`: files and folders of Hugging Face Hub repositories, through huggingface_hub."""

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from jaxprobe.assets.cache import AssetError, cache_dir
from jaxprobe.checks import check_choice

EXAMPLES = ("examples.safetensors",)  # beside Gemma Scope 2's SAEs, many times their size


def fetch_hub(rest: str, skip: Sequence[str] = ()) -> Path:
    """A file or folder of a repository, in the cache.

    Args:
        rest: OWNER/REPO[/SUB/PATH][@REVISION].
        skip: Patterns of files that are not downloaded.

    Raises:
        ValueError: Malformed, or a path that the repository lacks.
        AssetError: It is unavailable.
    """
    found = re.fullmatch(r"([^/@]+/[^/@]+)(?:/([^@]*))?(?:@(.+))?", rest)
    parts = re.split("[/@]", rest)
    if not found or ".." in parts or not rest.isprintable():
        raise ValueError(
            f"a Hub asset is hf://OWNER/REPO[/SUB/PATH][@REVISION], got {f'hf://{rest}'!r}"
        )
    repo, sub, revision = found[1], (found[2] or "").strip("/"), found[3]
    folder = cache_dir() / "hf"
    os.environ.setdefault("HF_XET_CACHE", str(folder / "xet"))  # else it writes to the home folder
    import huggingface_hub  # here, as it takes a quarter second and reads its settings on import

    # One call serves files and folders, online and offline: which of the two `sub` is, only the
    # repository knows.
    wanted = [glob.escape(sub), f"{glob.escape(sub)}/*"] if sub else None
    unwanted = [name for name in EXAMPLES if not sub.endswith(name)]
    try:
        snapshot = huggingface_hub.snapshot_download(
            repo,
            revision=revision,
            cache_dir=folder,
            allow_patterns=wanted,
            ignore_patterns=[*skip, *(f"*{name}" for name in unwanted)],
        )
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise AssetError(
            f"hf://{rest} is not in the cache and could not be downloaded ({reason}). Without a"
            f" network, fetch it elsewhere with `hf download {repo} --local-dir FOLDER` and give"
            f" that folder's path instead, or copy that machine's {folder} here; a gated"
            " repository needs its licence accepted and HF_TOKEN set"
        ) from None
    path = Path(snapshot) / sub
    if not path.exists():
        _refuse_hub_path(huggingface_hub.HfApi(), repo, sub, revision, Path(snapshot))
    return path


def _refuse_hub_path(api, repo: str, sub: str, revision: str | None, snapshot: Path) -> NoReturn:
    """Raises for a path that a repository lacks, with the nearest at its depth."""
    depth = sub.count("/") + 1
    try:
        files = api.list_repo_files(repo, revision=revision)
        where = f"path in hf://{repo}"
    except Exception:
        files = [p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*") if p.is_file()]
        where = f"path in the cached part of hf://{repo} (no network)"
    known = dict.fromkeys("/".join(name.split("/")[:depth]) for name in files)
    check_choice(where, sub, known)
    raise AssetError(f"hf://{repo}/{sub} was not downloaded; try again")
