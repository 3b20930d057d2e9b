"""What an SAE was trained on: settings in its files that change the activations it means.

Applied: `prepend_bos` (an SAE's `bos`) and `center_writing_weights`. Refused by name: `fold_ln`,
`fold_value_biases` and `refactor_factored_attn_matrices` at the sites that they change, and keyword
arguments that are not known (a head index: in `sae_lens`). Warned of: arguments that pick other weights
than the model's published ones. Left aside, because a prompt's activations do not depend on them: which
positions and tokens were trained on (`context_size`, `seqpos_slice`, `exclude_special_tokens`,
`dataset_path`, dictionary learning's `remove_bos` and `norm_factor`), `_NO_EFFECT`, and an output's head
(`hook_head_index_out`).

References:
    SAELens 6: `load_model` takes HookedTransformer.from_pretrained_no_processing with
    `model_from_pretrained_kwargs`; absent ones mean no processing, an absent `prepend_bos` yes before
    version 6 (`handle_pre_6_0_config`). TransformerLens 3: `ProcessWeights`.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from absl import logging

from jaxprobe.base import Site
from jaxprobe.checkpoints import config as configs
from jaxprobe.checkpoints.places import Place

BOS, KWARGS = "prepend_bos", "model_from_pretrained_kwargs"
# Where things lie and what computes them; rounding; the logits; tokens, which SAELens makes itself.
_NO_EFFECT = {
    *("device", "n_devices", "move_to_device", "device_map", "max_memory", "low_cpu_mem_usage"),
    *("dtype", "torch_dtype", "center_unembed", "first_n_layers", "n_ctx", "attn_implementation"),
    *("default_prepend_bos", "default_padding_side", "padding_side"),
    *("token", "use_auth_token", "local_files_only", "cache_dir", "force_download"),
    *("trust_remote_code", "use_safetensors", "weights_only"),
}
_OTHER_WEIGHTS = {
    *("revision", "checkpoint_index", "checkpoint_value", "variant", "subfolder"),
    *("load_in_8bit", "load_in_4bit", "quantization_config"),
}
# Keyword arguments that change one stream only, and why.
_REFUSED = {
    "fold_ln": (
        "mlp_in",
        "the norm's weight was folded into the MLP, which then read the input without",
    ),
    "fold_value_biases": ("attn_z", "the heads were read without their value biases"),
    "refactor_factored_attn_matrices": ("attn_z", "the heads were read in another basis"),
}
# A norm has removed the mean (LayerNorm) before these.
_AFTER_NORM = ("attn_z", "attn_in_unscaled", "mlp_in", "mlp_in_unscaled")
_LAYER_NORM = (
    r"pythia|gpt|neox|opt-|bloom|phi-?[12](\b|_)|stablelm|falcon|gelu|solu|tiny-?stories|dolly"
)
_RMS_NORM = r"gemma|llama|mistral|mixtral|qwen|gpt-oss|olmo-?2|phi-?[34]|deepseek|\byi-"
# SAELens' registry says it of these repositories; their files do not.
_CENTRED_REPOSITORIES = (
    "tommmcgrath/gpt2-small-mlp-out-saes",
    "jbloom/GPT2-Small-SAEs-Reformatted",
    "jbloom/GPT2-Small-Feature-Splitting-Experiment-Layer-8",
)


def bos_setting(said: Mapping[str, Any], path: object) -> str:
    """`on` or `off` as `prepend_bos` says; `auto` where it says nothing. `path` names the file in errors.

    Raises:
        ValueError: It is neither true nor false.
    """
    value = said.get(BOS)
    if value is None:
        return "auto"
    if not isinstance(value, bool):
        raise ValueError(f"`{BOS}` of {path} must be true or false, got {value!r}; mend the file")
    # Without TransformerLens SAELens puts the tokenizer's own BOS in front, and Qwen's has none; the
    # models that others distilled into Qwen's have one.
    name = str(said.get("model_name")).lower()
    bare = said.get("model_class_name") == "AutoModelForCausalLM" and "qwen" in name
    return "on" if value and not (bare and "distill" not in name) else "off"


def of_language_model(place: Place) -> str:
    """`bos_setting` of `lm_config.json`, which Language-Model-SAEs leaves beside an SAE or above it.

    Without that file nothing is known; in it, an absent `prepend_bos` means yes.
    """
    for folder in (place.folder, place.folder.parent):
        path = folder / "lm_config.json"
        if path.is_file():
            return bos_setting({BOS: True, **configs.read(path)}, path)
    return "auto"


def of_buffer(config: Mapping[str, Any]) -> str:
    """What dictionary_learning's activation buffer says of BOS: `off`, or `auto` for the tokenizer's rule."""
    buffer = config.get("buffer")
    says = buffer.get("add_special_tokens") if isinstance(buffer, Mapping) else None
    return "off" if says is False else "auto"


def on_raw_activations(
    core,
    skip_DE,
    metadata: Mapping[str, Any],
    *,
    site: Site | None,
    shifts: bool,
    normalisation: str,
    place: Place,
    path: Path,
):
    """An SAE of what its model was loaded to give, as one of the model's own activations.

    Args:
        core: The autoencoder.
        skip_DE: Its skip connection, or None.
        metadata: SAELens' metadata of the SAE.
        site: Where it reads.
        shifts: Whether the decoder's bias is subtracted from inputs.
        normalisation: What else is done to inputs.
        place: Where it lies.
        path: The config file, for messages.

    Returns:
        The core, the skip connection, and whether they were trained on centred activations.

    Raises:
        ValueError: A setting that changes what was read at this site and is not supported, or that is
            not known.
    """
    centred = _is_centred(metadata, site, place, path)
    if centred:
        core, skip_DE = _of_uncentred(core, skip_DE, shifts, normalisation, path)
    return core, skip_DE, centred


def _is_centred(metadata: Mapping[str, Any], site: Site | None, place: Place, path: Path) -> bool:
    """Whether the SAE reads activations less their mean over d_model, as its model's loading says.

    TransformerLens' `center_writing_weights` takes the mean out of all that is written to the residual
    stream of a model with LayerNorm, and is skipped in models with RMSNorm.
    """
    kwargs = metadata.get(KWARGS)
    if kwargs is None:
        known = any(f"hf://{name}" in place.source for name in _CENTRED_REPOSITORIES)
        kwargs = {"center_writing_weights": True} if known else {}
    if not isinstance(kwargs, Mapping):
        raise ValueError(f"`{KWARGS}` of {path} must be an object, got {kwargs!r}; mend the file")
    told = place.options.site is not None  # then it counts, and not what the files say of their own
    for name, value in kwargs.items():
        # A checkpoint's number may be 0, which is no way to say that there is none.
        is_set = value is not None and value is not False and value not in ("", [], {})
        if is_set and name != "center_writing_weights" and name not in _NO_EFFECT:
            _check_argument(name, value, None if told else site, path)
    if not kwargs.get("center_writing_weights") or (site and site.stream in _AFTER_NORM):
        return False
    if site is None:
        raise ValueError(
            f"{path} says center_writing_weights, whose effect depends on the site, and no site that is"
            " known; give it as `site`"
        )
    return _has_layer_norm(str(metadata.get("model_name") or ""), path)


def _check_argument(name: str, value: Any, site: Site | None, path: Path) -> None:
    if name in _OTHER_WEIGHTS:
        if value != "main":
            logging.warning(
                "the SAE of %s was trained on a model loaded with %s=%r; activations of other weights"
                " mean something else to it: load the same model",
                *(path, name, value),
            )
        return
    if name not in _REFUSED:
        raise ValueError(
            f"`{KWARGS}` of {path} holds {name!r}, whose effect on activations is not known; take it out"
            " of the file if it has none"
        )
    stream, reason = _REFUSED[name]
    if not value or site is None or site.stream != stream:
        return
    way_out = (
        f"give the site blocks.{site.block}.mlp_in_unscaled"
        if name == "fold_ln"
        else "take the key out of the file if the model has none to fold"
    )
    raise ValueError(f"`{name}` of {path} changes what the SAE read at {site}: {reason}; {way_out}")


def _has_layer_norm(model_name: str, path: Path) -> bool:
    if re.search(_RMS_NORM, model_name, re.IGNORECASE):
        return False
    if not re.search(_LAYER_NORM, model_name, re.IGNORECASE):
        logging.warning(
            "%s says center_writing_weights, and its model's name %r does not tell whether that model has"
            " LayerNorm: its activations are centred, as is right for LayerNorm only",
            *(path, model_name),
        )
    return True


def _of_uncentred(core, skip_DE, shifts: bool, normalisation: str, path: Path):
    """An autoencoder (and skip connection) of centred activations as one of the model's own.

    With C = 1 - (ones / D): the encoder's `x C W` is `x (C W)`. What it decodes stays centred, as
    SAELens' does; LayerNorm does not see the difference. Centring twice changes nothing, so activations
    that are centred already may be given too.

    Raises:
        ValueError: Under a normalisation that the mean changes.
    """
    if normalisation == "layer_norm":
        return core, skip_DE  # it removes the mean itself
    if normalisation != "none":
        raise ValueError(
            f"{path} says center_writing_weights and normalize_activations {normalisation}, which are not"
            " supported together; load an SAE with one of them"
        )
    mean_1S = core.W_enc_DS.mean(axis=0, keepdims=True)
    changed: dict[str, Any] = {"W_enc_DS": core.W_enc_DS - mean_1S}
    if shifts:  # b_dec C W is subtracted from now on, b_dec W was
        lost_S = core.b_dec_D.sum() * mean_1S[0]
        if hasattr(core, "r_mag_S"):
            changed["b_gate_S"] = core.b_gate_S - lost_S
            changed["b_mag_S"] = core.b_mag_S - lost_S * jnp.exp(core.r_mag_S)
        else:
            changed["b_enc_S"] = core.b_enc_S - lost_S
    if skip_DE is not None:
        skip_DE = skip_DE - skip_DE.mean(axis=0, keepdims=True)
    return dataclasses.replace(core, **changed), skip_DE


def agreed_bos(asked: str, said: Mapping[str, str]) -> str:
    """The setting of a run whose SAEs were trained with and without BOS.

    Args:
        asked: The run's own: `auto`, `on` or `off`.
        said: Each SAE's, by its name.

    Returns:
        `asked`, or where it is `auto` what the SAEs say, if they say.

    Raises:
        ValueError: It is `auto`, and they disagree.
    """
    on, off, silent = (
        [name for name, one in said.items() if one == bos] for bos in ("on", "off", "auto")
    )
    if asked != "auto":
        for name in off if asked == "on" else on:
            logging.warning(
                "SAE %s was trained with BOS %s, and this run sets bos to %s: its latents are those of"
                " activations that it never saw",
                *(name, said[name], asked),
            )
        return asked
    if on and off:
        raise ValueError(
            f"SAE {on[0]} was trained on prompts that open with BOS and SAE {off[0]} on prompts that do"
            " not: one run reads both from the same activations; run them apart, or set bos to on or off"
        )
    agreed = "on" if on else "off" if off else "auto"
    if agreed != "auto":
        for name in silent:
            logging.warning(
                "SAE %s does not say whether it was trained with BOS; it is read with BOS %s, as %s says",
                *(name, agreed, (on or off)[0]),
            )
    return agreed
