"""sparsify: a folder per hookpoint (`layers.10`, `layers.3.mlp`) with `cfg.json` and `sae.safetensors`."""

import re
from typing import Any

import jax.numpy as jnp
import safetensors

from jaxprobe.base import Site
from jaxprobe.checkpoints import arrays
from jaxprobe.checkpoints.loaded import LoadedSae
from jaxprobe.checkpoints.places import Place, hook_site, site_of
from jaxprobe.saes import GroupMaxSae, TopKSae, check_sae, frame

NAME = "sparsify (cfg.json, sae.safetensors)"
CONFIG_NAME = "cfg.json"
FILE_NAME = "sae.safetensors"
KEYS = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")


def matches(place: Place) -> bool:
    """Whether this is the layout of what lies there."""
    if not place.has(CONFIG_NAME, FILE_NAME):
        return False
    try:
        with safetensors.safe_open(place.folder / FILE_NAME, framework="numpy") as file:
            return "encoder.weight" in file.keys() or "jaxprobe" not in (file.metadata() or {})
    except safetensors.SafetensorError:
        return True  # its loader says what is wrong


def load(place: Place) -> LoadedSae:
    """Reads one SAE or transcoder.

    Raises:
        ValueError: An activation that is not known, a damaged file, or arrays that do not fit
            together.
    """
    config_path, path = place.folder / CONFIG_NAME, place.folder / FILE_NAME
    config = arrays.read_json(config_path)
    found = arrays.read_safetensors(path)
    has_skip = bool(config.get("skip_connection"))
    wanted = (*KEYS, "W_skip") if has_skip else KEYS
    arrays.check_keys(found, wanted, path)
    weights = {
        "W_enc_DS": arrays.float32(found["encoder.weight"], transpose=True),
        "b_enc_S": arrays.float32(found["encoder.bias"]),
        "W_dec_SD": arrays.float32(found["W_dec"]),
        "b_dec_D": arrays.float32(found["b_dec"]),
    }
    k = int(arrays.need(config, "k", config_path))
    activation = config.get("activation", "topk")
    if activation == "topk":
        core = TopKSae(**weights, k=k, signed=bool(config.get("signed", False)))
    elif activation == "groupmax":
        core = GroupMaxSae(**weights, k=k)
    else:
        raise ValueError(
            f"{config_path} must have an activation topk or groupmax, got {activation!r}"
        )
    is_transcoder = bool(config.get("transcode"))
    check_sae(core, f"{path} is not a sparsify SAE")
    d_in = int(config.get("d_in", core.d_model))
    count = config.get("num_latents") or d_in * int(config.get("expansion_factor", 32))
    if (d_in, count) != (core.d_model, core.d_sae):
        raise ValueError(
            f"{config_path} says d_in = {d_in} and {count} latents, but the weights have"
            f" {core.d_model} and {core.d_sae}"
        )
    site, output = _sites(place, is_transcoder)
    metadata: dict[str, Any] = {"format": "sparsify", "config": config}
    if is_transcoder:
        metadata["output_site"] = str(output) if output else None
    return LoadedSae(
        sae=frame(
            core,
            # A bias of zeros need not be subtracted, but the frame costs nothing and says so.
            shift_D=None if is_transcoder else jnp.asarray(core.b_dec_D),
            W_skip_DE=arrays.float32(found["W_skip"], transpose=True) if has_skip else None,
        ),
        id=place.id(),
        site=site_of(place, site),
        expected_l0=float(k),
        source=place.source,
        metadata=metadata,
    )


def _sites(place: Place, is_transcoder: bool) -> tuple[Site | None, Site | None]:
    """The module whose output is read (of a transcoder: whose input), and the one whose is written.

    The folder's name tells; several SAEs of one module lie in folders `seed0`, `seed1` below it.
    """
    folder = place.folder.parent if re.fullmatch(r"seed[0-9]+", place.folder.name) else place.folder
    output = hook_site(folder.name, "sparsify")
    return (hook_site(folder.name, "sparsify", "input") if is_transcoder else output), output
