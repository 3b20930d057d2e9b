"""SAELens: `cfg.json` and `sae_weights.safetensors`, of version 6 and of those before it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import logging

from jaxprobe import boundary, checks
from jaxprobe.base import Site
from jaxprobe.checkpoints import arrays, folders, training_settings
from jaxprobe.checkpoints import config as configs
from jaxprobe.checkpoints.config import Config
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
    """Whether the files there have this layout."""
    return place.has(CONFIG_NAME, FILE_NAME)


def load(place: Place) -> LoadedSae:
    """Reads one SAE or transcoder.

    Raises:
        ValueError: An architecture or normalisation that is not known, a damaged file, or arrays
            that do not fit together.
    """
    config_path, path = place.folder / CONFIG_NAME, place.folder / FILE_NAME
    config = migrate(configs.read(config_path), config_path)
    architecture = config.text("architecture")
    if architecture not in (*ARCHITECTURES, *TRAINING):
        raise boundary.FileError(
            f"{config_path} must name an architecture of {', '.join(ARCHITECTURES)}, got"
            f" {architecture!r:.80}"
        )
    _check_inputs(config)
    found = arrays.read_safetensors(path)
    _drop_legacy_scale(found, path)
    core, skip = _core(config, architecture, found, path)
    hint = f"{path} is not a SAELens {architecture} SAE"
    is_transcoder = architecture in TRANSCODERS
    check_sae(core, hint, core.b_dec_D.size if is_transcoder else None)
    config.check_same("d_in", core.d_model, "are they of one SAE?")
    config.check_same("d_sae", core.d_sae, "are they of one SAE?")
    if is_transcoder:
        config.check_same("d_out", core.b_dec_D.size, "are they of one SAE?")
    core, normalisation = _normalise(config, core, place)
    metadata = config.section("metadata")
    site, output = _sites(metadata, architecture, place)
    site = site_of(place, site)
    shifts = config.flag("apply_b_dec_to_input") and not is_transcoder
    core, skip, centred = training_settings.on_raw_activations(
        *(core, skip, metadata),
        site=site,
        shifts=shifts,
        normalisation=normalisation,
        place=place,
        path=config_path,
    )
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
        expected_l0=_expected_l0(place, config, core),
        source=place.source,
        metadata={
            "format": "sae_lens",
            "config": config.content,
            **({"output_site": str(output) if output else None} if is_transcoder else {}),
        },
        bos=training_settings.bos_setting(metadata, config_path),
        centred=centred,
    )


def _sites(metadata: Config, architecture: str, place: Place) -> tuple[Site | None, Site | None]:
    """Where it reads, and where a transcoder writes."""
    library = "sae_lens_transcoder" if architecture in TRANSCODERS else "sae_lens"
    site = hook_site(_first(metadata, "hook_name", "hf_hook_name"), library)
    if architecture not in TRANSCODERS:
        return site, None
    if site and site.stream == "mlp_in_unscaled":
        logging.warning(
            "%s names %s, which is without the norm's weight, and is read so; SAELens' registry gives"
            " this name to Gemma Scope's transcoders, which read %s: if it is one of those, name"
            " that as `site`",
            *(place.source, metadata["hook_name"], f"blocks.{site.block}.mlp_in"),
        )
    return site, hook_site(_first(metadata, "hook_name_out", "hf_hook_name_out"), library)


def _first(metadata: Config, *keys: str) -> str | None:
    """The first entry that is there."""
    return next((text for key in keys if (text := metadata.text(key, None))), None)


def bos(place: Place) -> str:
    """Whether an SAE was trained with BOS, from its config alone; see `LoadedSae.bos`."""
    path = place.folder / CONFIG_NAME
    config = migrate(configs.read(path).content, path)
    return training_settings.bos_setting(config.section("metadata"), path)


def migrate(content: Mapping[str, Any], path: Path) -> Config:
    """A config of any version in version 6's words, with its defaults."""
    config = Config(content, path)
    metadata = dict(config.section("metadata", {}))
    version = str(config.get("sae_lens_version") or metadata.get("sae_lens_version") or "0")
    new = dict(content)
    if not version.split(".")[0].isdigit() or int(version.split(".")[0]) < 6:
        renamed = {
            "hook_point": "hook_name",
            "hook_point_head_index": "hook_head_index",
            "activation_fn_str": "activation_fn",
        }
        new = {renamed.get(key, key): value for key, value in content.items()}
        metadata = {training_settings.BOS: True, **new, **metadata}
        if new.get("activation_fn") == "topk":
            kwargs = config.section("activation_fn_kwargs", {})
            new["k"] = kwargs.get("k", new.get("k"))
            new["architecture"] = "topk"
        elif new.get("activation_fn", "relu") not in ("relu", "topk"):
            raise boundary.FileError(
                f"{path} must have the activation_fn relu or topk, got {new['activation_fn']!r:.80}"
            )
        if isinstance(new.get("normalize_activations"), bool):
            new["normalize_activations"] = (
                "expected_average_only_in" if new["normalize_activations"] else "none"
            )
    defaults = {
        **{"architecture": "standard", "normalize_activations": "none"},
        "apply_b_dec_to_input": True,
    }
    said = {key: value for key, value in new.items() if value is not None}
    return Config({**new, **defaults, **said, "metadata": metadata}, path)


