"""The GroupMax sparse autoencoder: the largest latent of each of k groups of adjacent latents.

pre = relu(x W_enc + b_enc)        z = pre where it is the (first) largest of its group, else 0
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxprobe.saes import linear
from jaxprobe.saes.topk import Kept

BLOCK = 4096  # latents whose pre-activations exist at once, more where a group is larger


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class GroupMaxSae(linear.Widths):
    """Weights, all float32.

    Attributes:
        W_enc_DS: Encoder, one column per latent.
        b_enc_S: Encoder bias.
        W_dec_SD: Decoder, one row per latent.
        b_dec_D: Decoder bias.
        k: Number of groups, which divides d_sae.
    """

    W_enc_DS: jax.Array
    b_enc_S: jax.Array
    W_dec_SD: jax.Array
    b_dec_D: jax.Array
    k: int = dataclasses.field(metadata={"static": True})


def check_sae(sae: GroupMaxSae, hint: str = "", d_out: int | None = None) -> None:
    """Raises ValueError unless the arrays agree and the groups are equally large."""
    linear.check_arrays(sae, ("b_enc_S",), d_out=d_out, hint=hint)
    linear.check_k(sae, hint)
    if sae.d_sae % sae.k:
        tail = f"; {hint}" if hint else ""
        raise ValueError(f"`k` must divide d_sae = {sae.d_sae}, got {sae.k}{tail}")


def encode(sae: GroupMaxSae, x_ND: jax.Array) -> jax.Array:
    """Latents of float32 activations; any leading axes, or none."""
    pre_NS = jax.nn.relu(linear.pre_activations(sae.W_enc_DS, sae.b_enc_S, x_ND))
    grouped = pre_NS.reshape(*pre_NS.shape[:-1], sae.k, sae.d_sae // sae.k)
    first = jax.nn.one_hot(grouped.argmax(axis=-1), grouped.shape[-1], dtype=grouped.dtype)
    return (grouped * first).reshape(pre_NS.shape)


def decode(sae: GroupMaxSae, z_NS: jax.Array) -> jax.Array:
    """The reconstruction from the latents."""
    return linear.reconstruct(sae.W_dec_SD, sae.b_dec_D, z_NS)


def keep(sae: GroupMaxSae, x_ND: jax.Array, block: int = BLOCK) -> Kept:
    """Each row's active latents, from one pass over blocks of whole groups."""
    size = sae.d_sae // sae.k
    step = size * max(1, block // size)
    parts = []
    for start in range(0, sae.d_sae, step):
        part = slice(start, start + step)
        parts.append(_largest(sae.W_enc_DS[:, part], sae.b_enc_S[part], x_ND, start, size=size))
    value_NK, index_NK = (jnp.concatenate(a, axis=1) for a in zip(*parts, strict=True))
    return Kept(value_NK, index_NK)


@jax.jit(static_argnames="size")
def _largest(W_enc_DB, b_enc_B, x_ND, start, *, size: int):
    pre_NB = jax.nn.relu(linear.pre_activations(W_enc_DB, b_enc_B, x_ND))
    grouped = pre_NB.reshape(x_ND.shape[0], -1, size)
    first_K = jnp.int32(start) + size * jnp.arange(grouped.shape[1], dtype=jnp.int32)
    return grouped.max(axis=-1), first_K[None, :] + grouped.argmax(axis=-1).astype(jnp.int32)
