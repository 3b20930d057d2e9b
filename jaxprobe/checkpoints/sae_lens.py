"""SAELens: `cfg.json` and `sae_weights.safetensors`, of version 6 and of those before it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import logging

from jaxprobe.checkpoints import arrays, training_settings
from jaxprobe.checkpoints.loaded import LoadedSae
from jaxprobe.checkpoints.places import Place, hook_site, site_of
from jaxprobe.saes import (
    BatchTopKSae,
    GatedSae,
    JumpReluSae,
    ReluSae,
    TopKSae,
    check_sae,
    frame,
)

NAME = "SAELens (cfg.json, sae_weights.safetensors)"
CONFIG_NAME = "cfg.json"
FILE_NAME = "sae_weights.safetensors"
VERSION = "6.0.0"  # of the layout that is written
LINEAR = {"W_enc": "W_enc_DS", "W_dec": "W_dec_SD", "b_dec": "b_dec_D"}
BIAS = {"b_enc": "b_enc_S"}
GATED = {"b_gate": "b_gate_S", "b_mag": "b_mag_S", "r_mag": "r_mag_S"}
TRANSCODERS = (
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
)
ARCHITECTURES = ("standard", "jumprelu", "topk", "abstopk", "gated", *TRANSCODERS)
TRAINING = ("batchtopk", "matryoshka_batchtopk")  # whose checkpoints keep `topk_threshold`
IGNORED = ("scaling_factor", "finetuning_scaling_factor", "sparsity")


def matches(place: Place) -> bool:
    """Whether this is the layout of what lies there."""
    return place.has(CONFIG_NAME, FILE_NAME)


def load(place: Place) -> LoadedSae:
    """Reads one SAE or transcoder.

    Raises:
        ValueError: An architecture or normalisation that is not known, a damaged file, or arrays
            that do not fit together.
    """
    config_path, path = place.folder / CONFIG_NAME, place.folder / FILE_NAME
    config = migrate(arrays.read_json(config_path), config_path)
    architecture = config["architecture"]
    if architecture not in (*ARCHITECTURES, *TRAINING):
        raise ValueError(
            f"{config_path} must name an architecture of {', '.join(ARCHITECTURES)}, got"
            f" {architecture!r}"
        )
    found = arrays.read_safetensors(path)
    _drop_legacy_scale(found, path)
    core, skip = _core(config, architecture, found, path)
    hint = f"{path} is not a SAELens {architecture} SAE"
    is_transcoder = architecture in TRANSCODERS
    check_sae(core, hint, core.b_dec_D.shape[-1] if is_transcoder else None)
    _check_widths(config, core, config_path)
    core, normalisation = _normalise(config, core, place)
    metadata = config["metadata"]
    site = site_of(place, hook_site(metadata.get("hook_name")))
    shifts = config["apply_b_dec_to_input"] and not is_transcoder
    core, skip, centred = training_settings.on_raw_activations(
        *(core, skip, metadata),
        site=site,
        shifts=shifts,
        normalisation=normalisation,
        place=place,
        path=config_path,
    )
    output = hook_site(metadata.get("hook_name_out")) if is_transcoder else None
    return LoadedSae(
        sae=frame(
            core,
            shift_D=core.b_dec_D if shifts else None,
            W_skip_DE=skip,
            normalisation=normalisation,
            restores=not is_transcoder,
        ),
        id=place.id(),
        site=site,
        expected_l0=_expected_l0(place, config),
        source=place.source,
        metadata={
            "format": "sae_lens",
            "config": config,
            **({"output_site": str(output) if output else None} if is_transcoder else {}),
        },
        bos=training_settings.bos_setting(metadata, config_path),
        centred=centred,
    )


def bos(place: Place) -> str:
    """Whether an SAE was trained with BOS, from its config alone; see `LoadedSae.bos`."""
    path = place.folder / CONFIG_NAME
    return training_settings.bos_setting(migrate(arrays.read_json(path), path)["metadata"], path)


def migrate(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A config of any version in version 6's words, with its defaults."""
    metadata = dict(config.get("metadata") or {})
    version = str(config.get("sae_lens_version") or metadata.get("sae_lens_version") or "0")
    new = dict(config)
    if not version.split(".")[0].isdigit() or int(version.split(".")[0]) < 6:
        renamed = {
            "hook_point": "hook_name",
            "hook_point_head_index": "hook_head_index",
            "activation_fn_str": "activation_fn",
        }
        new = {renamed.get(key, key): value for key, value in config.items()}
        metadata = {training_settings.BOS: True, **new, **metadata}
        if new.get("activation_fn") == "topk":
            new["k"] = (new.get("activation_fn_kwargs") or {}).get("k", new.get("k"))
            new["architecture"] = "topk"
        elif new.get("activation_fn", "relu") not in ("relu", "topk"):
            raise ValueError(
                f"{path} must have the activation_fn relu or topk, got {new['activation_fn']!r}"
            )
        if isinstance(new.get("normalize_activations"), bool):
            new["normalize_activations"] = (
                "expected_average_only_in" if new["normalize_activations"] else "none"
            )
    new["architecture"] = new.get("architecture") or "standard"
    new["normalize_activations"] = new.get("normalize_activations") or "none"
    applies = new.get("apply_b_dec_to_input")
    new["apply_b_dec_to_input"] = True if applies is None else bool(applies)
    new["metadata"] = metadata
    return new


