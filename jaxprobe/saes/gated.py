"""The gated sparse autoencoder: one path decides which latents are active, another how strongly.

gate = [x W_enc + b_gate > 0]        z = gate * relu(exp(r_mag) (x W_enc) + b_mag)
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxprobe.saes import linear

_VECTORS = ("b_gate_S", "b_mag_S", "r_mag_S")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class GatedSae(linear.Widths):
    """Weights, all float32.

    Attributes:
        W_enc_DS: Encoder of both paths, one column per latent.
        b_gate_S: Bias of the gate.
        b_mag_S: Bias of the magnitude.
        r_mag_S: Logarithm of the magnitude's gain over the gate.
        W_dec_SD: Decoder, one row per latent.
        b_dec_D: Decoder bias.

    References:
        Rajamanoharan et al., Improving Dictionary Learning with Gated Sparse Autoencoders, 2024.
    """

    W_enc_DS: jax.Array
    b_gate_S: jax.Array
    b_mag_S: jax.Array
    r_mag_S: jax.Array
    W_dec_SD: jax.Array
    b_dec_D: jax.Array


def check_sae(sae: GatedSae, hint: str = "", d_out: int | None = None) -> None:
    """Raises ValueError unless all arrays are float32 and agree about both widths."""
    linear.check_arrays(sae, _VECTORS, d_out=d_out, hint=hint)


def encode(sae: GatedSae, x_ND: jax.Array) -> jax.Array:
    """Latents of float32 activations; any leading axes, or none."""
    xw_NS = linear.product(x_ND, sae.W_enc_DS)
    b_gate_S, b_mag_S, r_mag_S = (
        linear.last_axis(getattr(sae, name), xw_NS.ndim) for name in _VECTORS
    )
    magnitude_NS = jax.nn.relu(jnp.exp(r_mag_S) * xw_NS + b_mag_S)
    return jnp.where(xw_NS + b_gate_S > 0, magnitude_NS, 0.0)


def decode(sae: GatedSae, z_NS: jax.Array) -> jax.Array:
    """The reconstruction from the latents."""
    return linear.reconstruct(sae.W_dec_SD, sae.b_dec_D, z_NS)


def take(sae: GatedSae, index_K) -> GatedSae:
    """The autoencoder of some latents only: encoding with it gives those columns of `z_NS`."""
    return linear.take(sae, index_K, dict.fromkeys(_VECTORS, 0))
