"""`config.json` of Hugging Face directories: which field means what, and which fields are refused.

A field that is neither read nor known to leave the activations as they are is refused by name.
"""

import math
from collections.abc import Mapping
from typing import Any

from jaxprobe.models import fields
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
    if isinstance(kind, str) and kind in MULTIMODAL:
        text = {
            "model_type": MULTIMODAL[kind],
            **fields.table("text_config", raw.get("text_config")),
        }
        if text["model_type"] != MULTIMODAL[kind]:
            raise ValueError(
                f"`text_config.model_type` of a {kind} config.json must be {MULTIMODAL[kind]}, got"
                f" {fields.shown(text['model_type'])}"
            )
        outside = {name: value for name, value in raw.items() if name not in ABOUT_IMAGES}
        _refuse_unknown(outside, frozenset())
        return read_config(text)
    if not isinstance(kind, str) or kind not in FAMILIES:
        known = ", ".join(sorted({*FAMILIES, *MULTIMODAL}))
        raise ValueError(
            f"`model_type` of config.json must be one of {known}, got {fields.shown(kind)}"
        )
    family = FAMILIES[kind]
    _refuse_unknown(raw, family.reads)
    read = {**family.defaults, **{k: v for k, v in raw.items() if k in family.reads}}
    absent = sorted(SIZES - set(read))
    if absent:
        raise ValueError(f"config.json of a {kind} model must have `{absent[0]}`")
    return _config(kind, read, raw.get("max_position_embeddings")), family


def _config(kind: str, read: dict[str, Any], context: Any) -> TransformerConfig:
    gemma, neox = kind.startswith("gemma"), kind == "gpt_neox"
    d_model, num_heads, num_kv_heads, d_head = _head_sizes(read)
    windows = _windows(kind, read)
    bias = fields.flag("attention_bias", read.get("attention_bias"))
    scalar: float = d_head
    if kind in ("gemma2", "gemma3_text"):
        scalar = fields.real("query_pre_attn_scalar", read["query_pre_attn_scalar"])
    cap = read.get("attn_logit_softcapping")
    epsilon = "layer_norm_eps" if neox else "rms_norm_eps"
    return TransformerConfig(
        d_model=d_model,
        num_blocks=len(windows),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        d_head=d_head,
        d_mlp=fields.whole("intermediate_size", read["intermediate_size"], fields.MOST_MLP),
        vocab_size=fields.whole("vocab_size", read["vocab_size"], fields.MOST_WORDS),
        norm_epsilon=fields.real(epsilon, read[epsilon]),
        embedding_scale=math.sqrt(d_model) if gemma else 1.0,
        query_scale=scalar**-0.5,
        windows=windows,
        rotary=rotary_of_blocks(kind, read, d_head, windows, context),
        norm="layer" if neox else "rms",
        activation=_activation(kind, read),
        gated_mlp=not neox,
        post_norms=kind in ("gemma2", "gemma3_text"),
        query_key_norm=kind in ("gemma3_text", "qwen3"),
        parallel_residual=neox
        and fields.flag("use_parallel_residual", read["use_parallel_residual"]),
        attention_soft_cap=None if cap is None else fields.real("attn_logit_softcapping", cap),
        query_bias=bias or kind == "qwen2",
        output_bias=bias,
        mlp_bias=neox or fields.flag("mlp_bias", read.get("mlp_bias")),
    )


