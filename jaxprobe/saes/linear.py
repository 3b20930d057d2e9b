"""What every architecture shares: the products before and behind its activation, checks, columns."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp

from jaxprobe import checks

Sae = TypeVar("Sae", bound="Widths")


def pre_activations(W_enc_DS: jax.Array, b_enc_S: jax.Array, x_ND) -> jax.Array:
    """`x W_enc + b_enc` in float32, with any leading axes of `x_ND`, or none."""
    return product(x_ND, W_enc_DS) + last_axis(b_enc_S, x_ND.ndim)


def reconstruct(W_dec_SD: jax.Array, b_dec_D: jax.Array, z_NS) -> jax.Array:
    """`z W_dec + b_dec` in float32."""
    return product(z_NS, W_dec_SD) + last_axis(b_dec_D, z_NS.ndim)


def product(a, b) -> jax.Array:
    """Matrix product whose factors keep all float32 digits: accelerators would round them.

    A threshold turns a rounded pre-activation into another set of active latents.
    """
    return jnp.matmul(a, b, precision="highest")


def last_axis(b_S: jax.Array, ndim: int) -> jax.Array:
    """Adds leading axes of size one, so that no rank is promoted silently."""
    return jnp.expand_dims(b_S, tuple(range(ndim - 1)))


def take(sae: Sae, index_K, per_latent: Mapping[str, int]) -> Sae:
    """The autoencoder of some latents only.

    Args:
        sae: A dataclass of arrays.
        index_K: Latent numbers, or a slice for a block of neighbours.
        per_latent: Which axis of which field counts latents; other fields stay.
    """
    columns = {"W_enc_DS": 1, "W_dec_SD": 0, **per_latent}
    parts = {
        name: getattr(sae, name)[(slice(None),) * axis + (index_K,)]
        for name, axis in columns.items()
    }
    return dataclasses.replace(sae, **parts)


def check_arrays(
    sae,
    vectors: Sequence[str],
    scalars: Sequence[str] = (),
    d_out: int | None = None,
    hint: str = "",
) -> None:
    """Raises ValueError unless all arrays are float32 and agree about their widths.

    Args:
        sae: A dataclass with W_enc_DS, W_dec_SD, b_dec_D and the fields named here.
        vectors: Fields with one entry per latent.
        scalars: Fields that are one number.
        d_out: Width of what is decoded; the width that is read unless given.
        hint: Appended to the message.
    """
    checks.check_shape("W_enc_DS", sae.W_enc_DS, (None, None), hint)
    d_model, d_sae = sae.W_enc_DS.shape
    d_out = d_model if d_out is None else d_out
    wanted = {"W_dec_SD": (d_sae, d_out), "b_dec_D": (d_out,)}
    wanted |= {name: (d_sae,) for name in vectors} | {name: () for name in scalars}
    for name, shape in wanted.items():
        checks.check_shape(name, getattr(sae, name), shape, hint)
    for name in ("W_enc_DS", *wanted):
        if getattr(sae, name).dtype != jnp.float32:
            tail = f"; {hint}" if hint else ""
            raise ValueError(f"`{name}` must be float32, got {getattr(sae, name).dtype}{tail}")


def check_k(sae, hint: str = "") -> None:
    """Raises ValueError unless `k` latents can be kept."""
    if not 0 < sae.k <= sae.d_sae:
        tail = f"; {hint}" if hint else ""
        raise ValueError(f"`k` must lie between 1 and d_sae = {sae.d_sae}, got {sae.k}{tail}")


def scatter(value_NK: jax.Array, index_NK: jax.Array, width: int) -> jax.Array:
    """float32 [..., width] with the values at their places (the rows' indices differ), else 0."""
    lead = value_NK.shape[:-1]
    rows = math.prod(lead)
    value_MK, index_MK = (a.reshape(rows, a.shape[-1]) for a in (value_NK, index_NK))
    row_M1 = jnp.arange(rows)[:, None]
    z_MS = jnp.zeros((rows, width), value_NK.dtype).at[row_M1, index_MK].set(value_MK, mode="drop")
    return z_MS.reshape(*lead, width)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Widths:
    """d_model and d_sae of an autoencoder with a matrix `W_enc_DS`."""

    W_enc_DS: jax.Array

    @property
    def d_model(self) -> int:
        """Width of the activations that it reads."""
        return self.W_enc_DS.shape[0]

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.W_enc_DS.shape[1]
