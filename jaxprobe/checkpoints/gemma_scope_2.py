"""Gemma Scope 2: `SITE[_all]/layer_L_width_W_l0_SIZE[_affine]/params.safetensors` and a `config.json`.

JumpReLU SAEs and transcoders, some of the latter with an affine skip connection, used as `x @ A`.
Where the config is missing, the path says the same.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxprobe import boundary
from jaxprobe.base import Site
from jaxprobe.checkpoints import arrays
from jaxprobe.checkpoints import config as configs
from jaxprobe.checkpoints.config import Config
from jaxprobe.checkpoints.loaded import LoadedSae
from jaxprobe.checkpoints.places import Place, hook_site, site_of
from jaxprobe.saes import JumpReluSae, frame, jump_relu

NAME = "Gemma Scope 2 (params.safetensors)"
FILE_NAME = "params.safetensors"
KEYS = {
    "w_enc": "W_enc_DS",
    "b_enc": "b_enc_S",
    "w_dec": "W_dec_SD",
    "b_dec": "b_dec_D",
    "threshold": "threshold_S",
}
SKIP = "affine_skip_connection"
STREAMS = {"resid_post": "resid_post", "mlp_out": "mlp_out", "attn_out": "attn_z"}
_FOLDERS = r"(?:^|/)(resid_post|mlp_out|attn_out|transcoder)(?:_all)?/layer_([0-9]+)_width"


def matches(place: Place) -> bool:
    """Whether the files there have this layout."""
    return place.has(FILE_NAME)


def load(place: Place) -> LoadedSae:
    """Reads one SAE or transcoder.

    Raises:
        ValueError: A crosscoder or cross-layer transcoder, a damaged file, another architecture,
            or arrays that do not fit together.
    """
    where = place.text(r"layer_\d+_width")
    path = place.file or place.folder / FILE_NAME
    config_path = place.folder / "config.json"
    config = configs.beside(config_path, _infer(where))
    kind = config.text("type", "transcoder" if "transcoder" in where else "sae")
    if kind in ("crosscoder", "clt"):
        raise ValueError(
            f"{config_path} describes a {kind}, which has a file per layer; got {path.name} instead of"
            " params_layer_L.safetensors"
        )
    if kind not in ("sae", "transcoder") or config.get("architecture") != "jump_relu":
        raise ValueError(
            f"{config_path} must describe a jump_relu sae or transcoder, got type {kind!r} and"
            f" architecture {config.get('architecture')!r}"
        )
    found = arrays.read_safetensors(path)
    arrays.check_keys(found, KEYS, path, optional=(SKIP,))
    check_affine(config, found, path)
    core = JumpReluSae(**arrays.fields(found, KEYS, path))
    hint = f"{path} is not a Gemma Scope 2 SAE as published"
    jump_relu.check_sae(core, hint, core.b_dec_D.size if kind == "transcoder" else None)
    # Names, both of them: folders say `16k` of 16,384 latents and `small` of their number.
    configs.told(config.check_same, "width", core.d_sae, "are they of one SAE?")
    skip = arrays.float32(found[SKIP], SKIP, path) if SKIP in found else None
    site, output = _sites(config, where)
    metadata: dict[str, Any] = {"format": "gemma_scope_2", "config": config.content}
    if kind == "transcoder":
        metadata["output_site"] = str(output) if output else None
    return LoadedSae(
        sae=frame(core, W_skip_DE=skip),
        id=place.id(),
        site=site_of(place, site),
        expected_l0=configs.told(config.positive, "l0", None),
        source=place.source,
        metadata=metadata,
    )


def check_affine(config: Config, found: Mapping[str, Any], path: Path) -> None:
    """Raises FileError where config and arrays disagree about a skip connection."""
    said = config.flag("affine_connection", None)
    if said is not None and said != (SKIP in found):
        raise boundary.FileError(
            f"{path} must hold {SKIP}, as its config says; got {', '.join(found)}"
            if said
            else f"{path} holds {SKIP}, and its config says that there is no affine connection"
        )


def _infer(where: str) -> dict[str, Any]:
    """What a config would say, from the path."""
    kind = "transcoder" if "transcoder" in where else "sae"
    return {
        "architecture": "jump_relu",
        "type": kind,
        "affine_connection": "_affine" in where,
        "inferred_from_path": True,
    }


def _sites(config, where: str) -> tuple[Site | None, Site | None]:
    """Where it reads, and where it writes; the folders' words for layer and stream count first."""
    found = re.findall(_FOLDERS, where)
    if not found:
        hooks = (config.text(key, None) for key in ("hf_hook_point_in", "hf_hook_point_out"))
        read, written = (hook_site(hook, "hugging_face") for hook in hooks)
        return read, written
    word, block = found[-1][0], int(found[-1][1])
    if word in STREAMS:
        site = Site(block=block, stream=STREAMS[word])
        return site, site
    return Site(block=block, stream="mlp_in"), Site(block=block, stream="mlp_out")