def _check_inputs(config: Config) -> None:
    """Raises FileError for settings that choose other inputs, or change them in an unknown way."""
    config.choice("reshape_activations", ("none", "hook_z"), "none")
    for entries in (config, config.section("metadata")):
        if entries.get("hook_head_index") is not None:
            raise boundary.FileError(
                f"`hook_head_index` of {config.path} must be null, got"
                f" {entries['hook_head_index']!r:.40}: an SAE of one attention head reads a part of a"
                " site, which is not supported; take one of all heads (attn_z)"
            )


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
            log_S = np.asarray(arrays.float32(found.pop("log_threshold"), "log_threshold", path))
            with np.errstate(over="ignore"):  # to what no latent passes
                found["threshold"] = np.exp(log_S)
        fields, kind = {**BIAS, "threshold": "threshold_S"}, JumpReluSae
    elif architecture in TRAINING:
        fields, kind = {**BIAS, "topk_threshold": "threshold"}, BatchTopKSae
    elif architecture in ("topk", "abstopk"):
        kind = TopKSae
        values = {
            "k": config.count("k"),
            "signed": architecture == "abstopk",
        }
    fields = {**LINEAR, **fields}
    arrays.check_keys(found, (*fields, *extra), path, optional=IGNORED)
    values |= arrays.fields(found, fields, path)
    core = kind(**values)
    # SAELens knows this setting of TopK's kinds only, and drops it elsewhere.
    rescales = config.flag("rescale_acts_by_decoder_norm", False)
    if rescales and architecture in ("topk", "abstopk", *TRAINING):
        core = fold_decoder_norm(core)
    skip = arrays.float32(found["W_skip"], "W_skip", path, transpose=True) if is_skip else None
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
    kind = config.text("normalize_activations")
    if kind != "expected_average_only_in" and place.options.norm_scaling_factor is not None:
        reason = f"its activations are normalised by {kind:.40}"
        raise folders.refused(place, "norm_scaling_factor", reason)
    if kind in ("none", "constant_norm_rescale", "layer_norm"):
        return core, kind
    if kind == "expected_average_only_in":
        scale = place.options.norm_scaling_factor
        beside = place.folder / "activation_scaler.json"
        if scale is None:
            scale = configs.beside(beside, {}).positive("scaling_factor", None)
        if scale is None:
            logging.warning(
                "%s was trained on activations scaled by a factor that its files do not hold; it is"
                " read as it is. If its measured L0 is far off, give the factor of SAELens'"
                " registry as `norm_scaling_factor`",
                place.source,
            )
            return core, "none"
        return fold_scale(core, scale), "none"
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
    mean_D, into_DD, back_DD = (arrays.float32(found[name], name, path) for name in names)
    width, hint = core.d_model, "was it made for this SAE?"
    checks.check_shape(f"{path.name}: mean", mean_D, (width,), hint)
    for name, array in (("matrix", into_DD), ("inverse_matrix", back_DD)):
        checks.check_shape(f"{path.name}: {name}", array, (width, width), hint)
    W_enc_DS = into_DD @ core.W_enc_DS
    changed = {
        "W_enc_DS": W_enc_DS,
        "W_dec_SD": core.W_dec_SD @ back_DD,
        "b_dec_D": core.b_dec_D @ back_DD + mean_D,
    }
    if not config.flag("apply_b_dec_to_input"):
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
        if scale is not None and not np.allclose(arrays.float32(scale, name, path), 1.0):
            raise boundary.FileError(
                f"{path} holds {name}, per-latent output scales of a fine-tuned SAE, which change"
                " the latents' meaning and are not supported; save it again with a SAELens that"
                " folds them"
            )


def _expected_l0(place: Place, config: Config, core) -> float | None:
    """K where it decides, else the sum of the firing rates that some files come with."""
    if isinstance(core, TopKSae):
        return float(core.k)
    path = place.folder / "sparsity.safetensors"
    if not path.is_file():
        return None
    return configs.told(_mean_l0, path, core.d_sae)


def _mean_l0(path: Path, d_sae: int) -> float | None:
    """The sum of firing rates; raises FileError where the file does not hold their logarithms."""
    found = arrays.read_safetensors(path)
    if "sparsity" not in found:
        return None
    log10_S = np.asarray(found["sparsity"], np.float64)
    # A latent that never fired may have the logarithm -inf; none fires more often than always.
    if log10_S.shape != (d_sae,) or not (log10_S <= 1e-3).all():
        raise boundary.FileError(
            f"{path} must hold {d_sae} logarithms of firing rates, none above 0, got shape"
            f" {log10_S.shape} and at most {log10_S.max(initial=-np.inf)}; remove it if it belongs to"
            " another SAE"
        )
    return float((10.0**log10_S).sum())
