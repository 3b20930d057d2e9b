"""What all architectures share: the products before and after the activation, checks, columns."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxprobe import checks
from jaxprobe.saes.described import Described

Sae = TypeVar("Sae", bound="Widths")


def pre_activations(W_enc_DS: jax.Array, b_enc_S: jax.Array, x_ND) -> jax.Array:
    """`x W_enc + b_enc` in float32, with any leading axes of `x_ND`, or none."""
    return product(x_ND, W_enc_DS) + last_axis(b_enc_S, x_ND.ndim)


def reconstruct(W_dec_SD: jax.Array, b_dec_D: jax.Array, z_NS) -> jax.Array:
    """`z W_dec + b_dec` in float32."""
    return product(z_NS, W_dec_SD) + last_axis(b_dec_D, z_NS.ndim)


def product(a, b) -> jax.Array:
    """Matrix product in full float32 precision: by default, accelerators round the factors.

    With rounded pre-activations, other latents would be above their thresholds.
    """
    return jnp.matmul(a, b, precision="highest")


def last_axis(b_S: jax.Array, ndim: int) -> jax.Array:
    """Adds leading axes of size one, so that no rank is promoted implicitly."""
    return jnp.expand_dims(b_S, tuple(range(ndim - 1)))


def take(sae: Sae, index_K, per_latent: Mapping[str, int]) -> Sae:
    """The autoencoder of some latents only.

    Args:
        sae: A dataclass of arrays.
        index_K: Latent numbers, or a slice for adjacent latents.
        per_latent: The axis of latents, by field; other fields stay.
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
        d_out: Width of the reconstruction; by default, the width of the input.
        hint: Appended to the message.
    """
    check_shapes(sae, hint)
    d_model, d_sae = sae.W_enc_DS.shape
    d_out = d_model if d_out is None else d_out
    wanted = {"W_dec_SD": (d_sae, d_out), "b_dec_D": (d_out,)}
    wanted |= {name: (d_sae,) for name in vectors} | {name: () for name in scalars}
    for name, shape in wanted.items():
        checks.check_shape(name, getattr(sae, name), shape, hint)
    for name in ("W_enc_DS", *wanted):
        if getattr(sae, name).dtype != jnp.float32:
            raise ValueError(
                f"`{name}` must be float32, got {getattr(sae, name).dtype}{_tail(hint)}"
            )


def check_shapes(sae, hint: str = "") -> None:
    """Raises ValueError unless the arrays of an autoencoder have the axes that their names say.

    Checks only what is known of a traced array too. The reconstruction may have another width than
    the input.

    Args:
        sae: A dataclass with W_enc_DS, W_dec_SD, b_dec_D and more.
        hint: Appended to the message.
    """
    fields = [f.name for f in dataclasses.fields(sae) if not f.metadata.get("static")]
    for name in fields:
        if not (hasattr(getattr(sae, name), "shape") and hasattr(getattr(sae, name), "dtype")):
            kind = type(getattr(sae, name)).__name__
            raise ValueError(f"`{name}` must be an array, got a {kind}{_tail(hint)}")
    checks.check_shape("W_enc_DS", sae.W_enc_DS, (None, None), hint)
    checks.check_shape("b_dec_D", sae.b_dec_D, (None,), hint)
    (d_model, d_sae), (d_out,) = sae.W_enc_DS.shape, sae.b_dec_D.shape
    if not (d_model and d_sae and d_out):
        raise ValueError(
            f"`W_enc_DS` must have rows and columns, got {d_model, d_sae}{_tail(hint)}"
        )
    axes = {"DS": (d_model, d_sae), "SD": (d_sae, d_out), "S": (d_sae,), "D": (d_out,)}
    for name in fields:
        array, counts = getattr(sae, name), name == "group_S"
        checks.check_shape(name, array, axes.get(name.rpartition("_")[2], ()), hint)
        if not jnp.issubdtype(array.dtype, jnp.integer if counts else jnp.floating):
            kind = "whole" if counts else "floating-point"
            raise ValueError(f"`{name}` must hold {kind} numbers, got {array.dtype}{_tail(hint)}")


def check_k(sae, hint: str = "") -> None:
    """Raises ValueError unless `k` latents can be kept."""
    check_count("k", sae.k, sae.d_sae, hint, "d_sae")


def check_count(name: str, value: Any, most: int, hint: str = "", what: str = "") -> None:
    """Raises ValueError unless `value` is a whole number from 1 to `most`."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not (whole and 0 < value <= most):
        limit = f"{what} = {most}" if what else f"{most}"
        raise ValueError(f"`{name}` must lie between 1 and {limit}, got {value!r}{_tail(hint)}")


def _tail(hint: str) -> str:
    return f"; {hint}" if hint else ""


def scatter(value_NK: jax.Array, index_NK: jax.Array, width: int) -> jax.Array:
    """float32 [..., width] with the values at their indices (distinct within a row), else 0."""
    lead = value_NK.shape[:-1]
    rows = math.prod(lead)
    value_MK, index_MK = (a.reshape(rows, a.shape[-1]) for a in (value_NK, index_NK))
    row_M1 = jnp.arange(rows)[:, None]
    z_MS = jnp.zeros((rows, width), value_NK.dtype).at[row_M1, index_MK].set(value_MK, mode="drop")
    return z_MS.reshape(*lead, width)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Widths(Described):
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
