"""Writing SAEs as SAELens does: `cfg.json` and `sae_weights.safetensors`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from jaxprobe.checkpoints import atomic
from jaxprobe.checkpoints.sae_lens import CONFIG_NAME, FILE_NAME, GATED, LINEAR
from jaxprobe.saes import (
    BatchTopKSae,
    FramedSae,
    GatedSae,
    GroupMaxSae,
    MatryoshkaSae,
    ReluSae,
    TopKSae,
    core_of,
)

VERSION = "6.0.0"  # of the layout


def save(folder: Path, sae, metadata: Mapping[str, Any]) -> Path:
    """Writes `cfg.json` and `sae_weights.safetensors` that SAELens 6 loads.

    Args:
        folder: Where to.
        sae: An autoencoder of any architecture but groupmax.
        metadata: JSON types; `model` and `site` are put into SAELens' words.

    Returns:
        The weight file.

    Raises:
        ValueError: An SAE that SAELens has no word for.
    """
    core = core_of(sae)
    if isinstance(core, GroupMaxSae) or (isinstance(sae, FramedSae) and sae.W_skip_DE is not None):
        raise ValueError("SAELens' layout has no word for this SAE; save it in the layout jaxprobe")
    shifts = isinstance(sae, FramedSae) and sae.shift_D is not None
    if shifts and not np.array_equal(sae.shift_D, core.b_dec_D):
        raise ValueError("SAELens subtracts no other bias from inputs than the decoder's, got one")
    if core.b_dec_D.shape[0] != core.d_model:
        raise ValueError("transcoders are written in the layout jaxprobe only")
    name, content, extra = _said(core)
    config = {
        "architecture": name,
        "d_in": core.d_model,
        "d_sae": core.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": shifts,
        "normalize_activations": getattr(sae, "normalisation", "none"),
        "reshape_activations": "none",
        **extra,
        "metadata": {
            "sae_lens_version": VERSION,
            "model_name": metadata.get("model"),
            "hook_name": _hook_name(metadata.get("site")),
            "prepend_bos": True,
        },
    }
    content = {key: np.ascontiguousarray(array, np.float32) for key, array in content.items()}
    atomic.write_bytes(folder / FILE_NAME, safetensors.numpy.save(content))
    text = json.dumps(config, indent=1, sort_keys=True)
    atomic.write_bytes(folder / CONFIG_NAME, text.encode())
    return folder / FILE_NAME


def _said(core) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Architecture, arrays and config entries in SAELens' words."""
    content = {key: getattr(core, field) for key, field in LINEAR.items()}
    if isinstance(core, GatedSae):
        return "gated", content | {key: getattr(core, GATED[key]) for key in GATED}, {}
    content["b_enc"] = core.b_enc_S
    if isinstance(core, TopKSae):
        extra = {} if core.signed else {"rescale_acts_by_decoder_norm": False}
        return "abstopk" if core.signed else "topk", content, {"k": core.k, **extra}
    if isinstance(core, ReluSae):
        return "standard", content, {}
    if isinstance(core, BatchTopKSae):
        threshold_S = np.full(core.d_sae, max(float(core.threshold), 0.0))
    else:
        threshold_S = np.asarray(core.threshold_S)
    if isinstance(core, MatryoshkaSae):  # latents that are not used never pass
        unused_S = np.asarray(core.group_S) >= core.active_groups
        threshold_S = np.where(unused_S, np.finfo(np.float32).max, np.maximum(threshold_S, 0))
    return "jumprelu", content | {"threshold": threshold_S}, {}


def _hook_name(site: Any) -> str | None:
    """TransformerLens' name of a site."""
    if not isinstance(site, str) or site == "embed":
        return "hook_embed" if site == "embed" else None
    block, stream = site.rsplit(".", 1)
    return f"{block}.attn.hook_z" if stream == "attn_z" else f"{block}.hook_{stream}"
