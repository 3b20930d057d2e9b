"""Llama Scope's newer layout (R1-Distill and after): `config.json` and `sae_weights.safetensors`.

    pre = s_in x W_enc + b_enc        z = pre where n pre > exp(log_threshold), else 0, n = |W_dec_i|

with s_in = sqrt(d) / (average norm) for `dataset-wise` normalised SAEs, sqrt(d) / |x| of each row
for `token-wise` ones and 1 for `inference`.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxprobe import boundary, checks
from jaxprobe.checkpoints import arrays, folders, training_settings
from jaxprobe.checkpoints import config as configs
from jaxprobe.checkpoints.config import Config
from jaxprobe.checkpoints.loaded import LoadedSae
from jaxprobe.checkpoints.places import Place, hook_site, site_of
from jaxprobe.checkpoints.sae_lens import fold_decoder_norm
from jaxprobe.saes import JumpReluSae, ReluSae, TopKSae, check_sae, frame

NAME = "llamascopium (config.json, sae_weights.safetensors)"
CONFIG_NAME = "config.json"
FILE_NAME = "sae_weights.safetensors"
OLD_KEYS = {
    "encoder.weight": "W_enc_DS",
    "encoder.bias": "b_enc_S",
    "decoder.weight": "W_dec_SD",
    "decoder.bias": "b_dec_D",
}
NEW_KEYS = {"W_E": "W_enc_DS", "b_E": "b_enc_S", "W_D": "W_dec_SD", "b_D": "b_dec_D"}
THRESHOLDS = ("log_jumprelu_threshold", "activation_function.log_jumprelu_threshold")
AVERAGE_NORM = "dataset_average_activation_norm."


def matches(place: Place) -> bool:
    """Whether the files there have this layout."""
    return place.has(CONFIG_NAME, FILE_NAME)


def load(place: Place) -> LoadedSae:
    """Reads one SAE or transcoder.

    Raises:
        ValueError: A kind, activation or normalisation that cannot be probed or is not known, a
            damaged file, or arrays that do not fit together.
    """
    config_path, path = place.folder / CONFIG_NAME, place.folder / FILE_NAME
    config = configs.read(config_path)
    found = arrays.read_safetensors(path)
    _check(config, found)
    norms = _norms(found, path)
    keys = dict(NEW_KEYS if "W_E" in found else OLD_KEYS)
    bias_key = next(key for key, field in keys.items() if field == "b_dec_D")
    if bias_key not in found and not config.flag("use_decoder_bias", True):
        del keys[bias_key]
    arrays.check_keys(found, keys, path, optional=THRESHOLDS)
    weights = arrays.fields(found, keys, path, transposed=("encoder.weight", "decoder.weight"))
    weights.setdefault("b_dec_D", jnp.zeros(weights["W_dec_SD"].shape[1]))
    hook_in = config.text("hook_point_in")
    hook_out = config.text("hook_point_out", hook_in)
    core = _core(config, weights, found, path)
    is_transcoder = hook_in != hook_out
    check_sae(
        core, f"{path} is not a llamascopium SAE", core.b_dec_D.size if is_transcoder else None
    )
    _check_widths(config, core)
    core, normalisation = _normalise(config, core, norms, (hook_in, hook_out), place)
    metadata: dict[str, Any] = {"format": "llamascopium", "config": config.content}
    if is_transcoder:
        output = hook_site(hook_out, "llama_scope")
        metadata["output_site"] = str(output) if output else None
    return LoadedSae(
        sae=frame(core, normalisation=normalisation, restores=not is_transcoder),
        id=place.id(),
        site=site_of(place, hook_site(hook_in, "llama_scope")),
        expected_l0=float(core.k) if isinstance(core, TopKSae) else None,
        source=place.source,
        metadata=metadata,
        bos=bos(place),
    )


def bos(place: Place) -> str:
    """Whether an SAE was trained with BOS, as the model's config beside it says; see `LoadedSae.bos`."""
    return training_settings.of_language_model(place)


def _check(config: Config, found: Mapping[str, Any]) -> None:
    """Raises ValueError for what changes the mathematics and is not known."""
    if config.flag("use_glu_encoder", False) or any("glu" in key for key in found):
        raise boundary.FileError(
            f"{config.path} describes an encoder with a gated linear unit, not supported"
        )
    kind = config.text("sae_type", "sae")
    if kind != "sae":
        raise boundary.FileError(
            f"{config.path} describes a {kind:.40}, whose latents read or write more than one site;"
            " name an SAE or transcoder of one layer"
        )
    config.choice("act_fn", ("relu", "jumprelu", "topk"))
    config.choice("apply_decoder_bias_to_pre_encoder", (False,), False)


