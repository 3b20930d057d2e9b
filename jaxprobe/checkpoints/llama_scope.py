"""Llama Scope: JumpReLU SAEs with one threshold, in the layout of `hyperparams.json`.

The official reading, on raw activations x, with s = sqrt(d) / (average norm):

    W_dec *= s_in / s_out    b_enc /= s_in    b_dec /= s_out    n_i = |W_dec_i|
    pre_i = n_i (W_i x + b_i)        z = pre where pre > jump_relu_threshold, else 0

SAELens leaves n_i out of the gate, so the two keep different latents where decoder norms are not
1; `llama_scope_gate="saelens"` reads as it does.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from jaxprobe.checkpoints import arrays, training_settings
from jaxprobe.checkpoints.loaded import LoadedSae
from jaxprobe.checkpoints.places import Place, hook_site, site_of
from jaxprobe.saes import JumpReluSae, TopKSae, check_sae, frame

NAME = "Llama Scope (hyperparams.json, checkpoints/final.safetensors)"
CONFIG_NAME = "hyperparams.json"
FILE_NAME = "checkpoints/final.safetensors"
KEYS = {
    "encoder.weight": "W_enc_DS",
    "encoder.bias": "b_enc_S",
    "decoder.weight": "W_dec_SD",
    "decoder.bias": "b_dec_D",
}


def matches(place: Place) -> bool:
    """Whether this is the layout of what lies there."""
    return place.has(CONFIG_NAME, FILE_NAME)


def load(place: Place) -> LoadedSae:
    """Reads one SAE or transcoder.

    Raises:
        ValueError: Hyperparameters that change the meaning and are not known, a damaged file, or
            arrays that do not fit together.
    """
    config_path, path = place.folder / CONFIG_NAME, place.folder / FILE_NAME
    config = arrays.read_json(config_path)
    _check(config, config_path)
    found = arrays.read_safetensors(path)
    wanted = list(KEYS)
    if not config.get("use_decoder_bias", True):
        wanted.remove("decoder.bias")
    arrays.check_keys(found, wanted, path)
    weights = {KEYS[key]: arrays.float32(found[key], transpose=True) for key in wanted}
    weights.setdefault("b_dec_D", jnp.zeros(weights["W_dec_SD"].shape[1]))
    read = _official if place.options.llama_scope_gate == "official" else _as_saelens
    core = read(config, weights, config_path)
    is_transcoder = config.get("hook_point_out", config["hook_point_in"]) != config["hook_point_in"]
    check_sae(
        core, f"{path} is not a Llama Scope SAE", core.b_dec_D.shape[0] if is_transcoder else None
    )
    shifts = bool(config.get("apply_decoder_bias_to_pre_encoder"))
    metadata: dict[str, Any] = {"format": "llama_scope", "config": config}
    if is_transcoder:
        output = hook_site(config["hook_point_out"])
        metadata["output_site"] = str(output) if output else None
    return LoadedSae(
        sae=frame(core, shift_D=core.b_dec_D if shifts and not is_transcoder else None),
        id=place.id(),
        site=site_of(place, hook_site(config["hook_point_in"])),
        expected_l0=float(config["top_k"]) if config.get("top_k") else None,
        source=place.source,
        metadata=metadata,
        bos=bos(place),
    )


def bos(place: Place) -> str:
    """Whether an SAE was trained with BOS, as the model's config beside it says; see `LoadedSae.bos`."""
    return training_settings.of_language_model(place)


def _check(config: Mapping[str, Any], path: Path) -> None:
    """Raises ValueError for hyperparameters whose meaning is not known."""
    for key in ("hook_point_in", "act_fn", "d_model", "d_sae"):
        arrays.need(config, key, path)
    for key, known in (
        ("act_fn", ("jumprelu", "topk")),
        ("norm_activation", ("dataset-wise", "inference")),
        ("use_glu_encoder", (False, None)),
    ):
        if config.get(key, known[0]) not in known:
            raise ValueError(f"{path} must have {key} of {known}, got {config[key]!r}")


def _scales(config: Mapping[str, Any], path: Path) -> tuple[float, float]:
    """What takes raw activations to the norm sqrt(d_model): at the input, at the output."""
    if config.get("norm_activation", "dataset-wise") == "inference":
        return 1.0, 1.0
    norms = arrays.need(config, "dataset_average_activation_norm", path)
    root = math.sqrt(config["d_model"])
    norm_in, norm_out = (float(arrays.need(norms, key, path)) for key in ("in", "out"))
    return root / norm_in, root / norm_out


def _official(config: Mapping[str, Any], weights: dict[str, Any], path: Path):
    scale_in, scale_out = _scales(config, path)
    W_enc_DS, b_enc_S = weights["W_enc_DS"], weights["b_enc_S"] / scale_in
    W_dec_SD = weights["W_dec_SD"] * (scale_in / scale_out)
    if config.get("sparsity_include_decoder_norm", True):
        norm_S = jnp.maximum(jnp.linalg.norm(W_dec_SD, axis=1), 1e-8)
        W_enc_DS, b_enc_S = W_enc_DS * norm_S[None, :], b_enc_S * norm_S
        W_dec_SD = W_dec_SD / norm_S[:, None]
    folded = {
        "W_enc_DS": W_enc_DS,
        "b_enc_S": b_enc_S,
        "W_dec_SD": W_dec_SD,
        "b_dec_D": weights["b_dec_D"] / scale_out,
    }
    threshold = config.get("jump_relu_threshold") or 0.0
    if config["act_fn"] == "topk" and threshold <= 0:
        return TopKSae(**folded, k=int(arrays.need(config, "top_k", path)))
    threshold_S = jnp.full(b_enc_S.shape, threshold, jnp.float32)
    return JumpReluSae(**folded, threshold_S=threshold_S)


def _as_saelens(config: Mapping[str, Any], weights: dict[str, Any], path: Path) -> JumpReluSae:
    """Gate without decoder norms, latents in normalised units, one scale for input and output."""
    scale, _ = _scales(config, path)
    threshold = float(arrays.need(config, "jump_relu_threshold", path)) * scale
    return JumpReluSae(
        W_enc_DS=weights["W_enc_DS"] * scale,
        b_enc_S=weights["b_enc_S"],
        W_dec_SD=weights["W_dec_SD"] / scale,
        b_dec_D=weights["b_dec_D"] / scale,
        threshold_S=jnp.full(weights["b_enc_S"].shape, threshold, jnp.float32),
    )
