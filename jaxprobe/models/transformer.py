"""Builds the Llama-like family from penzai's layers: embedding, then blocks. No final norm, no decoding.

Every place that `Site` can name holds a `Mark`; `taps` turns those asked for into taps.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from penzai import pz
from penzai.models.transformer.model_parts import TransformerBlock, TransformerFeedForward

from jaxprobe.base import Site
from jaxprobe.models.config import TransformerConfig
from jaxprobe.models.layers import (
    AddBias,
    Linear,
    Mark,
    Mix,
    Normalise,
    Scale,
    Scores,
    SoftCap,
    Softmax,
)
from jaxprobe.models.rotary import Rotate

# A finite stand-in for minus infinity, so that no softmax sees infinity less infinity.
_MASKED = -2.3819763e38

_ACTIVATIONS: Mapping[str, Callable] = {
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
}

# Makes the parameter of a name with its axes, slowest first: (label, {axis: size}) -> parameter.
MakeParameter = Callable[[str, dict[str, int]], pz.nn.ParameterLike]


def build(config: TransformerConfig, parameter: MakeParameter) -> pz.nn.Sequential:
    """Builds the stack whose sublayer 0 embeds tokens and whose sublayer 1 + L is block L.

    Args:
        config: The model's numbers.
        parameter: Called once for every parameter; matrices are asked for as [outputs, inputs], a
            bias under its matrix's name and `_bias`.

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
            Mark(site=Site(block=-1, stream="embed")),
        ]
    )
    blocks = [_Block(config, parameter, block).build() for block in range(config.num_blocks)]
    return pz.nn.Sequential([embed, *blocks])


class _Block:
    """Builds one block: the config, the source of parameters and the block's number at hand."""

    def __init__(self, config: TransformerConfig, parameter: MakeParameter, block: int):
        self.config, self.parameter, self.block = config, parameter, block
        self.stream = {"embedding": config.d_model}

    def build(self) -> TransformerBlock:
        """Attention then MLP, or both side by side, added to the residual stream."""
        attention = self.branch("attention", [self.attention()], "attn")
        mlp = self.branch("mlp", [self.mark("mlp_in"), self.mlp()], "mlp")
        if self.config.parallel_residual:
            both = pz.nn.BranchAndAddTogether([attention, mlp])
            return TransformerBlock([pz.nn.Residual(both), self.mark("resid_post")])
        return TransformerBlock(
            [
                *(pz.nn.Residual(attention), self.mark("resid_mid")),
                *(pz.nn.Residual(mlp), self.mark("resid_post")),
            ]
        )

    def branch(self, name: str, layers: list[pz.nn.Layer], short: str) -> pz.nn.Sequential:
        """A norm, the layers, a post norm where the family has one, and marks between them.

        Without a post norm, what the module puts out is what is added: one mark, see `Site.stored`.
        """
        normalise, scale = self.norm(f"pre_{name}_norm")
        after: list[pz.nn.Layer] = []
        if self.config.post_norms:
            after = [self.mark(f"{short}_module_out"), *self.norm(f"post_{name}_norm")]
        before = [normalise, self.mark(f"{short}_in_unscaled"), scale]
        return pz.nn.Sequential([*before, *layers, *after, self.mark(f"{short}_out")])

    def mark(self, stream: str) -> Mark:
        """A place for a tap in this block."""
        return Mark(site=Site(block=self.block, stream=stream))

    def make(self, name: str, axes: dict[str, int]) -> pz.nn.ParameterLike:
        """One parameter of this block."""
        return self.parameter(f"blocks.{self.block}.{name}", axes)

    def norm(self, name: str, axis: str = "embedding") -> tuple[pz.nn.Layer, pz.nn.Layer]:
        """A norm over one axis: its part without parameters, and its learned weight."""
        config, centred = self.config, self.config.norm == "layer"
        axes = self.stream if axis == "embedding" else {axis: config.d_head}
        scale = self.make(name, axes)
        bias = self.make(f"{name}_bias", axes) if centred else None
        return (
            Normalise(axis=axis, epsilon=config.norm_epsilon, centred=centred),
            Scale(scale=scale, bias=bias, axis=axis),
        )

    def linear(
        self, name: str, inputs: dict[str, int], outputs: dict[str, int], bias: bool
    ) -> list[pz.nn.Layer]:
        """A product, and a bias where the family has one."""
        product = Linear(
            weights=self.make(name, {**outputs, **inputs}),
            in_axis_names=tuple(inputs),
            out_axis_names=tuple(outputs),
        )
        return [product, *([AddBias(bias=self.make(f"{name}_bias", outputs))] if bias else [])]

    def mlp(self) -> TransformerFeedForward:
        """The MLP, gated or plain."""
        wide, bias = {"neurons": self.config.d_mlp}, self.config.mlp_bias
        activation = pz.nn.Elementwise(_ACTIVATIONS[self.config.activation])
        up = self.linear("mlp_up", self.stream, wide, bias)
        if self.config.gated_mlp:
            gate = [*self.linear("mlp_gate", self.stream, wide, bias), activation]
            branches: list[pz.nn.Layer] = [
                pz.nn.NamedGroup("gate", gate),
                pz.nn.NamedGroup("up", up),
            ]
            hidden: list[pz.nn.Layer] = [pz.nn.BranchAndMultiplyTogether(branches)]
        else:
            hidden = [*up, activation]
        return TransformerFeedForward([*hidden, *self.linear("mlp_down", wide, self.stream, bias)])

    def attention(self) -> pz.nn.Attention:
        """Grouped-query attention."""
        config, rotate = self.config, Rotate(rotary=self.config.rotary[self.block])
        keys = {"head_groups": config.num_kv_heads, "projection": config.d_head}
        queries = {
            "head_groups": config.num_kv_heads,
            "query_heads": config.queries_per_kv,
            "projection": config.d_head,
        }
        scale = pz.nn.ConstantRescale(by=config.query_scale)
        cap = [] if config.attention_soft_cap is None else [SoftCap(cap=config.attention_soft_cap)]
        value = self.linear("value", self.stream, keys, config.query_bias)
        output = self.linear("attention_output", queries, self.stream, config.output_bias)
        return pz.nn.Attention(
            input_to_query=pz.nn.Sequential([*self.head("query", queries), rotate, scale]),
            input_to_key=pz.nn.Sequential([*self.head("key", keys), rotate]),
            input_to_value=pz.nn.Sequential(value),
            query_key_to_attn=pz.nn.Sequential(
                [Scores(), *cap, _mask(config.windows[self.block]), Softmax()]
            ),
            attn_value_to_output=pz.nn.Sequential([Mix(), self.mark("attn_z"), *output]),
        )

    def head(self, name: str, axes: dict[str, int]) -> list[pz.nn.Layer]:
        """Queries or keys before they turn."""
        layers = self.linear(name, self.stream, axes, self.config.query_bias)
        if not self.config.query_key_norm:
            return layers
        return [*layers, *self.norm(f"{name}_norm", "projection")]


def _mask(window: int | None) -> pz.nn.Layer:
    if window is None:
        return pz.nn.ApplyCausalAttentionMask(masked_out_value=_MASKED)
    return pz.nn.ApplyCausalSlidingWindowAttentionMask(
        masked_out_value=_MASKED, sliding_window_size=window
    )
