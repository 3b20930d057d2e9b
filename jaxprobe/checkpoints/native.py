"""jaxprobe's own SAE file: safetensors, with one JSON text in its header.

The header has a single entry, because safetensors does not promise an order for several, and
equal SAEs shall be equal files.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from jaxprobe.base import Site
from jaxprobe.checkpoints import atomic
from jaxprobe.checkpoints.loaded import LoadedSae
from jaxprobe.saes.jump_relu import JumpReluSae, check_sae

FILE_NAME = "sae.safetensors"
FORMAT_VERSION = 1
HEADER = "jaxprobe"  # the header entry that holds the JSON text
KEYS = {
    "W_enc": "W_enc_DS",
    "b_enc": "b_enc_S",
    "W_dec": "W_dec_SD",
    "b_dec": "b_dec_D",
    "threshold": "threshold_S",
}


def save(path: Path, sae: JumpReluSae, metadata: Mapping[str, object]) -> None:
    """Writes an SAE, whole or not at all.

    Args:
        path: The file to write.
        sae: The weights.
        metadata: JSON types: `id`, `site` (text), `model`, `expected_l0`, `training` and more.

    Raises:
        ValueError: Arrays that do not fit together.
    """
    check_sae(sae)
    arrays = {key: np.ascontiguousarray(getattr(sae, field)) for key, field in KEYS.items()}
    header = {
        **metadata,
        "format_version": FORMAT_VERSION,
        "architecture": "jump_relu",
        "d_model": sae.d_model,
        "d_sae": sae.d_sae,
    }
    text = json.dumps(header, sort_keys=True)
    atomic.write_bytes(path, safetensors.numpy.save(arrays, metadata={HEADER: text}))


def load(path: Path, source: str) -> LoadedSae:
    """Reads an SAE that `save` wrote.

    Raises:
        ValueError: Not such a file, another format version, or arrays that do not fit together.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = _header(path, file.metadata())
            missing = set(KEYS) - set(file.keys())
            if missing:
                raise ValueError(
                    f"{path} must hold the arrays {', '.join(KEYS)}; it lacks"
                    f" {', '.join(sorted(missing))} and has {', '.join(file.keys()) or 'none'}"
                )
            arrays = {KEYS[key]: jnp.asarray(file.get_tensor(key)) for key in KEYS}
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} must be a safetensors file, and cannot be read as one ({error}); was it cut"
            " short while being copied?"
        ) from None
    sae = JumpReluSae(**arrays)
    check_sae(sae, f"{path} is not an SAE as jaxprobe writes it")
    return LoadedSae(
        sae=sae,
        id=header.get("id") or path.stem,
        site=Site.parse(header["site"]) if header.get("site") else None,
        expected_l0=header.get("expected_l0"),
        source=source,
        metadata=header,
    )


def _header(path: Path, metadata: Mapping[str, str] | None) -> dict:
    """The JSON text of the header, of a version that can be read."""
    metadata = metadata or {}
    if HEADER not in metadata:
        raise ValueError(
            f"{path} must have a safetensors header entry {HEADER!r}, got"
            f" {sorted(metadata)}; it was not written by jaxprobe, and other safetensors"
            " layouts are not read"
        )
    header = json.loads(metadata[HEADER])
    if header.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} must have format version {FORMAT_VERSION}, got"
            f" {header.get('format_version')}; use the jaxprobe that wrote it, or train it again"
        )
    return header
