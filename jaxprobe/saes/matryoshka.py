"""The Matryoshka sparse autoencoder: nested dictionaries, of which the first groups may be used.

pre = relu(x W_enc + b_enc)    z = pre * [pre > threshold]    z = 0 past the active groups
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp

from jaxprobe.saes import linear


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MatryoshkaSae(linear.Widths):
    """Weights, all float32.

    Attributes:
        W_enc_DS: Encoder, one column per latent.
        b_enc_S: Encoder bias.
        W_dec_SD: Decoder, one row per latent.
        b_dec_D: Decoder bias.
        threshold_S: A latent is active strictly above its threshold.
        group_S: int32 number of the group that each latent belongs to, counted from 0.
        active_groups: How many of the groups are used.

    References:
        Bussmann et al., Learning Multi-Level Features with Matryoshka Sparse Autoencoders, 2025.
    """

    W_enc_DS: jax.Array
    b_enc_S: jax.Array
    W_dec_SD: jax.Array
    b_dec_D: jax.Array
    threshold_S: jax.Array
    group_S: jax.Array
    active_groups: int = dataclasses.field(metadata={"static": True})


def groups(sizes: tuple[int, ...]) -> jax.Array:
    """`group_S` of groups of these sizes, one after the other."""
    repeats = (itertools.repeat(number, size) for number, size in enumerate(sizes))
    return jnp.asarray(list(itertools.chain.from_iterable(repeats)), jnp.int32)


def check_sae(sae: MatryoshkaSae, hint: str = "", d_out: int | None = None) -> None:
    """Raises ValueError unless the arrays agree and the active groups exist."""
    linear.check_arrays(sae, ("b_enc_S", "threshold_S"), d_out=d_out, hint=hint)
    if int(sae.group_S.min()) < 0:
        tail = f"; {hint}" if hint else ""
        raise ValueError(f"`group_S` must count from 0, got {int(sae.group_S.min())}{tail}")
    linear.check_count("active_groups", sae.active_groups, int(sae.group_S.max()) + 1, hint)


def encode(sae: MatryoshkaSae, x_ND: jax.Array) -> jax.Array:
    """Latents of float32 activations; any leading axes, or none."""
    pre_NS = jax.nn.relu(linear.pre_activations(sae.W_enc_DS, sae.b_enc_S, x_ND))
    active_NS = pre_NS > linear.last_axis(sae.threshold_S, pre_NS.ndim)
    used_S = linear.last_axis(sae.group_S < sae.active_groups, pre_NS.ndim)
    return jnp.where(active_NS & used_S, pre_NS, 0.0)


def decode(sae: MatryoshkaSae, z_NS: jax.Array) -> jax.Array:
    """The reconstruction from the latents."""
    return linear.reconstruct(sae.W_dec_SD, sae.b_dec_D, z_NS)


def take(sae: MatryoshkaSae, index_K) -> MatryoshkaSae:
    """The autoencoder of some latents only: encoding with it gives those columns of `z_NS`."""
    return linear.take(sae, index_K, {"b_enc_S": 0, "threshold_S": 0, "group_S": 0})
