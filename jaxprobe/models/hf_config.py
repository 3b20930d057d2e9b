"""`config.json` of Hugging Face directories: which field means what, and which fields are refused.

A field that is neither read nor known to leave the activations as they are is refused by name.
"""

import math
from collections.abc import Mapping
from typing import Any

from jaxprobe.models.config import TransformerConfig
from jaxprobe.models.hf_families import (
    ABOUT_IMAGES,
    FAMILIES,
    MULTIMODAL,
    NEUTRAL,
    SIZES,
    WITHOUT_EFFECT,
    Family,
)
from jaxprobe.models.hf_rotary import rotary_of_blocks

_ACTIVATIONS = {
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu": "gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
}


def read_config(raw: Mapping[str, Any]) -> tuple[TransformerConfig, Family]:
    """Reads a parsed `config.json`.

    Returns:
        The model's numbers, and its family.

    Raises:
        ValueError: An unknown model_type, a missing field, or one that may change the mathematics in
            a way that is not supported; the message names it.
    """
    kind = raw.get("model_type")
    if kind in MULTIMODAL:
        text = {"model_type": MULTIMODAL[kind], **raw.get("text_config", {})}
        outside = {name: value for name, value in raw.items() if name not in ABOUT_IMAGES}
        _refuse_unknown(outside, frozenset())
        return read_config(text)
    if kind not in FAMILIES:
        known = ", ".join(sorted({*FAMILIES, *MULTIMODAL}))
        raise ValueError(f"`model_type` of config.json must be one of {known}, got {kind!r}")
    family = FAMILIES[kind]
    _refuse_unknown(raw, family.reads)
    read = {**family.defaults, **{k: v for k, v in raw.items() if k in family.reads}}
    absent = sorted(SIZES - set(read))
    if absent:
        raise ValueError(f"config.json of a {kind} model must have `{absent[0]}`")
    return _config(kind, read, raw.get("max_position_embeddings")), family


def _config(kind: str, read: dict[str, Any], context: int | None) -> TransformerConfig:
    gemma, neox = kind.startswith("gemma"), kind == "gpt_neox"
    d_model, num_heads = int(read["hidden_size"]), int(read["num_attention_heads"])
    num_kv_heads = int(read.get("num_key_value_heads") or num_heads)
    d_head = int(read.get("head_dim") or d_model // num_heads)
    if num_heads % num_kv_heads:
        raise ValueError(f"`num_key_value_heads` must divide {num_heads}, got {num_kv_heads}")
    windows = _windows(kind, read)
    bias = bool(read.get("attention_bias", False))
    scalar = read["query_pre_attn_scalar"] if kind in ("gemma2", "gemma3_text") else d_head
    cap = read.get("attn_logit_softcapping")
    return TransformerConfig(
        d_model=d_model,
        num_blocks=int(read["num_hidden_layers"]),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        d_head=d_head,
        d_mlp=int(read["intermediate_size"]),
        vocab_size=int(read["vocab_size"]),
        norm_epsilon=float(read["layer_norm_eps" if neox else "rms_norm_eps"]),
        embedding_scale=math.sqrt(d_model) if gemma else 1.0,
        query_scale=float(scalar) ** -0.5,
        windows=windows,
        rotary=rotary_of_blocks(kind, read, d_head, windows, context),
        norm="layer" if neox else "rms",
        activation=_activation(kind, read),
        gated_mlp=not neox,
        post_norms=kind in ("gemma2", "gemma3_text"),
        query_key_norm=kind in ("gemma3_text", "qwen3"),
        parallel_residual=neox and bool(read["use_parallel_residual"]),
        attention_soft_cap=None if cap is None else float(cap),
        query_bias=bias or kind == "qwen2",
        output_bias=bias,
        mlp_bias=neox or bool(read.get("mlp_bias", False)),
    )


def _windows(kind: str, read: Mapping[str, Any]) -> tuple[int | None, ...]:
    """Per block: the keys that a query sees, or None for all."""
    count, window = int(read["num_hidden_layers"]), read.get("sliding_window")
    if read.get("sliding_window_size", window) != window:
        raise ValueError(
            f"`sliding_window_size` of config.json must be its `sliding_window` {window}, got"
            f" {read['sliding_window_size']}"
        )
    if kind == "mistral":
        return (window,) * count
    if kind in ("qwen2", "qwen3") and not read.get("use_sliding_window", False):
        window = None
    types = read.get("layer_types")
    if types is None:
        first = read.get("max_window_layers", count)
        period = read.get("sliding_window_pattern") or read.get("_sliding_window_pattern") or 6
        slides = {
            "gemma2": lambda block: block % 2 == 0,
            "gemma3_text": lambda block: (block + 1) % period != 0,
            "qwen2": lambda block: window is not None and block >= first,
            "qwen3": lambda block: window is not None and block >= first,
        }.get(kind, lambda block: False)
        types = ["sliding_attention" if slides(b) else "full_attention" for b in range(count)]
    unknown = sorted({*types} - {"sliding_attention", "full_attention"})
    if unknown or len(types) != count:
        raise ValueError(
            f"`layer_types` of config.json must hold sliding_attention or full_attention for each of"
            f" {count} blocks, got {len(types)} entries{f', among them {unknown[0]!r}' if unknown else ''}"
        )
    if "sliding_attention" in types and window is None:
        raise ValueError("`layer_types` has sliding_attention, but `sliding_window` is not set")
    return tuple(window if name == "sliding_attention" else None for name in types)


def _activation(kind: str, read: Mapping[str, Any]) -> str:
    field = "hidden_activation" if kind in ("gemma2", "gemma3_text") else "hidden_act"
    name = read.get(field) or read.get("hidden_activation")
    if kind.startswith("gemma"):
        # Gemma's older files say `gelu` for the approximation by tanh that the models were trained with;
        # from Gemma 2 on `hidden_act` is a leftover beside `hidden_activation`.
        leftover = read.get("hidden_act") or "gelu"
        if field != "hidden_act" and leftover not in ("gelu", "gelu_pytorch_tanh"):
            raise ValueError(
                f"`hidden_act` = {leftover!r} of config.json contradicts `hidden_activation` = {name!r}"
            )
        name = "gelu_pytorch_tanh" if name == "gelu" and field == "hidden_act" else name
    if name not in _ACTIVATIONS:
        raise ValueError(
            f"`{field}` of config.json must be one of {', '.join(_ACTIVATIONS)}, got {name!r}"
        )
    return _ACTIVATIONS[name]


def _refuse_unknown(raw: Mapping[str, Any], reads: frozenset[str]) -> None:
    for name, value in raw.items():
        if name in reads or name in WITHOUT_EFFECT:
            continue
        if name not in NEUTRAL or value not in NEUTRAL[name]:
            raise ValueError(
                f"`{name}` = {value!r} in config.json may change the mathematics and is not supported"
            )
