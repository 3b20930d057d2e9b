"""Names of tensors in Hugging Face directories: one table per layout."""

import dataclasses
from collections.abc import Iterable

from jaxprobe.models.config import TransformerConfig
from jaxprobe.models.hf_families import MULTIMODAL
from jaxprobe.models.parameters import Source, labels

_ATTENTION = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "query_norm": "self_attn.q_norm",
    "key_norm": "self_attn.k_norm",
    "attention_output": "self_attn.o_proj",
    "mlp_gate": "mlp.gate_proj",
    "mlp_up": "mlp.up_proj",
    "mlp_down": "mlp.down_proj",
    "pre_attention_norm": "input_layernorm",
}
_BLOCK_NAMES = {
    "llama": {**_ATTENTION, "pre_mlp_norm": "post_attention_layernorm"},
    "gemma2": {
        **_ATTENTION,
        "post_attention_norm": "post_attention_layernorm",
        "pre_mlp_norm": "pre_feedforward_layernorm",
        "post_mlp_norm": "post_feedforward_layernorm",
    },
    "gpt_neox": {
        "query": "attention.query_key_value",
        "key": "attention.query_key_value",
        "value": "attention.query_key_value",
        "attention_output": "attention.dense",
        "mlp_up": "mlp.dense_h_to_4h",
        "mlp_down": "mlp.dense_4h_to_h",
        "pre_attention_norm": "input_layernorm",
        "pre_mlp_norm": "post_attention_layernorm",
    },
}
_EMBEDDING = {"llama": "embed_tokens", "gemma2": "embed_tokens", "gpt_neox": "embed_in"}
# What may stand before a model's own names: transformers finds them under these, and under any other it
# starts from random numbers.
_ROOTS = {"llama": ("model.", ""), "gemma2": ("model.", ""), "gpt_neox": ("gpt_neox.", "")}
_MULTIMODAL_ROOTS = ("model.language_model.", "language_model.model.", "language_model.")
_FUSED = {"query": 0, "key": 1, "value": 2}  # places in GPT-NeoX's [heads, 3, d_head, ...]
# Behind the last block, buffers that are computed anew, and what is about images.
_UNREAD_ENDINGS = ("rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias")
_UNREAD_OUTSIDE = (
    *("lm_head.", "embed_out.", "vision_tower.", "multi_modal_projector."),
    *("score.", "v_head."),  # heads of classifiers and reward models
)
_FINAL_NORMS = ("norm.weight", "final_layer_norm.weight", "final_layer_norm.bias")


def sources(
    config: TransformerConfig, layout: str, model_type: str, stored: Iterable[str], where: str
) -> dict[str, Source]:
    """The tensor of each parameter of `transformer.build`.

    Args:
        config: The model's numbers.
        layout: A key of the tables above.
        model_type: The file's; Gemma's norms are stored less one, multimodal models have other roots.
        stored: All tensors of the files.
        where: The files' name, for messages.

    Raises:
        ValueError: A tensor is missing, or one in the blocks is not understood.
    """
    stored = set(stored)
    roots = _MULTIMODAL_ROOTS if model_type in MULTIMODAL else _ROOTS[layout]
    root = _root(stored, _EMBEDDING[layout], roots, where)
    _check_blocks(config, root, stored, where)
    found = names(config, layout, root)
    if model_type.startswith("gemma"):
        norms = [label for label in found if label.endswith("_norm")]
        found |= {label: dataclasses.replace(found[label], plus=1.0) for label in norms}
    wanted = {source.name for source in found.values()}
    missing = sorted(wanted - stored)
    unknown = sorted(name for name in stored - wanted if not _is_unread(name, root))
    if missing or unknown:
        raise ValueError(
            f"{where} must hold the tensors that its config.json tells: missing {missing[:4]}, not"
            f" understood {unknown[:4]}"
        )
    return found


def names(config: TransformerConfig, layout: str, root: str) -> dict[str, Source]:
    """The table of names with every label filled in; `root` stands before each."""
    return {label: _source(config, layout, root, label) for label in labels(config)}


def _source(config: TransformerConfig, layout: str, root: str, label: str) -> Source:
    if label == "embedding":
        return Source(name=f"{root}{_EMBEDDING[layout]}.weight")
    _, block, part = label.split(".")
    ending = "bias" if part.endswith("_bias") else "weight"
    part = part.removesuffix("_bias")
    name = f"{root}layers.{block}.{_BLOCK_NAMES[layout][part]}.{ending}"
    if layout != "gpt_neox" or part not in _FUSED:
        return Source(name=name)
    # Heads of GPT-NeoX stand in groups of one: a query's axes are [heads, 1, d_head, ...].
    ones = (1,) if part == "query" else ()
    split = (config.num_heads, 3, *ones, config.d_head)
    stream = (config.d_model,) if ending == "weight" else ()
    return Source(name=name, split=(*split, *stream), pick={1: _FUSED[part]})


def _root(names: set[str], embedding: str, roots: tuple[str, ...], where: str) -> str:
    """What stands before `embed_tokens`, one of `roots`."""
    ending = f"{embedding}.weight"
    found = sorted(name for name in names if f".{name}".endswith(f".{ending}"))
    if len(found) != 1:
        raise ValueError(
            f"{where} must hold one tensor `...{ending}`, got {', '.join(found[:4]) or 'none'}"
        )
    root = found[0].removesuffix(ending)
    if root not in roots:
        raise ValueError(
            f"{where} must name its tensors {' or '.join(f'`{r}{ending}`' for r in roots)} and so on,"
            f" got `{found[0]}`; save it with `save_pretrained`"
        )
    return root


def _check_blocks(config: TransformerConfig, root: str, names: set[str], where: str) -> None:
    """Raises ValueError unless the tensors are of as many blocks, before anything is made for each."""
    opening = f"{root}layers."
    numbers = {name[len(opening) :].split(".")[0] for name in names if name.startswith(opening)}
    if len(numbers) != config.num_blocks:
        raise ValueError(
            f"{where} must hold the tensors of {config.num_blocks} blocks, `num_hidden_layers` of its"
            f" config.json, got {len(numbers)}"
        )


def _is_unread(name: str, root: str) -> bool:
    inner = name.removeprefix("model.").removeprefix("language_model.")
    if inner.startswith(_UNREAD_OUTSIDE) or name.startswith(_UNREAD_OUTSIDE):
        return True
    within = name.removeprefix(root) if name.startswith(root) else None
    return within in _FINAL_NORMS or (name.endswith(_UNREAD_ENDINGS) and within is not None)