def _core(config, architecture: str, found: dict, path: Path):
    """The autoencoder without its frame, and the skip connection."""
    is_skip = architecture.endswith("skip_transcoder")
    extra = {"W_skip": ""} if is_skip else {}
    if architecture == "gated":
        fields, kind = GATED, GatedSae
    else:
        fields, kind = BIAS, ReluSae
    values: dict[str, Any] = {}
    if architecture.startswith("jumprelu"):
        if "log_threshold" in found and "threshold" not in found:
            found["threshold"] = np.exp(np.asarray(found.pop("log_threshold"), np.float32))
        fields, kind = {**BIAS, "threshold": "threshold_S"}, JumpReluSae
    elif architecture in TRAINING:
        fields, kind = {**BIAS, "topk_threshold": "threshold"}, BatchTopKSae
    elif architecture in ("topk", "abstopk"):
        kind = TopKSae
        values = {
            "k": int(arrays.need(config, "k", path.with_name(CONFIG_NAME))),
            "signed": architecture == "abstopk",
        }
    fields = {**LINEAR, **fields}
    arrays.check_keys(found, (*fields, *extra), path, optional=IGNORED)
    values |= {field: arrays.float32(found[key]) for key, field in fields.items()}
    core = kind(**values)
    if config.get("rescale_acts_by_decoder_norm") and hasattr(core, "b_enc_S"):
        core = fold_decoder_norm(core)
    skip = arrays.float32(found["W_skip"], transpose=True) if is_skip else None
    return core, skip


def fold_decoder_norm(core):
    """Latents in units of what they write: decoder rows get norm 1, all else takes it over."""
    norm_S = jnp.maximum(jnp.linalg.norm(core.W_dec_SD, axis=1), 1e-8)
    changed = {
        "W_enc_DS": core.W_enc_DS * norm_S[None, :],
        "b_enc_S": core.b_enc_S * norm_S,
        "W_dec_SD": core.W_dec_SD / norm_S[:, None],
    }
    return dataclasses.replace(core, **changed)


def _normalise(config, core, place: Place):
    """The core with what can be folded into it, and the kind of normalisation that is left."""
    kind = config["normalize_activations"]
    if kind in ("none", "constant_norm_rescale", "layer_norm"):
        return core, kind
    if kind == "expected_average_only_in":
        scale = place.options.norm_scaling_factor
        beside = place.folder / "activation_scaler.json"
        if scale is None and beside.is_file():
            scale = arrays.read_json(beside).get("scaling_factor")
        if scale is None:
            logging.warning(
                "%s was trained on activations scaled by a factor that its files do not hold; it is"
                " read as it is. If its measured L0 is far off, give the factor of SAELens'"
                " registry as `norm_scaling_factor`",
                place.source,
            )
            return core, "none"
        return fold_scale(core, float(scale)), "none"
    if kind == "covariance_whitening":
        return _unwhiten(config, core, place.folder / "activation_whitening.safetensors"), "none"
    raise ValueError(
        f"{place.folder / CONFIG_NAME} must have normalize_activations none,"
        " expected_average_only_in, constant_norm_rescale, layer_norm or covariance_whitening, got"
        f" {kind!r}"
    )


def fold_scale(core, scale: float):
    """An SAE of `scale * x` as one of `x`; biases and thresholds of the encoder stay."""
    return dataclasses.replace(
        core,
        W_enc_DS=core.W_enc_DS * scale,
        W_dec_SD=core.W_dec_SD / scale,
        b_dec_D=core.b_dec_D / scale,
    )


def _unwhiten(config, core, path: Path):
    """An SAE of `(x - mean) M` as one of `x`."""
    names = ("mean", "matrix", "inverse_matrix")
    found = arrays.read_safetensors(path)
    arrays.check_keys(found, names, path, optional=tuple(found))
    mean_D, into_DD, back_DD = (arrays.float32(found[name]) for name in names)
    W_enc_DS = into_DD @ core.W_enc_DS
    changed = {
        "W_enc_DS": W_enc_DS,
        "W_dec_SD": core.W_dec_SD @ back_DD,
        "b_dec_D": core.b_dec_D @ back_DD + mean_D,
    }
    if not config["apply_b_dec_to_input"]:
        shift_S = mean_D @ W_enc_DS
        if isinstance(core, GatedSae):
            changed["b_gate_S"] = core.b_gate_S - shift_S
            changed["b_mag_S"] = core.b_mag_S - shift_S * jnp.exp(core.r_mag_S)
        else:
            changed["b_enc_S"] = core.b_enc_S - shift_S
    return dataclasses.replace(core, **changed)


def _drop_legacy_scale(found: dict, path: Path) -> None:
    """Takes away per-latent output scales of old versions where they are 1; refuses others."""
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        scale = found.pop(name, None)
        if scale is not None and not np.allclose(np.asarray(scale, np.float32), 1.0):
            raise ValueError(
                f"{path} holds {name}, per-latent output scales of a fine-tuned SAE, which change"
                " the latents' meaning and are not supported; save it again with a SAELens that"
                " folds them"
            )


def _check_widths(config, core, path: Path) -> None:
    for key, have in (("d_in", core.d_model), ("d_sae", core.d_sae)):
        want = config.get(key)
        if want is not None and int(want) != have:
            raise ValueError(f"{path} says {key} = {want}, but the weights have {have}")


def _expected_l0(place: Place, config) -> float | None:
    """K where it decides, else the sum of the firing rates that some files come with."""
    if config["architecture"] in ("topk", "abstopk"):
        return float(config["k"])
    path = place.folder / "sparsity.safetensors"
    if path.is_file():
        log10_S = arrays.read_safetensors(path).get("sparsity")
        if log10_S is not None:
            return float((10.0 ** np.asarray(log10_S, np.float64)).sum())
    return None
