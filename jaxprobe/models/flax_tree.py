"""Gemma's published Flax parameters: the tree's names, and the numbers that its shapes tell.

The tree says nothing about windows, soft caps and rotary bases; those follow from the generation and the size
that the shapes show, or from a Hugging Face `config.json` beside the tree.

References:
    https://github.com/google-deepmind/gemma
"""

import dataclasses
import math
from pathlib import Path

from jaxprobe import boundary, tokens
from jaxprobe.models import hf_directory
from jaxprobe.models.checkpoint import Checkpoint, folder_name, short_name
from jaxprobe.models.config import TransformerConfig
from jaxprobe.models.parameters import Source, labels
from jaxprobe.models.rotary import Rotary
from jaxprobe.models.rotary_scaling import linear_divisors
from jaxprobe.orbax_tree import OrbaxTree, find_tree, open_tree

# Leaves behind the last block, or about images.
_UNREAD = ("final_norm/", "vision_encoder/", "embedder/mm_")
_NORMS = {
    "pre_attention_norm": "pre_attention_norm/scale",
    "post_attention_norm": "post_attention_norm/scale",
    "pre_mlp_norm": "pre_ffw_norm/scale",
    "post_mlp_norm": "post_ffw_norm/scale",
    "query_norm": "attn/_query_norm/scale",
    "key_norm": "attn/_key_norm/scale",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Size:
    """What a published size adds to its shapes.

    Attributes:
        window: Keys that a query of a windowed block sees.
        scaled_by_width: Whether queries are scaled by d_model / num_heads instead of the head's width.
        far_factor: What the positions of blocks without a window are divided by.
    """

    window: int = 4096
    scaled_by_width: bool = False
    far_factor: float = 1.0


# (generation, blocks) of the published sizes.
_SIZES = {
    (2, 26): _Size(),
    (2, 42): _Size(),
    (2, 46): _Size(scaled_by_width=True),
    (3, 18): _Size(window=512),
    (3, 26): _Size(window=512),
    (3, 34): _Size(window=1024, far_factor=8.0),
    (3, 48): _Size(window=1024, far_factor=8.0),
    (3, 62): _Size(window=1024, far_factor=8.0, scaled_by_width=True),
}


def find(folder: Path) -> Path | None:
    """The Orbax directory at or below `folder`, if there is one."""
    return find_tree(folder) if folder.is_dir() else None


def open_directory(folder: Path) -> Checkpoint:
    """Opens a directory with Gemma's Flax parameters.

    Raises:
        ValueError: Another tree, a size that is not a published one without a config.json, or a leaf that
            is missing or not understood.
    """
    where = find(folder)
    if where is None:
        raise ValueError(f"{folder} must hold one Orbax directory, got none or several")
    tree = _renamed(open_tree(where))
    beside = next((f for f in (folder, where, where.parent) if (f / "config.json").is_file()), None)
    if beside is None:
        with boundary.reader(where, "a Gemma's Flax parameters", "fetch them again"):
            config = _config(tree)
    else:
        _, config, _ = hf_directory.read_config(beside / "config.json")
        if config.embedding_scale == 1.0:
            raise boundary.FileError(
                f"{beside / 'config.json'} must be a Gemma's beside a Flax tree"
            )
    with boundary.reader(where, "a Gemma's Flax parameters", "fetch them again"):
        sources = _sources(config, tree)
    for_tokens = next(
        (f for f in (folder, where, where.parent) if tokens.directory_files(f)), folder
    )
    name = folder_name(folder)
    weights = tuple(sorted(path for path in where.rglob("*") if path.is_file()))
    settings = () if beside is None else (beside / "config.json",)
    return Checkpoint(
        name=name if where == folder or name.startswith("gemma") else short_name(where.name),
        config=config,
        files=tree,
        sources=sources,
        tokenizer=lambda: tokens.from_directory(for_tokens),
        contents=(*weights, *settings, *tokens.directory_files(for_tokens)),
    )


def _renamed(tree: OrbaxTree) -> OrbaxTree:
    """The same tree without the roots and endings that differ between publications."""
    short = {}
    for name, array in tree.arrays.items():
        inner = name.removeprefix("params/").removeprefix("transformer/").removesuffix("/w")
        if inner in short:
            raise boundary.FileError(
                f"{tree.folder} holds `{inner}` under two names; fetch it again"
            )
        short[inner] = array
    return dataclasses.replace(tree, arrays=short)


def _config(tree: OrbaxTree) -> TransformerConfig:
    shapes = tree.shapes
    try:
        num_heads, d_head, d_model = shapes["layer_0/attn/attn_vec_einsum"]
        vocab_size, _ = shapes["embedder/input_embedding"]
        d_mlp, _ = shapes["layer_0/mlp/linear"]
        fused = "layer_0/attn/qkv_einsum" in shapes
        num_kv_heads = num_heads if fused else shapes["layer_0/attn/kv_einsum"][1]
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{tree.folder} must hold a Gemma's Flax parameters; {error} is missing or of another shape"
        ) from error
    num_blocks = len({name.split("/")[0] for name in shapes if name.startswith("layer_")})
    generation = 1
    if "layer_0/post_attention_norm/scale" in shapes:
        generation = 3 if "layer_0/attn/_query_norm/scale" in shapes else 2
    size = _SIZES.get((generation, num_blocks), _Size() if generation == 1 else None)
    if size is None:
        raise ValueError(
            f"{tree.folder} looks like a Gemma {generation} of {num_blocks} blocks, which is no published"
            " size; put its Hugging Face config.json beside it to say what the shapes cannot"
        )
    period = {1: 1, 2: 2, 3: 6}[generation]
    windows = tuple(None if (b + 1) % period == 0 else size.window for b in range(num_blocks))
    far = Rotary(
        base=1_000_000.0 if generation == 3 else 10_000.0,
        width=d_head,
        divisors=linear_divisors(d_head, size.far_factor),
    )
    near = Rotary(base=10_000.0, width=d_head)
    return TransformerConfig(
        d_model=d_model,
        num_blocks=num_blocks,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        d_head=d_head,
        d_mlp=d_mlp,
        vocab_size=vocab_size,
        norm_epsilon=1e-6,
        embedding_scale=math.sqrt(d_model),
        query_scale=(d_model / num_heads if size.scaled_by_width else d_head) ** -0.5,
        windows=windows,
        rotary=tuple(far if window is None else near for window in windows),
        post_norms=generation > 1,
        query_key_norm=generation == 3,
        attention_soft_cap=50.0 if generation == 2 else None,
    )


