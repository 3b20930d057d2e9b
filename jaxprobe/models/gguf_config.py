"""GGUF metadata of the Llama-like family: which key means what, and which keys are refused."""

import dataclasses
import math
from typing import Any

import numpy as np

from jaxprobe import boundary
from jaxprobe.gguf_file import GgufFile
from jaxprobe.models import fields
from jaxprobe.models.config import TransformerConfig
from jaxprobe.models.rotary import Rotary
from jaxprobe.models.rotary_scaling import (
    YarnRotary,
    linear_divisors,
    yarn_divisors,
    yarn_growth,
)

FREQUENCIES = "rope_freqs.weight"  # Llama 3's scaling: what each frequency is divided by
_LOCAL_ROTARY_BASE = 10_000.0
_DEFAULT_ROTARY_BASE = 10_000.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """What the file's `general.architecture` implies beyond its metadata.

    Attributes:
        gemma: Embeddings are scaled and the MLP's activation is GELU by tanh.
        post_norms: Attention's and the MLP's outputs are normalised.
        query_key_norm: Queries and keys are normalised.
        window_period: Every so many-th block sees all; 0 where no block has a window.
        blocks_of_other_scale: The one size whose queries are scaled by d_model / num_heads.
        soft_cap: Bound of the scores where the metadata has none.
        permuted: Query and key rows are stored in the order of adjacent rotary pairs.
    """

    gemma: bool = False
    post_norms: bool = False
    query_key_norm: bool = False
    window_period: int = 0
    blocks_of_other_scale: int = 0
    soft_cap: float | None = None
    permuted: bool = False


ARCHITECTURES = {
    "gemma": Architecture(gemma=True),
    "gemma2": Architecture(
        gemma=True, post_norms=True, window_period=2, blocks_of_other_scale=46, soft_cap=50.0
    ),
    "gemma3": Architecture(
        gemma=True, post_norms=True, query_key_norm=True, window_period=6, blocks_of_other_scale=62
    ),
    "llama": Architecture(permuted=True),  # Mistral's files say llama too
    "qwen2": Architecture(),
    "qwen3": Architecture(query_key_norm=True),
}

