"""Gemma Scope 1: `layer_L/width_W/average_l0_N/params.npz`, JumpReLU SAEs without a config.

What the file does not say is read from where it lies: the repository's name ends in the stream
(`-res`, `-mlp`, `-att`, `-transcoders`), the folders give block, width and L0.
"""

import dataclasses
import io
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxprobe import boundary, place
from jaxprobe.base import Site
from jaxprobe.checkpoints import arrays, npz_file
from jaxprobe.checkpoints.loaded import LoadedSae
from jaxprobe.checkpoints.places import Place, number, site_of
from jaxprobe.saes import BatchTopKSae, JumpReluSae, ReluSae, check_sae, jump_relu

NAME = "Gemma Scope 1 (params.npz)"
FILE_NAME = "params.npz"
KEYS = {
    "W_enc": "W_enc_DS",
    "b_enc": "b_enc_S",
    "W_dec": "W_dec_SD",
    "b_dec": "b_dec_D",
    "threshold": "threshold_S",
}
STREAMS = {"res": "resid_post", "mlp": "mlp_out", "att": "attn_z", "transcoders": "mlp_in"}
_OTHER_NAMES = {  # of the transcoders' files, in lower case
    **{"w_enc": "W_enc", "wenc": "W_enc", "w_e": "W_enc", "w_dec": "W_dec", "wdec": "W_dec"},
    **{"w_d": "W_dec", "b_enc": "b_enc", "benc": "b_enc", "b_e": "b_enc", "b_dec": "b_dec"},
    **{"bdec": "b_dec", "b_d": "b_dec", "threshold": "threshold"},
}


def matches(place: Place) -> bool:
    """Whether the files there have this layout."""
    if place.file is not None:
        return place.file.suffix == ".npz"
    return place.has(FILE_NAME)


def load(place: Place) -> LoadedSae:
    """Reads one `params.npz`.

    Raises:
        ValueError: Not an .npz of five arrays, a missing key, or shapes that disagree.
    """
    path = place.file or place.folder / FILE_NAME
    found = _read(path)
    where = place.text("gemma-scope")
    stream = re.search(r"gemma-scope-[^/]*-(res|mlp|att|transcoders)\b", where)
    is_transcoder = stream is not None and stream[1] == "transcoders"
    sae = JumpReluSae(**arrays.fields(found, KEYS, path))
    hint = f"{path} is not a Gemma Scope SAE as published"
    # A transcoder's output may have another width than its input.
    jump_relu.check_sae(sae, hint, sae.b_dec_D.size if is_transcoder else None)
    metadata = {"architecture": "jump_relu", "format": "gemma_scope_1"}
    blocks = re.findall(r"(?:^|/)layer_([0-9]+)(?=/|$)", where)
    if re.search(r"/embedding/", where):
        # Published for unit-scale embeddings; the model's own are sqrt(d_model) times larger.
        root = math.sqrt(sae.d_model)
        sae = dataclasses.replace(sae, W_enc_DS=sae.W_enc_DS / root, W_dec_SD=sae.W_dec_SD * root)
        site = Site(block=-1, stream="embed")
    elif stream and blocks:
        block = int(blocks[-1])
        site = Site(block=block, stream=STREAMS[stream[1]])
        if is_transcoder:
            metadata["output_site"] = f"blocks.{block}.mlp_out"
    else:
        site = None
    return LoadedSae(
        sae=sae,
        id=_id(path, where, place),
        site=site_of(place, site),
        expected_l0=number(r"average_l0_(\d+)", where),
        source=place.source,
        metadata=metadata,
    )


def save(where: place.Place, sae) -> None:
    """Writes `params.npz` as Gemma Scope lays it out, whole or not at all.

    Raises:
        ValueError: An SAE that is no JumpReLU SAE and cannot be said as one.
    """
    thresholds = {
        JumpReluSae: lambda: sae.threshold_S,
        BatchTopKSae: lambda: np.full(sae.d_sae, sae.threshold, np.float32),
        ReluSae: lambda: np.zeros(sae.d_sae, np.float32),
    }
    if type(sae) not in thresholds:
        raise ValueError(
            "Gemma Scope's layout holds SAEs with one threshold per latent and nothing around them,"
            f" got {type(sae).__name__}; save it in the layout sae_lens or jaxprobe"
        )
    check_sae(sae, d_out=sae.b_dec_D.shape[-1])
    content: dict[str, Any] = {
        key: getattr(sae, field) for key, field in KEYS.items() if key != "threshold"
    }
    content["threshold"] = thresholds[type(sae)]()
    if isinstance(sae, BatchTopKSae):  # its threshold stands before the relu of negative ones
        content["threshold"] = np.maximum(content["threshold"], 0)
    file = io.BytesIO()
    arrays_of: dict[str, Any] = {k: np.asarray(a, np.float32) for k, a in content.items()}
    np.savez(file, **arrays_of)
    where.replace(file.getbuffer())


def _read(path: Path) -> dict[str, np.ndarray]:
    """The five arrays, as stored, under their usual names."""
    found = npz_file.read(path)
    renamed = {_OTHER_NAMES.get(name.lower(), name): array for name, array in found.items()}
    if len(renamed) < len(found):
        raise boundary.FileError(
            f"{path} must hold each array once, got {', '.join(found)}, two of which mean the same"
        )
    arrays.check_keys(renamed, KEYS, path)
    return renamed


def _id(path: Path, where: str, place: Place) -> str:
    """The repository's name and the folders under it, or the last folders of a bare path."""
    found = re.search(r"gemma-scope-[^/@]+", where)
    pattern = r"(layer|width|average_l0)_|embedding$"
    folders = [part for part in path.parent.parts if re.match(pattern, part)]
    named = ([found[0]] if found else []) + folders
    return "/".join(named) or place.id()