def _head_sizes(read: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Widths of the stream and of a head, counts of query heads and of key heads."""
    d_model = fields.whole("hidden_size", read["hidden_size"], fields.MOST_WIDTH)
    num_heads = fields.whole("num_attention_heads", read["num_attention_heads"], fields.MOST_HEADS)
    num_kv_heads, d_head = read.get("num_key_value_heads"), read.get("head_dim")
    num_kv_heads = fields.whole(
        "num_key_value_heads", num_heads if num_kv_heads is None else num_kv_heads, num_heads
    )
    if num_heads % num_kv_heads:
        raise ValueError(f"`num_key_value_heads` must divide {num_heads}, got {num_kv_heads}")
    if d_head is None and num_heads > d_model:
        raise ValueError(f"`num_attention_heads` must be at most {d_model}, got {num_heads}")
    d_head = d_model // num_heads if d_head is None else d_head
    return (
        *(d_model, num_heads, num_kv_heads),
        fields.whole("head_dim", d_head, fields.MOST_HEAD_WIDTH),
    )


def _windows(kind: str, read: Mapping[str, Any]) -> tuple[int | None, ...]:
    """Per block: the keys that a query sees, or None for all."""
    count = fields.whole("num_hidden_layers", read["num_hidden_layers"], fields.MOST_BLOCKS)
    window = read.get("sliding_window")
    if window is not None:
        window = fields.whole("sliding_window", window, fields.MOST_TOKENS)
    if read.get("sliding_window_size", window) != window:
        raise ValueError(
            f"`sliding_window_size` of config.json must be its `sliding_window` {window}, got"
            f" {fields.shown(read['sliding_window_size'])}"
        )
    if kind == "mistral":
        return (window,) * count
    slides_at_all = fields.flag("use_sliding_window", read.get("use_sliding_window"))
    if kind in ("qwen2", "qwen3") and not slides_at_all:
        window = None
    types = read.get("layer_types")
    if types is None:
        first = read.get("max_window_layers")
        first = count if first is None else first
        first = fields.whole("max_window_layers", first, fields.MOST_TOKENS, least=0)
        period = _period(read)
        slides = {
            "gemma2": lambda block: block % 2 == 0,
            "gemma3_text": lambda block: (block + 1) % period != 0,
            "qwen2": lambda block: window is not None and block >= first,
            "qwen3": lambda block: window is not None and block >= first,
        }.get(kind, lambda block: False)
        types = ["sliding_attention" if slides(b) else "full_attention" for b in range(count)]
    if not isinstance(types, list):
        raise ValueError(f"`layer_types` must be a list, got {fields.shown(types)}")
    unknown = [name for name in types if name not in ("sliding_attention", "full_attention")]
    if unknown or len(types) != count:
        among = f", among them {fields.shown(unknown[0])}" if unknown else ""
        raise ValueError(
            f"`layer_types` of config.json must hold sliding_attention or full_attention for each of"
            f" {count} blocks, got {len(types)} entries{among}"
        )
    if "sliding_attention" in types and window is None:
        raise ValueError("`layer_types` has sliding_attention, but `sliding_window` is not set")
    return tuple(window if name == "sliding_attention" else None for name in types)


def _period(read: Mapping[str, Any]) -> int:
    """Every how manieth block of Gemma 3 sees all, where the file has no `layer_types`."""
    given = read.get("sliding_window_pattern")
    period = fields.whole(
        "sliding_window_pattern", 6 if given is None else given, fields.MOST_BLOCKS
    )
    other = read.get("_sliding_window_pattern")
    if other is not None and other != period:  # transformers does not read it
        raise ValueError(
            f"`_sliding_window_pattern` must be {period} where there are no `layer_types`, got"
            f" {fields.shown(other)}"
        )
    return period


def _activation(kind: str, read: Mapping[str, Any]) -> str:
    field = "hidden_activation" if kind in ("gemma2", "gemma3_text") else "hidden_act"
    name = read.get(field) or read.get("hidden_activation")
    if kind.startswith("gemma"):
        # Gemma's older files say `gelu` for the approximation by tanh that the models were trained with;
        # from Gemma 2 on `hidden_act` is a leftover beside `hidden_activation`.
        leftover = read.get("hidden_act") or "gelu"
        if field != "hidden_act" and leftover not in ("gelu", "gelu_pytorch_tanh"):
            raise ValueError(
                f"`hidden_act` = {fields.shown(leftover)} of config.json contradicts `hidden_activation`"
                f" = {fields.shown(name)}"
            )
        name = "gelu_pytorch_tanh" if name == "gelu" and field == "hidden_act" else name
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise ValueError(
            f"`{field}` of config.json must be one of {', '.join(_ACTIVATIONS)}, got"
            f" {fields.shown(name)}"
        )
    return _ACTIVATIONS[name]


def _refuse_unknown(raw: Mapping[str, Any], reads: frozenset[str]) -> None:
    for name, value in raw.items():
        if name in reads or name in WITHOUT_EFFECT:
            continue
        if name not in NEUTRAL or value not in NEUTRAL[name]:
            raise ValueError(
                f"`{fields.shown(name)[1:-1]}` = {fields.shown(value)} in config.json may change the"
                " mathematics and is not supported"
            )
