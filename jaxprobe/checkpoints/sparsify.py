"""sparsify: a folder per hookpoint (`layers.10`, `layers.3.mlp`) with `cfg.json` and `sae.safetensors`."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from absl import logging

from jaxprobe import assets, boundary
from jaxprobe.base import Site
from jaxprobe.checkpoints import arrays
from jaxprobe.checkpoints import config as configs
from jaxprobe.checkpoints.loaded import LoadedSae
from jaxprobe.checkpoints.places import Place, hook_site, site_of
from jaxprobe.saes import GroupMaxSae, TopKSae, check_sae, frame

NAME = "sparsify (cfg.json, sae.safetensors)"
CONFIG_NAME = "cfg.json"
FILE_NAME = "sae.safetensors"
RUN_CONFIG_NAME = "config.json"  # of a whole run, in the folder above its hookpoints
KEYS = {
    "encoder.weight": "W_enc_DS",
    "encoder.bias": "b_enc_S",
    "W_dec": "W_dec_SD",
    "b_dec": "b_dec_D",
}


def matches(place: Place) -> bool:
    """Whether the files there have this layout."""
    if not place.has(CONFIG_NAME, FILE_NAME):
        return False
    try:
        with arrays.open_safetensors(place.folder / FILE_NAME) as file:
            return "encoder.weight" in file.keys() or "jaxprobe" not in (file.metadata() or {})
    except boundary.FileError:
        return True  # its loader says what is wrong


def load(place: Place) -> LoadedSae:
    """Reads one SAE or transcoder.

    Raises:
        ValueError: An activation that is not known, a damaged file, or arrays that do not fit
            together.
    """
    config_path, path = place.folder / CONFIG_NAME, place.folder / FILE_NAME
    config = configs.read(config_path)
    found = arrays.read_safetensors(path)
    has_skip = config.flag("skip_connection", False)
    wanted = (*KEYS, "W_skip") if has_skip else tuple(KEYS)
    arrays.check_keys(found, wanted, path)
    weights = arrays.fields(found, KEYS, path, transposed=("encoder.weight",))
    k, signed = config.count("k"), config.flag("signed", False)
    if config.choice("activation", ("topk", "groupmax"), "topk") == "topk":
        core = TopKSae(**weights, k=k, signed=signed)
    else:
        config.choice("signed", (False,), False)
        core = GroupMaxSae(**weights, k=k)
    # The library's encoder asks this word alone whether the decoder's bias is subtracted.
    keeps_bias = config.flag("transcode", False)
    check_sae(core, f"{path} is not a sparsify SAE; its cfg.json says k = {k}")
    d_in = config.count("d_in", core.d_model)
    count = config.layer("num_latents", 0) or d_in * config.count("expansion_factor", 32)
    if (d_in, count) != (core.d_model, core.d_sae):
        raise boundary.FileError(
            f"{config_path} says d_in = {d_in} and {count} latents, but the weights have"
            f" {core.d_model} and {core.d_sae}"
        )
    is_transcoder = _transcodes(config, place)
    site, output = _sites(place, is_transcoder)
    metadata: dict[str, Any] = {"format": "sparsify", "config": config.content}
    if is_transcoder:
        metadata["output_site"] = str(output) if output else None
    return LoadedSae(
        sae=frame(
            core,
            # A bias of zeros need not be subtracted, but the frame costs nothing and says so.
            shift_D=None if keeps_bias else jnp.asarray(core.b_dec_D),
            W_skip_DE=_skip(found, path) if has_skip else None,
        ),
        id=place.id(),
        site=site_of(place, site),
        expected_l0=float(k),
        source=place.source,
        metadata=metadata,
    )


def _skip(found: Mapping[str, Any], path: Path):
    return arrays.float32(found["W_skip"], "W_skip", path, transpose=True)


def _transcodes(config: configs.Config, place: Place) -> bool:
    """Whether it reads a module's input and writes its output.

    Until February 2025 the SAE's own config did not say, the run's did; skip connections were
    introduced for transcoders.
    """
    said = config.flag("transcode", None)
    if said is not None:
        return said
    if config.flag("skip_connection", False):
        return True
    run = _run_config(place)
    if run is not None and type(run.get("transcode")) is bool:
        return run["transcode"]
    site = hook_site(_hookpoint(place).name, "sparsify")
    if site and site.stream not in ("embed", "resid_post"):
        logging.warning(
            "%s does not say whether it is a transcoder (no `transcode` in %s nor in its run's %s); it is"
            " taken for an SAE of the module's output, %s: if it is a transcoder, name its input as `site`",
            *(place.source, CONFIG_NAME, RUN_CONFIG_NAME, site),
        )
    return False


def _run_config(place: Place) -> configs.Config | None:
    """The config of the run that trained it, None where there is none that can be read."""
    folder = _hookpoint(place)
    path = folder.parent / RUN_CONFIG_NAME
    try:
        if not path.is_file():  # of a Hub's repository only the folder was fetched
            found = re.match(
                rf"(hf://[^@]*)/{re.escape(folder.name)}(?:/[^@]*)?(@.+)?$", place.source
            )
            if not found:
                return None
            path = assets.fetch(f"{found[1]}/{RUN_CONFIG_NAME}{found[2] or ''}")
        return configs.read(path)
    except (ValueError, OSError, assets.AssetError) as error:
        logging.info("no run's config beside %s: %s", place.source, error)
        return None


def _hookpoint(place: Place) -> Path:
    """The folder named for the module; several SAEs of it lie in folders `seed0`, `seed1` below."""
    return place.folder.parent if re.fullmatch(r"seed[0-9]+", place.folder.name) else place.folder


def _sites(place: Place, is_transcoder: bool) -> tuple[Site | None, Site | None]:
    """The module whose output is read (of a transcoder: whose input), and the one whose is written."""
    name = _hookpoint(place).name
    output = hook_site(name, "sparsify")
    return (hook_site(name, "sparsify", "input") if is_transcoder else output), output
