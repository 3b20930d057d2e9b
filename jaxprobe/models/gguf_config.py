"""GGUF metadata of the Llama-like family: which key means what, and which keys are refused."""

import dataclasses
import math
from typing import Any

from jaxprobe.gguf_file import GgufFile
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
    name = file.value("general.architecture")
    if name not in ARCHITECTURES:
        raise ValueError(
            f"{file.path.name} must hold one of the architectures {', '.join(ARCHITECTURES)}, got {name!r}"
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

    def config(self) -> TransformerConfig:
        self.refuse_unknown()
        d_model, num_heads = self.value("embedding_length"), self.value("attention.head_count")
        num_kv_heads = self.optional("attention.head_count_kv", num_heads)
        for key, count in (("head_count", num_heads), ("head_count_kv", num_kv_heads)):
            if not isinstance(count, int):
                raise ValueError(f"`{self.name}.attention.{key}` must be one number for all blocks")
        d_head = self.optional("attention.key_length", d_model // num_heads)
        for key in ("attention.value_length", "rope.dimension_count"):
            if self.optional(key, d_head) != d_head:
                raise ValueError(
                    f"`{self.name}.{key}` must be {d_head}, got {self.optional(key, None)}"
                )
        if num_heads % num_kv_heads:
            raise ValueError(
                f"`{self.name}.attention.head_count_kv` must divide {num_heads}, got {num_kv_heads}"
            )
        num_blocks, kind = self.value("block_count"), self.kind
        cap = self.optional("attn_logit_softcapping", kind.soft_cap)
        other = kind.blocks_of_other_scale == num_blocks and num_blocks > 0
        windows = self.windows(num_blocks)
        has = {} if kind.gemma else self.file.tensors
        return TransformerConfig(
            d_model=d_model,
            num_blocks=num_blocks,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            d_head=d_head,
            d_mlp=self.value("feed_forward_length"),
            vocab_size=len(self.file.value("tokenizer.ggml.tokens")),
            norm_epsilon=float(self.value("attention.layer_norm_rms_epsilon")),
            embedding_scale=math.sqrt(d_model) if kind.gemma else 1.0,
            query_scale=(d_model // num_heads if other else d_head) ** -0.5,
            windows=windows,
            rotary=self.rotary(windows, d_head),
            activation="gelu_tanh" if kind.gemma else "silu",
            post_norms=kind.post_norms,
            query_key_norm=kind.query_key_norm,
            attention_soft_cap=float(cap) if cap else None,
            query_bias="blk.0.attn_q.bias" in has,
            output_bias="blk.0.attn_output.bias" in has,
            mlp_bias="blk.0.ffn_up.bias" in has,
        )

    def windows(self, num_blocks: int) -> tuple[int | None, ...]:
        if not self.kind.window_period:
            return (None,) * num_blocks
        period = self.optional("attention.sliding_window_pattern", self.kind.window_period)
        if not isinstance(period, int):
            raise ValueError(
                f"`{self.name}.attention.sliding_window_pattern` must be one number, got an array"
            )
        window = self.value("attention.sliding_window")
        return tuple(None if (block + 1) % period == 0 else window for block in range(num_blocks))

    def rotary(self, windows: tuple[int | None, ...], d_head: int) -> tuple[Rotary, ...]:
        base = float(self.optional("rope.freq_base", _DEFAULT_ROTARY_BASE))
        kind = self.optional("rope.scaling.type", "none")
        if kind not in ("none", "linear", "yarn"):
            raise ValueError(
                f"`{self.name}.rope.scaling.type` must be none, linear or yarn, got {kind!r}"
            )
        mixing = self.optional("rope.scaling.yarn_ext_factor", -1.0)  # negative: as the type says
        if mixing >= 0 and mixing != float(kind == "yarn"):
            raise ValueError(
                f"`{self.name}.rope.scaling.yarn_ext_factor` must be {float(kind == 'yarn')}, got"
                f" {mixing}"
            )
        if kind == "yarn":
            far: Rotary = self.yarn(base, d_head)
        else:
            far = Rotary(base=base, width=d_head, divisors=self.divisors(kind, d_head))
        near = far
        if self.name == "gemma3":  # blocks with a window have a base of their own, never scaled
            local = float(self.optional("rope.freq_base_swa", _LOCAL_ROTARY_BASE))
            near = Rotary(base=local, width=d_head)
        return tuple(far if window is None else near for window in windows)

    def yarn(self, base: float, d_head: int) -> YarnRotary:
        if FREQUENCIES in self.file.tensors:
            raise ValueError(
                f"`{self.name}.rope.scaling.type` = 'yarn' and a tensor `{FREQUENCIES}` scale the same"
                " frequencies twice, which is not supported"
            )
        factor = self.optional("rope.scaling.factor", None)
        if factor is None:
            raise ValueError(
                f"`{self.name}.rope.scaling.type` = 'yarn' needs `rope.scaling.factor`"
            )
        context = self.optional("rope.scaling.original_context_length", 0)
        divisors = yarn_divisors(
            d_head,
            base,
            factor=float(factor),
            context=int(context or self.value("context_length")),
            fast=float(self.optional("rope.scaling.yarn_beta_fast", 32.0)),
            slow=float(self.optional("rope.scaling.yarn_beta_slow", 1.0)),
        )
        growth = yarn_growth(float(factor))
        return YarnRotary(base=base, width=d_head, divisors=divisors, attention_factor=growth)

    def divisors(self, scaling: str, d_head: int) -> tuple[float, ...] | None:
        factor = float(self.optional("rope.scaling.factor", 1.0))
        if scaling == "none" and factor != 1.0:
            raise ValueError(
                f"`{self.name}.rope.scaling.factor` = {factor} needs `rope.scaling.type`"
            )
        if FREQUENCIES not in self.file.tensors:
            return linear_divisors(d_head, factor)
        stored = self.file.read(FREQUENCIES, "float32")
        if stored.shape != (d_head // 2,):
            raise ValueError(
                f"tensor `{FREQUENCIES}` must have shape ({d_head // 2},), got {stored.shape}"
            )
        return tuple(float(value) * factor for value in stored)

    def refuse_unknown(self) -> None:
        prefix = f"{self.name}."
        read = _READ | (_READ_WITH_WINDOWS if self.kind.window_period else set())
        for key, value in self.file.metadata.items():
            short = key.removeprefix(prefix)
            if not key.startswith(prefix) or short in read | _WITHOUT_EFFECT:
                continue
            capped = self.name == "gemma2" or value == 0.0
            if short == "attn_logit_softcapping" and capped:
                continue
            if short not in _NEUTRAL or value not in _NEUTRAL[short]:
                raise ValueError(
                    f"`{key}` = {value!r} in {self.file.path.name} may change the mathematics and is"
                    " not supported"
                )