# Metadata that changes the mathematics, and the values that leave it as it is here.
_NEUTRAL: dict[str, tuple] = {
    "attention.causal": (True,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "rope.scaling.attn_factor": (1.0,),
    "rope.scaling.finetuned": (True, False),  # says how it came about
    "rope.scaling.yarn_attn_factor": (1.0,),
    "rope.scaling.yarn_log_multiplier": (0.0,),
}
_READ = {
    *("embedding_length", "block_count", "feed_forward_length", "rope.freq_base"),
    *("attention.head_count", "attention.head_count_kv", "attention.key_length"),
    *("attention.value_length", "attention.layer_norm_rms_epsilon", "rope.dimension_count"),
    *("rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length"),
    *("rope.scaling.yarn_ext_factor", "rope.scaling.yarn_beta_fast"),
    *("rope.scaling.yarn_beta_slow", "context_length"),
}
_READ_WITH_WINDOWS = {
    *("attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base_swa"),
}
_WITHOUT_EFFECT = {"vocab_size", "final_logit_softcapping"}


def read_config(file: GgufFile) -> TransformerConfig:
    """Reads the metadata of a file.

    Raises:
        ValueError: Another architecture, a missing key, or a key that would change the mathematics
            in a way that is not supported; the message names it.
    """
    with boundary.reader(file.path, "a language model's GGUF file", "fetch it again"):
        name = file.value("general.architecture")
        if not isinstance(name, str) or name not in ARCHITECTURES:
            raise ValueError(
                f"{file.path} must hold one of the architectures {', '.join(ARCHITECTURES)}, got"
                f" {fields.shown(name)}"
            )
        return _Reader(file, name).config()


class _Reader:
    """Reads keys below the architecture's prefix."""

    def __init__(self, file: GgufFile, name: str):
        self.file, self.name, self.kind = file, name, ARCHITECTURES[name]

    def value(self, key: str) -> Any:
        return self.file.value(f"{self.name}.{key}")

    def optional(self, key: str, default: Any) -> Any:
        return self.file.metadata.get(f"{self.name}.{key}", default)

    def whole(self, key: str, most: int, default: Any = None) -> int:
        given = self.value(key) if default is None else self.optional(key, default)
        return fields.whole(f"{self.name}.{key}", given, most)

    def real(self, key: str, default: float | None = None, above: float = 0.0) -> float:
        given = self.value(key) if default is None else self.optional(key, default)
        return fields.real(f"{self.name}.{key}", given, above)

    def head_sizes(self) -> tuple[int, int, int, int]:
        """Widths of the stream and of a head, counts of query heads and of key heads."""
        for key in ("head_count", "head_count_kv"):
            if isinstance(self.optional(f"attention.{key}", 0), np.ndarray):
                raise ValueError(f"`{self.name}.attention.{key}` must be one number for all blocks")
        d_model = self.whole("embedding_length", fields.MOST_WIDTH)
        num_heads = self.whole("attention.head_count", min(fields.MOST_HEADS, d_model))
        num_kv_heads = self.whole("attention.head_count_kv", num_heads, default=num_heads)
        if num_heads % num_kv_heads:
            raise ValueError(
                f"`{self.name}.attention.head_count_kv` must divide {num_heads}, got {num_kv_heads}"
            )
        d_head = self.whole(
            "attention.key_length", fields.MOST_HEAD_WIDTH, default=d_model // num_heads
        )
        for key in ("attention.value_length", "rope.dimension_count"):
            width = self.whole(key, fields.MOST_HEAD_WIDTH, default=d_head)
            if width != d_head:
                raise ValueError(f"`{self.name}.{key}` must be {d_head}, got {width}")
        if d_head % 2:
            raise ValueError(f"`{self.name}.attention.key_length` must be even, got {d_head}")
        return d_model, num_heads, num_kv_heads, d_head

    def num_blocks(self) -> int:
        """The count of blocks, that of the tensors."""
        count = self.whole("block_count", fields.MOST_BLOCKS)
        numbers = {name.split(".")[1] for name in self.file.tensors if name.startswith("blk.")}
        if len(numbers) != count:
            raise ValueError(
                f"`{self.name}.block_count` must be that of the tensors' {len(numbers)} blocks, got"
                f" {count}"
            )
        return count

    def vocab_size(self) -> int:
        """The count of pieces."""
        pieces = self.file.value("tokenizer.ggml.tokens")
        if not isinstance(pieces, list):
            raise ValueError("`tokenizer.ggml.tokens` must be a list of strings")
        return fields.whole("tokenizer.ggml.tokens", len(pieces), fields.MOST_WORDS)

    def config(self) -> TransformerConfig:
        self.refuse_unknown()
        d_model, num_heads, num_kv_heads, d_head = self.head_sizes()
        num_blocks, kind = self.num_blocks(), self.kind
        cap = kind.soft_cap
        if cap is not None:
            cap = self.real("attn_logit_softcapping", default=cap)
        other = kind.blocks_of_other_scale == num_blocks and num_blocks > 0
        windows = self.windows(num_blocks)
        has = {} if kind.gemma else self.file.tensors
        return TransformerConfig(
            d_model=d_model,
            num_blocks=num_blocks,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            d_head=d_head,
            d_mlp=self.whole("feed_forward_length", fields.MOST_MLP),
            vocab_size=self.vocab_size(),
            norm_epsilon=self.real("attention.layer_norm_rms_epsilon"),
            embedding_scale=math.sqrt(d_model) if kind.gemma else 1.0,
            query_scale=(d_model // num_heads if other else d_head) ** -0.5,
            windows=windows,
            rotary=self.rotary(windows, d_head),
            activation="gelu_tanh" if kind.gemma else "silu",
            post_norms=kind.post_norms,
            query_key_norm=kind.query_key_norm,
            attention_soft_cap=cap,
            query_bias="blk.0.attn_q.bias" in has,
            output_bias="blk.0.attn_output.bias" in has,
            mlp_bias="blk.0.ffn_up.bias" in has,
        )

    def windows(self, num_blocks: int) -> tuple[int | None, ...]:
        if not self.kind.window_period:
            return (None,) * num_blocks
        pattern, window = "attention.sliding_window_pattern", "attention.sliding_window"
        period = self.whole(pattern, fields.MOST_BLOCKS, default=self.kind.window_period)
        window = self.whole(window, fields.MOST_TOKENS)
        return tuple(None if (block + 1) % period == 0 else window for block in range(num_blocks))

    def rotary(self, windows: tuple[int | None, ...], d_head: int) -> tuple[Rotary, ...]:
        base = self.real("rope.freq_base", default=_DEFAULT_ROTARY_BASE, above=1.0)
        kind = self.optional("rope.scaling.type", "none")
        if not isinstance(kind, str) or kind not in ("none", "linear", "yarn"):
            raise ValueError(
                f"`{self.name}.rope.scaling.type` must be none, linear or yarn, got"
                f" {fields.shown(kind)}"
            )
        mixing = self.optional("rope.scaling.yarn_ext_factor", -1.0)  # negative: as the type says
        if not isinstance(mixing, float) or not (mixing < 0 or mixing == float(kind == "yarn")):
            raise ValueError(
                f"`{self.name}.rope.scaling.yarn_ext_factor` must be {float(kind == 'yarn')}, got"
                f" {fields.shown(mixing)}"
            )
        if kind == "yarn":
            far: Rotary = self.yarn(base, d_head)
        else:
            far = Rotary(base=base, width=d_head, divisors=self.divisors(kind, d_head))
        near = far
        if self.name == "gemma3":  # blocks with a window have a base of their own, never scaled
            local = self.real("rope.freq_base_swa", default=_LOCAL_ROTARY_BASE, above=1.0)
            near = Rotary(base=local, width=d_head)
        return tuple(far if window is None else near for window in windows)

    def yarn(self, base: float, d_head: int) -> YarnRotary:
        if FREQUENCIES in self.file.tensors:
            raise ValueError(
                f"`{self.name}.rope.scaling.type` = 'yarn' and a tensor `{FREQUENCIES}` scale the same"
                " frequencies twice, which is not supported"
            )
        if f"{self.name}.rope.scaling.factor" not in self.file.metadata:
            raise ValueError(
                f"`{self.name}.rope.scaling.type` = 'yarn' needs `rope.scaling.factor`"
            )
        factor = self.real("rope.scaling.factor")
        first = "rope.scaling.original_context_length"
        first = first if self.optional(first, 0) != 0 else "context_length"
        slow = self.real("rope.scaling.yarn_beta_slow", default=1.0)
        divisors = yarn_divisors(
            d_head,
            base,
            factor=factor,
            context=self.whole(first, fields.MOST_TOKENS),
            fast=self.real("rope.scaling.yarn_beta_fast", default=32.0, above=slow),
            slow=slow,
        )
        growth = yarn_growth(factor)
        return YarnRotary(base=base, width=d_head, divisors=divisors, attention_factor=growth)

    def divisors(self, scaling: str, d_head: int) -> tuple[float, ...] | None:
        factor = self.real("rope.scaling.factor", default=1.0)
        if scaling == "none" and factor != 1.0:
            raise ValueError(
                f"`{self.name}.rope.scaling.factor` = {factor} needs `rope.scaling.type`"
            )
        if FREQUENCIES not in self.file.tensors:
            return linear_divisors(d_head, factor)
        shape = self.file.tensors[FREQUENCIES].shape
        if shape != (d_head // 2,):
            raise ValueError(
                f"tensor `{FREQUENCIES}` must have shape ({d_head // 2},), got {shape}"
            )
        stored = self.file.read(FREQUENCIES, "float32")
        entry = f"{FREQUENCIES}` entry `"
        return tuple(fields.real(entry, float(value)) * factor for value in stored)

    def refuse_unknown(self) -> None:
        prefix = f"{self.name}."
        read = _READ | (_READ_WITH_WINDOWS if self.kind.window_period else set())
        for key, value in self.file.metadata.items():
            short = key.removeprefix(prefix)
            if not key.startswith(prefix) or short in read | _WITHOUT_EFFECT:
                continue
            known = not isinstance(value, np.ndarray | list)
            capped = self.name == "gemma2" or (known and value == 0.0)
            if short == "attn_logit_softcapping" and capped:
                continue
            if not known or short not in _NEUTRAL or value not in _NEUTRAL[short]:
                raise ValueError(
                    f"`{fields.shown(key)[1:-1]}` = {fields.shown(value)} in {self.file.path} may"
                    " change the mathematics and is not supported"
                )
