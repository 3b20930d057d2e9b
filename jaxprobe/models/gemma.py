"""Gemma 3 in GGUF files: which metadata means what, and which tensor is which parameter."""

import math

from jaxprobe.gguf_file import GgufFile
from jaxprobe.models.config import TransformerConfig

ARCHITECTURE = "gemma3"
_LOCAL_ROTARY_BASE = 10_000.0
_WINDOW_PATTERN = 6  # every sixth block is global
_BLOCKS_OF_27B = 62  # the one size whose queries are not scaled by the head width

# Metadata that changes the mathematics, and the values that leave it as it is here.
_NEUTRAL = {
    "attn_logit_softcapping": (0.0,),
    "rope.scaling.type": ("none",),
    "attention.causal": (True,),
}
_READ = {
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.dimension_count",
}
_WITHOUT_EFFECT = {"context_length", "vocab_size", "final_logit_softcapping"}

_BLOCK_TENSORS = {
    "pre_attention_norm": "attn_norm",
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "query_norm": "attn_q_norm",
    "key_norm": "attn_k_norm",
    "attention_output": "attn_output",
    "post_attention_norm": "post_attention_norm",
    "pre_mlp_norm": "ffn_norm",
    "mlp_gate": "ffn_gate",
    "mlp_up": "ffn_up",
    "mlp_down": "ffn_down",
    "post_mlp_norm": "post_ffw_norm",
}
_DECODING = {"output_norm.weight", "output.weight"}  # behind the last block; never read


def read_config(file: GgufFile) -> TransformerConfig:
    """Reads the metadata of a Gemma 3 file.

    Raises:
        ValueError: Another architecture, a missing key, or a key that would change the mathematics
            in a way that is not supported; the message names it.
    """
    architecture = file.value("general.architecture")
    if architecture != ARCHITECTURE:
        raise ValueError(
            f"{file.path.name} must hold the architecture {ARCHITECTURE!r}, got {architecture!r}"
        )
    _refuse_unknown(file)

    def value(key: str):
        return file.value(f"{ARCHITECTURE}.{key}")

    def optional(key: str, default):
        return file.metadata.get(f"{ARCHITECTURE}.{key}", default)

    d_model, num_heads, d_head = (
        value("embedding_length"),
        value("attention.head_count"),
        value("attention.key_length"),
    )
    for key in ("attention.value_length", "rope.dimension_count"):
        if optional(key, d_head) != d_head:
            raise ValueError(f"`{ARCHITECTURE}.{key}` must be {d_head}, got {optional(key, None)}")
    if num_heads % value("attention.head_count_kv"):
        raise ValueError(
            f"`{ARCHITECTURE}.attention.head_count_kv` must divide {num_heads}, got"
            f" {value('attention.head_count_kv')}"
        )
    num_blocks = value("block_count")
    period = optional("attention.sliding_window_pattern", _WINDOW_PATTERN)
    is_global = [(block + 1) % period == 0 for block in range(num_blocks)]
    window, base = value("attention.sliding_window"), float(value("rope.freq_base"))
    local_base = float(optional("rope.freq_base_swa", _LOCAL_ROTARY_BASE))
    query_width = d_model // num_heads if num_blocks == _BLOCKS_OF_27B else d_head
    return TransformerConfig(
        d_model=d_model,
        num_blocks=num_blocks,
        num_heads=num_heads,
        num_kv_heads=value("attention.head_count_kv"),
        d_head=d_head,
        d_mlp=value("feed_forward_length"),
        vocab_size=len(file.value("tokenizer.ggml.tokens")),
        norm_epsilon=float(value("attention.layer_norm_rms_epsilon")),
        embedding_scale=math.sqrt(d_model),
        query_scale=query_width**-0.5,
        windows=tuple(None if far else window for far in is_global),
        rotary_bases=tuple(base if far else local_base for far in is_global),
    )


def tensor_names(config: TransformerConfig) -> dict[str, str]:
    """The file's tensor of each parameter of `transformer.build`."""
    names = {"embedding": "token_embd.weight"}
    for block in range(config.num_blocks):
        for ours, theirs in _BLOCK_TENSORS.items():
            names[f"blocks.{block}.{ours}"] = f"blk.{block}.{theirs}.weight"
    return names


def check_tensors(file: GgufFile, names: dict[str, str]) -> None:
    """Raises ValueError unless the file holds just these tensors and those of the decoding."""
    wanted = set(names.values())
    missing = sorted(wanted - set(file.tensors))
    unknown = sorted(set(file.tensors) - wanted - _DECODING)
    if missing or unknown:
        raise ValueError(
            f"{file.path.name} must hold the tensors of {ARCHITECTURE}: missing {missing[:4]},"
            f" not understood {unknown[:4]}"
        )


def _refuse_unknown(file: GgufFile) -> None:
    prefix = f"{ARCHITECTURE}."
    for key, value in file.metadata.items():
        short = key.removeprefix(prefix)
        if not key.startswith(prefix) or short in _READ | _WITHOUT_EFFECT:
            continue
        if short not in _NEUTRAL or value not in _NEUTRAL[short]:
            raise ValueError(
                f"`{key}` = {value!r} in {file.path.name} may change the mathematics and is not"
                " supported"
            )
