"""The BatchTopK sparse autoencoder at inference: one threshold for all latents.

    pre = relu(x W_enc + b_enc)        z = pre * [pre > threshold]

In training the k B largest pre-activations of a batch of B rows are kept; the threshold is the average
of the smallest ones kept, so that at inference a row's latents do not depend on the other rows.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxprobe.saes import linear


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BatchTopKSae(linear.Widths):
    """Weights, all float32.

    Attributes:
        W_enc_DS: Encoder, one column per latent.
        b_enc_S: Encoder bias.
        W_dec_SD: Decoder, one row per latent.
        b_dec_D: Decoder bias.
        threshold: One number; a latent is active strictly above it.

    References:
        Bussmann et al., BatchTopK Sparse Autoencoders, 2024.
    """

    W_enc_DS: jax.Array
    b_enc_S: jax.Array
    W_dec_SD: jax.Array
    b_dec_D: jax.Array
    threshold: jax.Array


def check_sae(sae: BatchTopKSae, hint: str = "", d_out: int | None = None) -> None:
    """Raises ValueError unless all arrays are float32 and agree about both widths."""
    linear.check_arrays(sae, ("b_enc_S",), ("threshold",), d_out=d_out, hint=hint)


def encode(sae: BatchTopKSae, x_ND: jax.Array) -> jax.Array:
    """Latents of float32 activations; any leading axes, or none."""
    pre_NS = jax.nn.relu(linear.pre_activations(sae.W_enc_DS, sae.b_enc_S, x_ND))
    return jnp.where(pre_NS > sae.threshold, pre_NS, 0.0)


def decode(sae: BatchTopKSae, z_NS: jax.Array) -> jax.Array:
    """The reconstruction from the latents."""
    return linear.reconstruct(sae.W_dec_SD, sae.b_dec_D, z_NS)


def take(sae: BatchTopKSae, index_K) -> BatchTopKSae:
    """The autoencoder of some latents only: encoding with it gives those columns of `z_NS`."""
    return linear.take(sae, index_K, {"b_enc_S": 0})
