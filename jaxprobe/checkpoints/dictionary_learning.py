"""dictionary_learning: `ae.pt` (or the same as safetensors) and a `config.json` of its trainer."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import logging

from jaxprobe import boundary
from jaxprobe.base import Site
from jaxprobe.checkpoints import arrays, training_settings
from jaxprobe.checkpoints import config as configs
from jaxprobe.checkpoints.config import Config
from jaxprobe.checkpoints.loaded import LoadedSae
from jaxprobe.checkpoints.places import Place, hook_site, site_of
from jaxprobe.saes import (
    BatchTopKSae,
    GatedSae,
    JumpReluSae,
    MatryoshkaSae,
    ReluSae,
    TopKSae,
    check_sae,
    frame,
    matryoshka,
)

NAME = "dictionary_learning (ae.pt, config.json)"
FILE_NAME = "ae.pt"
FILE_NAMES = (FILE_NAME, "ae.safetensors")
CONFIG_NAME = "config.json"
_LINEAR = {"encoder.weight": "W_enc_DS", "decoder.weight": "W_dec_SD"}
_PLAIN = {"W_enc": "W_enc_DS", "W_dec": "W_dec_SD", "b_enc": "b_enc_S", "b_dec": "b_dec_D"}
_BIASED = {**_LINEAR, "encoder.bias": "b_enc_S"}
_TOPK = {**_BIASED, "b_dec": "b_dec_D"}
KEYS: dict[str, dict[str, str]] = {
    "AutoEncoder": {**_BIASED, "bias": "b_dec_D"},
    "AutoEncoderNew": {**_BIASED, "decoder.bias": "b_dec_D"},
    "GatedAutoEncoder": {
        **_LINEAR,
        **{"decoder_bias": "b_dec_D", "r_mag": "r_mag_S"},
        **{"gate_bias": "b_gate_S", "mag_bias": "b_mag_S"},
    },
    "JumpReluAutoEncoder": {**_PLAIN, "threshold": "threshold_S"},
    "AutoEncoderTopK": _TOPK,
    "BatchTopKSAE": {**_TOPK, "threshold": "threshold"},
    "MatryoshkaBatchTopKSAE": {**_PLAIN, "threshold": "threshold", "group_sizes": "group_sizes"},
}
SUBTRACTS_BIAS = {
    *("AutoEncoder", "GatedAutoEncoder", "AutoEncoderTopK"),
    *("BatchTopKSAE", "MatryoshkaBatchTopKSAE"),
}


def matches(place: Place) -> bool:
    """Whether the files there have this layout."""
    return any(place.has(name) for name in FILE_NAMES)


def load(place: Place) -> LoadedSae:
    """Reads one dictionary.

    Raises:
        ValueError: A class that is not known, a threshold that was never set, a pickle of more than
            tensors, or arrays that do not fit together.
    """
    name = next(name for name in FILE_NAMES if place.has(name))
    path, config_path = place.folder / name, place.folder / CONFIG_NAME
    config = configs.read(config_path)
    trainer = config.section("trainer")
    kind = _class(trainer.text("dict_class"), config_path)
    found = arrays.read_arrays(path)
    arrays.check_keys(found, KEYS[kind], path, optional=("k", "threshold"))
    core = _core(kind, found, trainer, place, path)
    check_sae(core, f"{path} is not a {kind} of dictionary_learning")
    trainer.check_same("activation_dim", core.d_model, "are they of one SAE?")
    trainer.check_same("dict_size", core.d_sae, "are they of one SAE?")
    return LoadedSae(
        sae=frame(core, shift_D=core.b_dec_D if kind in SUBTRACTS_BIAS else None),
        id=place.id(),
        site=site_of(place, None if place.options.site else _site(config, trainer, config_path)),
        expected_l0=_expected_l0(kind, core, trainer),
        source=place.source,
        metadata={"format": "dictionary_learning", "config": config.content},
        bos=bos(place),
    )


def bos(place: Place) -> str:
    """Whether a dictionary was trained with BOS, from its config alone; see `LoadedSae.bos`."""
    path = place.folder / CONFIG_NAME
    return training_settings.of_buffer(configs.read(path))


def _class(text: Any, path) -> str:
    """The dictionary's class; the config may hold its name, a path to it, or Python's words for it."""
    last = str(text).strip("<>'\" ").split(".")[-1].strip("'>\" ")
    if last in KEYS:
        return last
    raise ValueError(f"{path} must have a dict_class of {', '.join(KEYS)}, got {text!r}")


def _core(
    kind: str, found: Mapping[str, np.ndarray], trainer: Config, place: Place, path: Path
) -> Any:
    """The autoencoder without its frame."""
    transposed = ("encoder.weight", "decoder.weight")
    keys = {key: field for key, field in KEYS[kind].items() if key != "group_sizes"}
    values: dict[str, Any] = arrays.fields(found, keys, path, transposed)
    if kind == "AutoEncoder":
        return _unit_decoder(ReluSae(**values))
    if kind == "AutoEncoderNew":
        return ReluSae(**values)
    if kind == "GatedAutoEncoder":
        return GatedSae(**values)
    if kind == "JumpReluAutoEncoder":
        return JumpReluSae(**values)
    if kind == "AutoEncoderTopK":
        return TopKSae(**values, k=_k(found, trainer, path))
    if values["threshold"].size == 1:
        values["threshold"] = values["threshold"].reshape(())
    if not (values["threshold"] >= 0).all():
        raise ValueError(
            f"{place.source} must have a threshold of at least 0, got"
            f" {float(np.min(values['threshold']))}: it was never set in training, so a row's"
            " latents would depend on its batch; take a checkpoint of a longer run"
        )
    if kind == "BatchTopKSAE":
        return BatchTopKSae(**values)
    sizes = arrays.whole_numbers(found["group_sizes"], "group_sizes", path)
    if sum(sizes) != values["b_enc_S"].size:
        raise boundary.FileError(
            f"{path} must hold group_sizes that add up to its {values['b_enc_S'].size} latents, got"
            f" {sum(sizes)}"
        )
    active = place.options.active_groups
    threshold = values.pop("threshold")
    return MatryoshkaSae(
        **values,
        threshold_S=jnp.broadcast_to(threshold, values["b_enc_S"].shape),
        group_S=matryoshka.groups(sizes),
        active_groups=len(sizes) if active is None else active,
    )


def _k(found: Mapping[str, np.ndarray], trainer: Config, path: Path) -> int:
    """How many latents are kept: what the weights say, as in the library, else the config."""
    said = trainer.count("k", None)
    if "k" not in found:
        return trainer.count("k")
    (k, *others) = arrays.whole_numbers(found["k"], "k", path)
    if others or said not in (None, k):
        raise boundary.FileError(
            f"{path} must hold the k of its {CONFIG_NAME}, {said}, got {[k, *others]}; are they of one"
            " SAE?"
        )
    return k


def _unit_decoder(sae: ReluSae) -> ReluSae:
    """Decoder rows of norm 1, the rest rescaled, as the library does when it loads."""
    norm_S = jnp.maximum(jnp.linalg.norm(sae.W_dec_SD, axis=1), 1e-8)
    return dataclasses.replace(
        sae,
        W_enc_DS=sae.W_enc_DS * norm_S[None, :],
        b_enc_S=sae.b_enc_S * norm_S,
        W_dec_SD=sae.W_dec_SD / norm_S[:, None],
    )


def _site(config: Config, trainer: Config, path: Path) -> Site | None:
    """The submodule's input or output, by its name and layer; without a name the layer's."""
    name, layer = str(trainer.get("submodule_name") or ""), _layer(trainer)
    buffer = config.get("buffer")
    side = (buffer.get("io") if isinstance(buffer, Mapping) else None) or "out"
    if side not in ("in", "out"):
        logging.warning(
            "%s reads both sides of a module (io = %r); its site is left open", path, side
        )
        return None
    if layer is not None and re.fullmatch(r"[a-z_]*", name):
        name = f"{name or 'resid'}_layer_{layer}"
    site = hook_site(name, "dictionary_learning", f"{side}put")
    if site and layer is not None and str(layer) != str(max(site.block, 0)):
        logging.warning(
            "%s says layer = %r and submodule_name = %r, two layers; its site is left open: name the"
            " one wanted as `site`",
            *(path, layer, name),
        )
        return None
    return site


def _layer(trainer: Config) -> int | None:
    """The block's number, also as text, as a float or alone in a list; None where it is none of these."""
    said = trainer.get("layer")
    if isinstance(said, list) and len(said) == 1:
        (said,) = said
    if isinstance(said, str) and re.fullmatch("[0-9]{1,4}", said):
        said = int(said)
    if isinstance(said, float) and said in range(10_000):
        said = int(said)
    return configs.told(Config({"layer": said}, trainer.path).layer, "layer", None)


def _expected_l0(kind: str, core, trainer: Config) -> float | None:
    if isinstance(core, TopKSae):
        return float(core.k)
    return configs.told(trainer.positive, "k" if "BatchTopK" in kind else "target_l0", None)
