"""What a decoder-only transformer is made of, whichever file described it."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The numbers that fix the mathematics of a model.

    Attributes:
        d_model: Width of the residual stream.
        num_blocks: Number of blocks.
        num_heads: Query heads.
        num_kv_heads: Key and value heads; divides `num_heads`.
        d_head: Width of one head.
        d_mlp: Width of the gated MLP.
        vocab_size: Rows of the embedding table.
        norm_epsilon: Added to the mean square under the root.
        embedding_scale: Factor on the embedding.
        query_scale: Factor on the queries, after their norm and rotation.
        windows: Per block: keys a query sees, its own among them; None for all before it.
        rotary_bases: Per block: the base of the rotary wavelengths.
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
    rotary_bases: tuple[float, ...]

    @property
    def queries_per_kv(self) -> int:
        """Query heads that share one key head."""
        return self.num_heads // self.num_kv_heads