def _norms(found: dict[str, np.ndarray], path: Path) -> dict[str, float]:
    """Takes away the average norms that stand among the arrays, by hook."""
    norms = {}
    for key in [key for key in found if key.startswith(AVERAGE_NORM)]:
        norm = arrays.float32(found.pop(key), key, path)
        if norm.size != 1 or not float(norm.reshape(())) > 0:
            raise boundary.FileError(
                f"{path} must hold one number above zero as `{key}`, got"
                f" {np.ravel(norm)[:4].tolist()}; the norm of activations is one"
            )
        norms[key.removeprefix(AVERAGE_NORM)] = float(norm.reshape(()))
    return norms


def _check_widths(config: Config, core) -> None:
    """Raises FileError where the config is that of another SAE."""
    config.check_same("d_model", core.d_model, "are they of one SAE?")
    config.check_same("d_sae", core.d_sae, "are they of one SAE?")
    times = config.positive("expansion_factor", None)
    if times is not None and round(times * core.d_model) != core.d_sae:
        raise boundary.FileError(
            f"{config.path} says expansion_factor = {times}, but the weights have {core.d_sae} latents"
            f" of width {core.d_model}: are they of one SAE?"
        )


def _core(config: Config, weights: dict, found: Mapping, path: Path):
    """The autoencoder before any treatment of its input."""
    includes_norm = config.flag("sparsity_include_decoder_norm", True)
    if config["act_fn"] == "relu":
        return ReluSae(**weights)
    if config["act_fn"] == "topk":
        sae = TopKSae(**weights, k=config.count("top_k"))
        return fold_decoder_norm(sae) if includes_norm else sae
    key = next((key for key in THRESHOLDS if key in found), None)
    if key is None:
        raise boundary.FileError(f"{path} must hold {THRESHOLDS[0]}, got {', '.join(found)}")
    # In float64: a rounded exponential would move latents across their thresholds.
    with np.errstate(over="ignore"):
        threshold_S = np.exp(np.asarray(arrays.float32(found[key], key, path), np.float64))
    if includes_norm:
        norm_S = np.linalg.norm(np.asarray(weights["W_dec_SD"]), axis=1)
        checks.check_shape(key, threshold_S, norm_S.shape, f"{path} is damaged")
        threshold_S = threshold_S / np.maximum(norm_S, 1e-8)
    return JumpReluSae(**weights, threshold_S=arrays.float32(threshold_S, key, path))


def _normalise(config: Config, core, norms: Mapping[str, float], hooks, place: Place):
    """The core on raw activations, and the kind of normalisation that is left."""
    kind = config.text("norm_activation", "dataset-wise")
    if kind != "dataset-wise" and place.options.norm_scaling_factor is not None:
        raise folders.refused(place, "norm_scaling_factor", f"it is normalised {kind:.40}")
    if kind == "inference":
        return core, "none"
    if kind == "token-wise":
        return core, "constant_norm_rescale"
    if kind != "dataset-wise":
        raise ValueError(
            f"{place.source} is normalised {kind}: its latents depend on the batch that a row is"
            " in; token-wise, dataset-wise and inference are read"
        )
    root = math.sqrt(core.d_model)
    average = config.section("dataset_average_activation_norm", Config({}, config.path))
    scales = []
    for hook, side in zip(hooks, ("in", "out"), strict=True):
        norm = norms.get(hook) or average.positive(hook, average.positive(side, None))
        given = place.options.norm_scaling_factor
        if norm is None and given is None:
            raise ValueError(
                f"{place.source} is normalised dataset-wise, and its files do not hold the average"
                f" norm at {hook}; give sqrt(d_model) / norm as `norm_scaling_factor`"
            )
        if norm is not None and given is not None:
            reason = f"its files hold the average norm at {hook}"
            raise folders.refused(place, "norm_scaling_factor", reason)
        scales.append(given if norm is None else root / norm)
    return dataclasses.replace(
        core,
        W_enc_DS=core.W_enc_DS * scales[0],
        W_dec_SD=core.W_dec_SD / scales[1],
        b_dec_D=core.b_dec_D / scales[1],
    ), "none"
