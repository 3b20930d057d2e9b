"""Llama Scope: JumpReLU SAEs with one threshold, in the layout of `hyperparams.json`.

The official reading, on raw activations x, with s = sqrt(d) / (average norm):

    W_dec *= s_in / s_out    b_enc /= s_in    b_dec /= s_out    n_i = |W_dec_i|
    pre_i = n_i (W_i x + b_i)        z = pre where pre > jump_relu_threshold, else 0

SAELens leaves n_i out of the gate, so the two keep different latents where decoder norms are not
1; `llama_scope_gate="saelens"` reads as it does.
"""

import math
from typing import Any

import jax.numpy as jnp

from jaxprobe.checkpoints import arrays, training_settings
from jaxprobe.checkpoints import config as configs
from jaxprobe.checkpoints.config import Config
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
    """Whether the files there have this layout."""
    return place.has(CONFIG_NAME, FILE_NAME)


def load(place: Place) -> LoadedSae:
    """Reads one SAE or transcoder.

    Raises:
        ValueError: Hyperparameters that change the meaning and are not known, a damaged file, or
            arrays that do not fit together.
    """
    config_path, path = place.folder / CONFIG_NAME, place.folder / FILE_NAME
    config = configs.read(config_path)
    _check(config)
    found = arrays.read_safetensors(path)
    keys = dict(KEYS)
    if not config.flag("use_decoder_bias", True):
        del keys["decoder.bias"]
    arrays.check_keys(found, keys, path)
    weights = arrays.fields(found, keys, path, transposed=keys)
    weights.setdefault("b_dec_D", jnp.zeros(weights["W_dec_SD"].shape[1]))
    read = _official if place.options.llama_scope_gate == "official" else _as_saelens
    core = read(config, weights)
    hook_in = config.text("hook_point_in")
    hook_out = config.text("hook_point_out", hook_in)
    is_transcoder = hook_in != hook_out
    check_sae(
        core, f"{path} is not a Llama Scope SAE", core.b_dec_D.size if is_transcoder else None
    )
    config.check_same("d_model", core.d_model, "are they of one SAE?")
    config.check_same("d_sae", core.d_sae, "are they of one SAE?")
    shifts = config.flag("apply_decoder_bias_to_pre_encoder", False)
    metadata: dict[str, Any] = {"format": "llama_scope", "config": config.content}
    if is_transcoder:
        output = hook_site(hook_out, "llama_scope")
        metadata["output_site"] = str(output) if output else None
    return LoadedSae(
        sae=frame(core, shift_D=core.b_dec_D if shifts and not is_transcoder else None),
        id=place.id(),
        site=site_of(place, hook_site(hook_in, "llama_scope")),
        expected_l0=configs.told(config.positive, "top_k", None),
        source=place.source,
        metadata=metadata,
        bos=bos(place),
    )


def bos(place: Place) -> str:
    """Whether an SAE was trained with BOS, as the model's config beside it says; see `LoadedSae.bos`."""
    return training_settings.of_language_model(place)


def _check(config: Config) -> None:
    """Raises FileError for hyperparameters whose meaning is not known."""
    for key in ("d_model", "d_sae"):
        config.count(key)
    config.text("hook_point_in")
    config.choice("act_fn", ("jumprelu", "topk"))
    config.choice("norm_activation", ("dataset-wise", "inference"), "dataset-wise")
    config.choice("use_glu_encoder", (False,), False)


def _scales(config: Config) -> tuple[float, float]:
    """What takes raw activations to the norm sqrt(d_model): at the input, at the output."""
    if config.get("norm_activation") == "inference":
        return 1.0, 1.0
    norms = config.section("dataset_average_activation_norm")
    root = math.sqrt(config.count("d_model"))
    return root / norms.positive("in"), root / norms.positive("out")


def _official(config: Config, weights: dict[str, Any]):
    scale_in, scale_out = _scales(config)
    W_enc_DS, b_enc_S = weights["W_enc_DS"], weights["b_enc_S"] / scale_in
    W_dec_SD = weights["W_dec_SD"] * (scale_in / scale_out)
    if config.flag("sparsity_include_decoder_norm", True):
        norm_S = jnp.maximum(jnp.linalg.norm(W_dec_SD, axis=1), 1e-8)
        W_enc_DS, b_enc_S = W_enc_DS * norm_S[None, :], b_enc_S * norm_S
        W_dec_SD = W_dec_SD / norm_S[:, None]
    folded = {
        "W_enc_DS": W_enc_DS,
        "b_enc_S": b_enc_S,
        "W_dec_SD": W_dec_SD,
        "b_dec_D": weights["b_dec_D"] / scale_out,
    }
    # The published loader keeps what is above the threshold, whatever its sign: below zero, latents
    # would be negative.
    threshold = config.nonnegative("jump_relu_threshold", 0.0)
    if config["act_fn"] == "topk" and threshold == 0:
        return TopKSae(**folded, k=config.count("top_k"))
    threshold_S = jnp.full(b_enc_S.shape, threshold, jnp.float32)
    return JumpReluSae(**folded, threshold_S=threshold_S)


def _as_saelens(config: Config, weights: dict[str, Any]) -> JumpReluSae:
    """Gate without decoder norms, latents in normalised units, one scale for input and output."""
    scale, _ = _scales(config)
    threshold = config.nonnegative("jump_relu_threshold") * scale
    return JumpReluSae(
        W_enc_DS=weights["W_enc_DS"] * scale,
        b_enc_S=weights["b_enc_S"],
        W_dec_SD=weights["W_dec_SD"] / scale,
        b_dec_D=weights["b_dec_D"] / scale,
        threshold_S=jnp.full(weights["b_enc_S"].shape, threshold, jnp.float32),
    )
