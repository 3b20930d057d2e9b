"""The TopK sparse autoencoder: the k largest pre-activations of a row are its active latents.

    pre = x W_enc + b_enc        z = relu of the k largest of pre (by |pre| if signed, kept as is)

The latents of a row depend on each other, so blocks of them cannot be encoded independently: `keep` finds
each row's k latents in one pass over blocks, in memory O(N k).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxprobe.saes import linear

# Latents and rows whose pre-activations exist at once: 32 MB, small enough to be reused for the next rows
# instead of being mapped anew, and large enough that few blocks have to be merged.
BLOCK, ROWS = 16384, 512


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TopKSae(linear.Widths):
    """Weights, all float32.

    Attributes:
        W_enc_DS: Encoder, one column per latent.
        b_enc_S: Encoder bias.
        W_dec_SD: Decoder, one row per latent.
        b_dec_D: Decoder bias.
        k: Latents kept per row.
        signed: Whether latents are ranked by absolute value and keep their signs (AbsTopK).

    References:
        Gao et al., Scaling and evaluating sparse autoencoders, 2024.
    """

    W_enc_DS: jax.Array
    b_enc_S: jax.Array
    W_dec_SD: jax.Array
    b_dec_D: jax.Array
    k: int = dataclasses.field(metadata={"static": True})
    signed: bool = dataclasses.field(default=False, metadata={"static": True})


class Kept(NamedTuple):
    """The latents of each row that may be nonzero."""

    value_NK: jax.Array
    index_NK: jax.Array


def check_sae(sae: TopKSae, hint: str = "", d_out: int | None = None) -> None:
    """Raises ValueError unless the arrays agree and k latents can be kept."""
    linear.check_arrays(sae, ("b_enc_S",), d_out=d_out, hint=hint)
    linear.check_k(sae, hint)


def encode(sae: TopKSae, x_ND: jax.Array) -> jax.Array:
    """Latents of float32 activations; any leading axes, or none.

    Of equal pre-activations the one with the lower number is kept.
    """
    pre_NS = linear.pre_activations(sae.W_enc_DS, sae.b_enc_S, x_ND)
    _, index_NK = jax.lax.top_k(_rank(sae, pre_NS), sae.k)
    value_NK = _activate(sae, jnp.take_along_axis(pre_NS, index_NK, axis=-1))
    return linear.scatter(value_NK, index_NK, sae.d_sae)


def decode(sae: TopKSae, z_NS: jax.Array) -> jax.Array:
    """The reconstruction from the latents."""
    return linear.reconstruct(sae.W_dec_SD, sae.b_dec_D, z_NS)


def keep(sae: TopKSae, x_ND: jax.Array, block: int = BLOCK) -> Kept:
    """Each row's latents, from one pass over blocks; the same ones as `encode` keeps.

    Args:
        sae: The autoencoder.
        x_ND: float32 [N, D].
        block: Latents whose pre-activations exist at once, of `ROWS` rows.
    """
    num_rows = x_ND.shape[0]
    pre_NK, index_NK = jnp.zeros((num_rows, 0)), jnp.zeros((num_rows, 0), jnp.int32)
    for start in range(0, sae.d_sae, block):
        part = slice(start, start + block)
        inputs = sae.W_enc_DS[:, part], sae.b_enc_S[part], x_ND
        pre_NK, index_NK = _merge(pre_NK, index_NK, *inputs, start, k=sae.k, signed=sae.signed)
    return Kept(_activate(sae, pre_NK), index_NK)


@jax.jit(static_argnames=("k", "signed"))
def _merge(pre_NK, index_NK, W_enc_DB, b_enc_B, x_ND, start, *, k: int, signed: bool):
    # Earlier blocks come first and top_k keeps the first of equals: ties go to the lower number.
    def largest(pre_C, index_C):
        rank_C = jnp.abs(pre_C) if signed else pre_C
        _, where_K = jax.lax.top_k(rank_C, min(k, rank_C.shape[0]))
        return pre_C[where_K], index_C[where_K]

    def one_row(row):
        pre_K, index_K, x_D = row
        pre_B = linear.pre_activations(W_enc_DB, b_enc_B, x_D)
        index_B = jnp.int32(start) + jnp.arange(pre_B.shape[0], dtype=jnp.int32)
        found = largest(pre_B, index_B)
        if not pre_K.shape[0]:  # the first block
            return found
        return largest(jnp.concatenate([pre_K, found[0]]), jnp.concatenate([index_K, found[1]]))

    return jax.lax.map(one_row, (pre_NK, index_NK, x_ND), batch_size=ROWS)


def _rank(sae: TopKSae, pre_NS: jax.Array) -> jax.Array:
    return jnp.abs(pre_NS) if sae.signed else pre_NS


def _activate(sae: TopKSae, pre_NK: jax.Array) -> jax.Array:
    return pre_NK if sae.signed else jax.nn.relu(pre_NK)
