"""The JumpReLU sparse autoencoder: a pytree, its encode and decode, and its random control.

    pre = x W_enc + b_enc        z = relu(pre) * [pre > threshold]        x_hat = z W_dec + b_dec

The decoder's bias is not subtracted before encoding (Gemma Scope's convention).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxprobe import checks
from jaxprobe.saes import linear

CONTROL_BLOCK = 1024  # latents of the random control that are drawn and measured at once


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class JumpReluSae(linear.Widths):
    """Weights, all float32.

    Attributes:
        W_enc_DS: Encoder, one column per latent.
        b_enc_S: Encoder bias.
        W_dec_SD: Decoder, one row per latent.
        b_dec_D: Decoder bias.
        threshold_S: A latent is active where its pre-activation is strictly above this.

    References:
        Rajamanoharan et al., Jumping Ahead: Improving Reconstruction Fidelity with JumpReLU
        Sparse Autoencoders, 2024.
    """

    W_enc_DS: jax.Array
    b_enc_S: jax.Array
    W_dec_SD: jax.Array
    b_dec_D: jax.Array
    threshold_S: jax.Array


def check_sae(sae: JumpReluSae, hint: str = "", d_out: int | None = None) -> None:
    """Raises ValueError unless all five arrays are float32 and agree about both widths."""
    linear.check_arrays(sae, ("b_enc_S", "threshold_S"), d_out=d_out, hint=hint)


def encode(sae: JumpReluSae, x_ND: jax.Array) -> jax.Array:
    """Latents of activations.

    Args:
        sae: The autoencoder.
        x_ND: float32 raw activations of the model; any leading axes, or none.

    Returns:
        float32 z_NS, zero where a latent is not active.
    """
    pre_NS = linear.pre_activations(sae.W_enc_DS, sae.b_enc_S, x_ND)
    active_NS = pre_NS > linear.last_axis(sae.threshold_S, x_ND.ndim)
    return jnp.where(active_NS, jax.nn.relu(pre_NS), 0.0)


def decode(sae: JumpReluSae, z_NS: jax.Array) -> jax.Array:
    """The reconstruction from the latents: float32 x_ND, with the leading axes of `z_NS`."""
    return linear.reconstruct(sae.W_dec_SD, sae.b_dec_D, z_NS)


def take(sae: JumpReluSae, index_K) -> JumpReluSae:
    """The autoencoder of some latents only: encoding with it gives those columns of `z_NS`.

    Args:
        sae: The whole autoencoder.
        index_K: Latent numbers, or a slice for adjacent latents (no copy of the rest).

    Returns:
        The same type with d_sae = K; its reconstruction lacks the other latents.
    """
    return linear.take(sae, index_K, {"b_enc_S": 0, "threshold_S": 0})


def random_like(
    sae: linear.Widths,
    x_ND: jax.Array,
    key: jax.Array,
    encode_block: Callable[[int, int], jax.Array] | None = None,
) -> JumpReluSae:
    """The control: random directions, each active as often as the latent that it replaces.

    Latent s reads a random unit direction of the centred activations, and its threshold is the
    quantile of its own pre-activation at which it is active on exactly as many rows of `x_ND` as
    latent s of `sae`. So the control agrees with `sae` in shape, in L0 and in the distribution of
    latents' frequencies; only the latents' meaning is random.

    Args:
        sae: The autoencoder to imitate: a `JumpReluSae`, or any that comes with `encode_block`.
        x_ND: float32 activations on which the frequencies are matched.
        key: Random key; latents are drawn in blocks whose keys are folded from it.
        encode_block: `(start, stop) -> z_NB`, the latents of `x_ND` in that range.

    Returns:
        A `JumpReluSae` with unit-norm encoder columns equal to its decoder rows.
    """
    checks.check_shape("x_ND", x_ND, (None, sae.d_model), "is it from another model?")
    x_ND = jnp.asarray(x_ND)
    mean_D = x_ND.mean(axis=0)
    if encode_block is None:
        if not isinstance(sae, JumpReluSae):
            raise TypeError(f"a {type(sae).__name__} must come with its `encode_block`, got none")
        whole = sae
        encode_block = lambda start, stop: encode(take(whole, slice(start, stop)), x_ND)
    blocks = []
    for start in range(0, sae.d_sae, CONTROL_BLOCK):
        stop = min(start + CONTROL_BLOCK, sae.d_sae)
        z_NB = encode_block(start, stop)
        block_key = jax.random.fold_in(key, start // CONTROL_BLOCK)
        blocks.append(_random_block((z_NB != 0).sum(axis=0), x_ND, mean_D, block_key))
    W_dec_SD, b_enc_S, threshold_S = (jnp.concatenate(part) for part in zip(*blocks, strict=True))
    return JumpReluSae(
        W_enc_DS=W_dec_SD.T,
        b_enc_S=b_enc_S,
        W_dec_SD=W_dec_SD,
        b_dec_D=mean_D,
        threshold_S=threshold_S,
    )


@jax.jit
def _random_block(count_S: jax.Array, x_ND: jax.Array, mean_D: jax.Array, key: jax.Array):
    """Directions, biases and thresholds of one block of the control; latent s is active on `count_S` rows."""
    r_SD = jax.random.normal(key, (count_S.shape[0], x_ND.shape[1]), jnp.float32)
    r_SD = r_SD / jnp.linalg.norm(r_SD, axis=1, keepdims=True)
    centred_ND = x_ND - mean_D[None, :]
    low_NS = jnp.sort(jnp.matmul(centred_ND, r_SD.T), axis=0)
    # Half-way between the last row that shall be active and the first that shall not, so that
    # rounding in a product of another shape cannot move a row across.
    num_rows = x_ND.shape[0]
    spread = low_NS[-1:] - low_NS[:1] + 1.0
    low_NS = jnp.concatenate([low_NS[:1] - spread, low_NS, low_NS[-1:] + spread])
    first_S = num_rows + 1 - count_S  # in the padded order, the first active row
    above_S = jnp.take_along_axis(low_NS, first_S[None, :], axis=0)[0]
    below_S = jnp.take_along_axis(low_NS, first_S[None, :] - 1, axis=0)[0]
    cut_S = (above_S + below_S) / 2.0
    # The relu would override a negative threshold: raise the bias instead.
    lift_S = jax.nn.relu(-cut_S)
    return r_SD, lift_S - jnp.matmul(r_SD, mean_D), cut_S + lift_S
