"""The standard sparse autoencoder: a pytree, its encode and decode.

z = relu(x W_enc + b_enc)        x_hat = z W_dec + b_dec
"""

import dataclasses

import jax

from jaxprobe.saes import linear


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ReluSae(linear.Widths):
    """Weights, all float32.

    Attributes:
        W_enc_DS: Encoder, one column per latent.
        b_enc_S: Encoder bias.
        W_dec_SD: Decoder, one row per latent.
        b_dec_D: Decoder bias.

    References:
        Bricken et al., Towards Monosemanticity, 2023.
    """

    W_enc_DS: jax.Array
    b_enc_S: jax.Array
    W_dec_SD: jax.Array
    b_dec_D: jax.Array


def check_sae(sae: ReluSae, hint: str = "", d_out: int | None = None) -> None:
    """Raises ValueError unless all arrays are float32 and agree about both widths."""
    linear.check_arrays(sae, ("b_enc_S",), d_out=d_out, hint=hint)


def encode(sae: ReluSae, x_ND: jax.Array) -> jax.Array:
    """Latents of float32 activations; any leading axes, or none."""
    return jax.nn.relu(linear.pre_activations(sae.W_enc_DS, sae.b_enc_S, x_ND))


def decode(sae: ReluSae, z_NS: jax.Array) -> jax.Array:
    """The reconstruction from the latents."""
    return linear.reconstruct(sae.W_dec_SD, sae.b_dec_D, z_NS)


def take(sae: ReluSae, index_K) -> ReluSae:
    """The autoencoder of some latents only: encoding with it gives those columns of `z_NS`."""
    return linear.take(sae, index_K, {"b_enc_S": 0})
