"""Gemma Scope 1: `layer_L/width_W/average_l0_N/params.npz`, JumpReLU SAEs without a config.

What the file does not say is read from where it lies: the repository's name ends in the stream
(`-res`, `-mlp`, `-att`), the folders give block, width and L0.
"""

import re
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from absl import logging

from jaxprobe.base import Site
from jaxprobe.checkpoints.loaded import LoadedSae
from jaxprobe.saes.jump_relu import JumpReluSae, check_sae

FILE_NAME = "params.npz"
KEYS = {
    "W_enc": "W_enc_DS",
    "b_enc": "b_enc_S",
    "W_dec": "W_dec_SD",
    "b_dec": "b_dec_D",
    "threshold": "threshold_S",
}


def load(path: Path, source: str) -> LoadedSae:
    """Reads one `params.npz`.

    Args:
        path: The file.
        source: What the user named; like the file's own path, it may tell block and L0.

    Raises:
        ValueError: Not an .npz of five arrays, a missing key, or shapes that disagree.
    """
    arrays = _read(path)
    sae = JumpReluSae(**{KEYS[key]: jnp.asarray(arrays[key], jnp.float32) for key in KEYS})
    check_sae(sae, f"{path} is not a Gemma Scope SAE as published")
    where = next((text for text in (source, path.as_posix()) if "gemma-scope" in text), source)
    if re.search(r"/embedding/", where):
        raise ValueError(
            f"{source}: Gemma Scope's embedding SAEs read scaled embeddings, which jaxprobe does not"
            " support; load one of the `layer_L` folders"
        )
    return LoadedSae(
        sae=sae,
        id=_id(path, where),
        site=_site(where),
        expected_l0=_number(r"average_l0_(\d+)", where),
        source=source,
        metadata={"architecture": "jump_relu", "format": "gemma_scope_1"},
    )


def _read(path: Path) -> dict[str, np.ndarray]:
    """The five arrays, as stored."""
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            missing = [key for key in KEYS if key not in file.files]
            if missing:
                raise ValueError(
                    f"{path} must hold the arrays {', '.join(KEYS)}; it lacks"
                    f" {', '.join(missing)} and has {', '.join(file.files) or 'none'}"
                )
            return {key: file[key] for key in KEYS}
    except (zipfile.BadZipFile, EOFError, OSError, AttributeError) as error:
        raise ValueError(
            f"{path} must be an .npz archive of arrays, and cannot be read as one ({error}); was"
            " its download cut short?"
        ) from None


def _site(where: str) -> Site | None:
    """`blocks.L.resid_post` for a `-res` repository, else None."""
    found = re.search(r"gemma-scope-[^/]*-(res|mlp|att|transcoders)\b.*?layer_(\d+)", where)
    if found and found[1] == "res":
        return Site(block=int(found[2]), stream="resid_post")
    logging.warning("%s does not tell a residual-stream site; name the site yourself", where)
    return None


def _id(path: Path, where: str) -> str:
    """The repository's name and the folders under it, or the last folders of a bare path."""
    found = re.search(r"gemma-scope-[^/@]+", where)
    folders = [part for part in path.parent.parts if re.match(r"(layer|width|average_l0)_", part)]
    named = ([found[0]] if found else []) + folders
    return "/".join(named) or path.parent.name


def _number(pattern: str, where: str) -> float | None:
    found = re.search(pattern, where)
    return float(found[1]) if found else None
