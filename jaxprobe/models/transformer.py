"""Builds the Llama-like family from penzai's layers: embedding, then blocks. No final norm, no decoding."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from penzai import pz
from penzai.models.transformer.model_parts import TransformerBlock, TransformerFeedForward

from jaxprobe.models.config import TransformerConfig
from jaxprobe.models.layers import Linear, Mix, RmsNorm, Rotate, Scores, Softmax

# A finite stand-in for minus infinity, so that no softmax sees infinity less infinity.
_MASKED = -2.3819763e38

# Makes the parameter of a name with its axes, slowest first: (label, {axis: size}) -> parameter.
MakeParameter = Callable[[str, dict[str, int]], pz.nn.ParameterLike]


def build(config: TransformerConfig, parameter: MakeParameter) -> pz.nn.Sequential:
    """Builds the stack whose sublayer 0 embeds tokens and whose sublayer 1 + L is block L.

    Args:
        config: The model's numbers.
        parameter: Called once for every parameter; matrices are asked for as [outputs, inputs].

    Returns:
        A layer from tokens {batch, seq} to the residual stream {batch, seq, embedding}.
    """
    table = pz.nn.EmbeddingTable(
        embeddings=parameter(
            "embedding", {"vocabulary": config.vocab_size, "embedding": config.d_model}
        ),
        vocabulary_axis="vocabulary",
    )
    embed = pz.nn.Sequential(
        [
            pz.nn.EmbeddingLookup(table),
            pz.nn.CastToDType(jnp.float32),
            pz.nn.ConstantRescale(by=config.embedding_scale),
        ]
    )
    return pz.nn.Sequential(
        [embed, *(_block(config, parameter, block) for block in range(config.num_blocks))]
    )


def _block(config: TransformerConfig, parameter: MakeParameter, block: int) -> TransformerBlock:
    prefix = f"blocks.{block}"

    def norm(name: str) -> RmsNorm:
        return _norm(config, parameter, f"{prefix}.{name}", "embedding", config.d_model)

    attention: list[pz.nn.Layer] = [
        norm("pre_attention_norm"),
        _attention(config, parameter, block),
        norm("post_attention_norm"),
    ]
    mlp: list[pz.nn.Layer] = [
        norm("pre_mlp_norm"),
        _mlp(config, parameter, prefix),
        norm("post_mlp_norm"),
    ]
    return TransformerBlock(
        [pz.nn.Residual(pz.nn.Sequential(attention)), pz.nn.Residual(pz.nn.Sequential(mlp))]
    )


def _norm(config, parameter: MakeParameter, label: str, axis: str, size: int) -> RmsNorm:
    return RmsNorm(scale=parameter(label, {axis: size}), axis=axis, epsilon=config.norm_epsilon)


def _linear(
    parameter: MakeParameter, label: str, inputs: dict[str, int], outputs: dict[str, int]
) -> Linear:
    return Linear(
        weights=parameter(label, {**outputs, **inputs}),
        in_axis_names=tuple(inputs),
        out_axis_names=tuple(outputs),
    )


def _mlp(
    config: TransformerConfig, parameter: MakeParameter, prefix: str
) -> TransformerFeedForward:
    wide, narrow = {"neurons": config.d_mlp}, {"embedding": config.d_model}
    gate = [
        _linear(parameter, f"{prefix}.mlp_gate", narrow, wide),
        pz.nn.Elementwise(functools.partial(jax.nn.gelu, approximate=True)),
    ]
    up = _linear(parameter, f"{prefix}.mlp_up", narrow, wide)
    return TransformerFeedForward(
        [
            pz.nn.BranchAndMultiplyTogether([pz.nn.NamedGroup("gate", gate), up]),
            _linear(parameter, f"{prefix}.mlp_down", wide, narrow),
        ]
    )


def _attention(config: TransformerConfig, parameter: MakeParameter, block: int) -> pz.nn.Attention:
    prefix, base = f"blocks.{block}", config.rotary_bases[block]
    stream = {"embedding": config.d_model}
    key_axes = {"head_groups": config.num_kv_heads, "projection": config.d_head}
    query_axes = {
        "head_groups": config.num_kv_heads,
        "query_heads": config.queries_per_kv,
        "projection": config.d_head,
    }

    def head_norm(name: str) -> RmsNorm:
        return _norm(config, parameter, f"{prefix}.{name}", "projection", config.d_head)

    return pz.nn.Attention(
        input_to_query=pz.nn.Sequential(
            [
                _linear(parameter, f"{prefix}.query", stream, query_axes),
                head_norm("query_norm"),
                Rotate(base=base),
                pz.nn.ConstantRescale(by=config.query_scale),
            ]
        ),
        input_to_key=pz.nn.Sequential(
            [
                _linear(parameter, f"{prefix}.key", stream, key_axes),
                head_norm("key_norm"),
                Rotate(base=base),
            ]
        ),
        input_to_value=_linear(parameter, f"{prefix}.value", stream, key_axes),
        query_key_to_attn=pz.nn.Sequential([Scores(), _mask(config.windows[block]), Softmax()]),
        attn_value_to_output=pz.nn.Sequential(
            [Mix(), _linear(parameter, f"{prefix}.attention_output", query_axes, stream)]
        ),
    )


def _mask(window: int | None) -> pz.nn.Layer:
    if window is None:
        return pz.nn.ApplyCausalAttentionMask(masked_out_value=_MASKED)
    return pz.nn.ApplyCausalSlidingWindowAttentionMask(
        masked_out_value=_MASKED, sliding_window_size=window
    )
