"""Gemma Scope 2's multi-layer dictionaries: one layer of a cross-layer transcoder or a crosscoder.

    clt/width_W_l0_SIZE[_affine]/params_layer_L.safetensors             blocks L.mlp_in to mlp_out
    crosscoder/layer_A_B_C_D_width_W_l0_SIZE/params_layer_I.safetensors  resid_post of the I-th of four

Every latent reads one layer, so one layer's latents can be probed at one site, as a JumpReLU SAE. It
writes to that layer and later ones: `w_dec` has an axis of layers. Decoding gives the sum of what a
transcoder's latents write (as SAELens does), of a crosscoder's what they write at the site they
read; neither is a reconstruction, which takes the other layers' latents as well.
"""

import re
from pathlib import Path

from jaxprobe import checks
from jaxprobe.base import Site
from jaxprobe.checkpoints import arrays
from jaxprobe.checkpoints import config as configs
from jaxprobe.checkpoints.config import Config
from jaxprobe.checkpoints.gemma_scope_2 import KEYS, SKIP, check_affine
from jaxprobe.checkpoints.loaded import LoadedSae
from jaxprobe.checkpoints.places import Place, hook_site, site_of
from jaxprobe.saes import JumpReluSae, frame, jump_relu

NAME = "a layer of a Gemma Scope 2 crosscoder or CLT (params_layer_L.safetensors)"
FILE_NAME = "params_layer_L.safetensors"
KINDS = ("clt", "crosscoder")
_FILE = r"params_layer_(\d+)\.safetensors"


def matches(place: Place) -> bool:
    """Whether the files there have this layout."""
    if place.file is not None:
        return bool(re.fullmatch(_FILE, place.file.name))
    return any(place.folder.glob("params_layer_*.safetensors"))


def load(place: Place) -> LoadedSae:
    """Reads one layer.

    Raises:
        ValueError: A folder of several layers, a kind that is not known, a damaged file, another
            architecture, or arrays that do not fit together.
    """
    if place.file is None:
        there = sorted(path.name for path in place.folder.glob("params_layer_*.safetensors"))
        raise ValueError(
            f"{place.source} holds one file per layer of a model whose latents read {len(there)}"
            f" layers; name one of them, for example {place.folder / there[0]}"
        )
    path = place.file
    config, kind = _config(place)
    found = arrays.read_safetensors(path)
    arrays.check_keys(found, KEYS, path, optional=(SKIP,) if kind == "clt" else ())
    if kind == "clt":
        check_affine(config, found, path)
    checks.check_shape("w_enc", found["w_enc"], (None, None), f"{path} is damaged")
    checks.check_shape("w_dec", found["w_dec"], (found["w_enc"].shape[-1], None, None))
    num_layers = found["w_dec"].shape[1]
    number = _layer(path, num_layers)
    if kind == "clt":
        site = _site(config, number, "mlp_in")
        about = {"decoder": "summed over layers", "output_site": f"blocks.{number}.mlp_out"}
        arrays.float32(found["w_dec"], "w_dec", path)  # a sum might hide what is not finite
        found["w_dec"] = found["w_dec"].sum(axis=1, dtype="float32")
    else:
        block = _blocks(place, config, num_layers)[number]
        site, about = _site(config, block, "resid_post"), {"decoder": "of the layer it reads"}
        found["w_dec"] = found["w_dec"][:, number]
    core = JumpReluSae(**arrays.fields(found, KEYS, path))
    jump_relu.check_sae(core, f"{path} is not a layer of a Gemma Scope 2 {kind} as published")
    skip = arrays.float32(found[SKIP], SKIP, path) if SKIP in found else None
    return LoadedSae(
        sae=frame(core, W_skip_DE=skip),
        id=place.id(),
        site=site_of(place, site),
        expected_l0=None,  # the config's counts the latents of all layers
        source=place.source,
        metadata={
            "format": f"gemma_scope_2_{kind}",
            "config": config.content,
            "layer": number,
            "num_layers": num_layers,
            **about,
        },
    )


def _config(place: Place) -> tuple[Config, str]:
    """The config beside the file, or what the path says in its place, and the kind of dictionary."""
    path = place.folder / "config.json"
    where = place.text(r"(?:^|/)(?:crosscoder|clt)/")
    words = re.search(r"(?:^|/)(crosscoder|clt)/", where)
    inferred = {
        "architecture": "jump_relu",
        "type": words[1] if words else None,
        "affine_connection": "_affine" in where,
        "inferred_from_path": True,
    }
    config = configs.beside(path, inferred)
    kind = config.text("type", words[1] if words else None)
    if kind not in KINDS or config.get("architecture") != "jump_relu":
        raise ValueError(
            f"{place.source} must be a layer of a jump_relu clt or crosscoder, as its config.json or its"
            f" folders say; got type {kind!r} and architecture {config.get('architecture')!r:.80}"
        )
    return config, kind


def _layer(path: Path, num_layers: int) -> int:
    """The number in the file's name."""
    found = re.fullmatch(_FILE, path.name)
    number = int(found[1]) if found else -1
    if not 0 <= number < num_layers:
        raise ValueError(
            f"{path.name} must be numbered 0 to {num_layers - 1}, by the layers of its `w_dec`"
        )
    return number


def _site(config: Config, block: int, stream: str) -> Site | None:
    """Where a block is read: as the config's hook says for all of them, else as published."""
    hook, count = re.subn(r"\{[^}]+\}", str(block), config.text("hf_hook_point_in", ""))
    return hook_site(hook, "hugging_face") if count == 1 else Site(block=block, stream=stream)


def _blocks(place: Place, config: Config, num_layers: int) -> list[int]:
    """The blocks that a crosscoder's layers read, from the config or the folder's name."""
    hook = re.search(r"\{(\d+(?:,\d+)*)\}", config.text("hf_hook_point_in", ""))
    folder = re.search(r"layer((?:_\d+)+)_width", place.text(r"layer(?:_\d+)+_width"))
    if hook:
        blocks = [int(word) for word in hook[1].split(",")]
    else:
        blocks = [int(word) for word in folder[1].split("_")[1:]] if folder else []
    if len(blocks) != num_layers:
        raise ValueError(
            f"{place.source} must name the {num_layers} blocks of its crosscoder in its config.json"
            f" (`hf_hook_point_in`) or its folder (layer_7_13_17_22_width_...), got {blocks}"
        )
    return blocks