def _sources(config: TransformerConfig, tree: OrbaxTree) -> dict[str, Source]:
    shapes = tree.shapes
    blocks = {name.split("/")[0] for name in shapes if name.startswith("layer_")}
    if len(blocks) != config.num_blocks:
        raise ValueError(
            f"{tree.folder} must hold {config.num_blocks} blocks as its config.json tells, got {len(blocks)}"
        )
    found = {label: _source(config, shapes, label) for label in labels(config)}
    wanted = {source.name for source in found.values()}
    missing = sorted(wanted - set(shapes))
    unknown = sorted(name for name in set(shapes) - wanted if not name.startswith(_UNREAD))
    if missing or unknown:
        raise ValueError(
            f"{tree.folder} must hold a Gemma's Flax parameters: missing {missing[:4]}, not understood"
            f" {unknown[:4]}"
        )
    return found


def _source(config: TransformerConfig, shapes, label: str) -> Source:
    if label == "embedding":
        return Source(name="embedder/input_embedding")
    _, block, part = label.split(".")
    root = f"layer_{block}"
    if part in _NORMS:
        return Source(name=f"{root}/{_NORMS[part]}", plus=1.0)
    groups, d_head, d_model = config.num_kv_heads, config.d_head, config.d_model
    heads = (groups, config.queries_per_kv)
    if part == "attention_output":  # [heads, d_head, d_model]
        split = (*heads, d_head, d_model)
        return Source(name=f"{root}/attn/attn_vec_einsum", split=split, order=(3, 0, 1, 2))
    if part == "mlp_down":  # [d_mlp, d_model]
        return Source(name=f"{root}/mlp/linear", order=(1, 0))
    if part in ("mlp_gate", "mlp_up"):  # [2, d_model, d_mlp], or the last two the other way round
        name = f"{root}/mlp/gating_einsum"
        turned = shapes.get(name, ())[1:] == (config.d_mlp, d_model)
        pick = {0: int(part == "mlp_up")}
        return Source(name=name, pick=pick, order=(0, 1) if turned else (1, 0))
    fused = f"{root}/attn/qkv_einsum"
    query = part == "query"
    own = heads if query else (groups,)
    order = (0, 1, 3, 2) if query else (0, 2, 1)
    if fused in shapes:  # [3, heads, d_model, d_head], one query head to a group
        pick = {0: ("query", "key", "value").index(part)}
        return Source(name=fused, split=(3, *own, d_model, d_head), pick=pick, order=order)
    if query:  # [heads, d_model, d_head]
        return Source(name=f"{root}/attn/q_einsum", split=(*own, d_model, d_head), order=order)
    pick = {0: int(part == "value")}  # [2, groups, d_model, d_head]
    return Source(name=f"{root}/attn/kv_einsum", pick=pick, order=order)
