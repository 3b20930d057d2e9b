"""Writing SAEs as SAELens does: `cfg.json` and `sae_weights.safetensors`."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from jaxprobe.base import Site
from jaxprobe.checkpoints.sae_lens import CONFIG_NAME, FILE_NAME, GATED, LINEAR
from jaxprobe.checkpoints.training_settings import BOS
from jaxprobe.place import Place
from jaxprobe.saes import (
    BatchTopKSae,
    FramedSae,
    GatedSae,
    GroupMaxSae,
    MatryoshkaSae,
    ReluSae,
    TopKSae,
    check_sae,
    core_of,
)
from jaxprobe.sites import transformer_lens_name

VERSION = "6.0.0"  # of the layout


def save(folder: Place, sae, metadata: Mapping[str, Any]) -> Place:
    """Writes `cfg.json` and `sae_weights.safetensors` that SAELens 6 loads.

    Args:
        folder: Where to.
        sae: An autoencoder of any architecture but groupmax; a transcoder of ReLU, or of one
            threshold per latent.
        metadata: JSON types; `model`, `site` and `output_site` (a transcoder's) are put into
            SAELens' words; `prepend_bos` is null where it is not told.

    Returns:
        The weight file.

    Raises:
        ValueError: An SAE or a site that the SAELens format cannot express.
    """
    check_sae(sae, d_out=core_of(sae).b_dec_D.shape[-1])
    core = core_of(sae)
    skip = getattr(sae, "W_skip_DE", None)
    transcodes = "output_site" in metadata or skip is not None or _is_wide(core)
    shifts = _check(sae, transcodes)
    name, content, extra = _said(core)
    if transcodes:
        name, content, extra = _as_transcoder(core, name, content, skip)
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
            **({"hook_name_out": _hook_name(metadata.get("output_site"))} if transcodes else {}),
            BOS: metadata.get(BOS),
        },
    }
    content = {key: np.ascontiguousarray(array, np.float32) for key, array in content.items()}
    (folder / FILE_NAME).replace(safetensors.numpy.save(content))
    text = json.dumps(config, indent=1, sort_keys=True)
    (folder / CONFIG_NAME).replace(text.encode())
    return folder / FILE_NAME


def _is_wide(core) -> bool:
    """Whether it writes another width than it reads."""
    return core.b_dec_D.shape[0] != core.d_model


def _check(sae, transcodes: bool) -> bool:
    """Whether the decoder's bias is subtracted from inputs.

    Raises:
        ValueError: The SAELens format cannot express what surrounds the autoencoder.
    """
    core = core_of(sae)
    if isinstance(core, GroupMaxSae):
        raise ValueError(
            "the SAELens format has no GroupMax architecture; save this SAE in the layout jaxprobe"
        )
    framed = sae if isinstance(sae, FramedSae) else None
    if framed is None:
        return False
    shifts = framed.shift_D is not None
    if transcodes and (shifts or (framed.normalisation != "none" and framed.restores)):
        raise ValueError(
            "SAELens' transcoders subtract no bias from inputs and do not undo a normalisation; save"
            " this one in the layout jaxprobe"
        )
    if not transcodes and framed.normalisation != "none" and not framed.restores:
        raise ValueError(
            "SAELens' SAEs undo their normalisation, and this one does not: if it is a transcoder, say"
            " its `output_site` in the metadata"
        )
    if framed.shift_D is not None and not np.array_equal(framed.shift_D, core.b_dec_D):
        raise ValueError("SAELens subtracts no other bias from inputs than the decoder's, got one")
    return shifts


def _as_transcoder(core, name: str, content: dict[str, Any], skip):
    """Architecture, arrays and config entries of a transcoder."""
    stems = {"standard": "", "jumprelu": "jumprelu_"}
    if name not in stems:
        raise ValueError(
            f"SAELens has transcoders of the architectures {' and '.join(stems)} only, got {name}; save"
            " it in the layout jaxprobe"
        )
    if skip is not None:
        content = {**content, "W_skip": np.asarray(skip).T}
    architecture = f"{stems[name]}{'' if skip is None else 'skip_'}transcoder"
    return architecture, content, {"d_out": core.b_dec_D.shape[0]}


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
    """TransformerLens' name of a site; raises ValueError where it has none."""
    return None if site is None else transformer_lens_name(Site.parse(str(site)))
