"""What a decoder-only transformer is made of, whichever file described it."""

import dataclasses

from jaxprobe.models.rotary import Rotary

NORMS = ("rms", "layer")
ACTIVATIONS = ("gelu_tanh", "gelu", "silu", "relu")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The numbers and switches that fix the mathematics of a model, up to its last block.

    What only decoding reads (the final norm, the final soft cap, an untied output matrix) is not here.

    Attributes:
        d_model: Width of the residual stream.
        num_blocks: Number of blocks.
        num_heads: Query heads.
        num_kv_heads: Key and value heads; divides `num_heads`.
        d_head: Width of one head.
        d_mlp: Width of the MLP.
        vocab_size: Rows of the embedding table.
        norm_epsilon: Added to the mean square under the root.
        embedding_scale: Factor on the embedding.
        query_scale: Factor on the queries, after their norm and rotation.
        windows: Per block: keys a query sees, its own among them; None for all before it.
        rotary: Per block: how queries and keys turn with their position.
        norm: `rms` (a scale) or `layer` (mean removed, a scale and a bias).
        activation: One of `ACTIVATIONS`; `gelu` is the exact one.
        gated_mlp: Whether a second input matrix multiplies the activation.
        post_norms: Whether attention's and the MLP's outputs are normalised before they are added.
        query_key_norm: Whether queries and keys are normalised head by head before they turn.
        parallel_residual: Whether attention and the MLP both read the block's input.
        attention_soft_cap: Bound c of the scores, c tanh(score / c); None for no bound.
        query_bias: Whether queries, keys and values have biases.
        output_bias: Whether attention's output has one.
        mlp_bias: Whether the MLP's matrices have them.
    """

    d_model: int
    num_blocks: int
    num_heads: int
    num_kv_heads: int
    d_head: int
    d_mlp: int
    vocab_size: int
    norm_epsilon: float
    embedding_scale: float
    query_scale: float
    windows: tuple[int | None, ...]
    rotary: tuple[Rotary, ...]
    norm: str = "rms"
    activation: str = "gelu_tanh"
    gated_mlp: bool = True
    post_norms: bool = False
    query_key_norm: bool = False
    parallel_residual: bool = False
    attention_soft_cap: float | None = None
    query_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False

    @property
    def queries_per_kv(self) -> int:
        """Query heads that share one key head."""
        return self.num_heads // self.num_kv_heads

    def width(self, stream: str) -> int:
        """Width of the activations at a stream of `base.STREAMS`."""
        return self.num_heads * self.d_head if stream == "attn_z" else self.d_model
