"""One encode and decode for all architectures, whole or a block of latents at a time."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxprobe import checks
from jaxprobe.saes import (
    batch_topk,
    framed,
    gated,
    groupmax,
    jump_relu,
    linear,
    matryoshka,
    relu,
    topk,
)
from jaxprobe.saes.topk import Kept


class Architecture(NamedTuple):
    """The functions of an architecture; exactly one of `take` and `keep` is given.

    Attributes:
        name: Its name in files and messages.
        check: Raises ValueError for arrays that do not fit together.
        encode: Latents of activations.
        decode: Reconstructions from latents.
        take: The autoencoder of some latents, where latents are independent of each other.
        keep: Each row's active latents, where they depend on each other.
    """

    name: str
    check: Callable
    encode: Callable
    decode: Callable
    take: Callable | None = None
    keep: Callable | None = None


def _architecture(name: str, module) -> Architecture:
    take, keep = (getattr(module, part, None) for part in ("take", "keep"))
    return Architecture(name, module.check_sae, module.encode, module.decode, take, keep)


ARCHITECTURES: dict[type, Architecture] = {
    jump_relu.JumpReluSae: _architecture("jump_relu", jump_relu),
    relu.ReluSae: _architecture("relu", relu),
    topk.TopKSae: _architecture("topk", topk),
    batch_topk.BatchTopKSae: _architecture("batch_topk", batch_topk),
    gated.GatedSae: _architecture("gated", gated),
    matryoshka.MatryoshkaSae: _architecture("matryoshka", matryoshka),
    groupmax.GroupMaxSae: _architecture("groupmax", groupmax),
}


def architecture(sae) -> Architecture:
    """The architecture of an autoencoder, framed or not.

    Raises:
        TypeError: `sae` is not an autoencoder.
    """
    core = core_of(sae)
    if type(core) not in ARCHITECTURES:
        known = ", ".join(kind.__name__ for kind in ARCHITECTURES)
        raise TypeError(f"an SAE must be one of {known}, framed or not, got {type(core).__name__}")
    return ARCHITECTURES[type(core)]


def core_of(sae) -> Any:
    """The autoencoder without its frame."""
    return sae.core if isinstance(sae, framed.FramedSae) else sae


def encode(sae, x_ND) -> jax.Array:
    """Latents of activations. Traceable under jit, vmap and grad.

    Args:
        sae: An autoencoder of any architecture.
        x_ND: float32 raw activations of the model; any leading axes, or none.

    Returns:
        float32 z_NS, 0 where a latent is not active.

    Raises:
        ValueError: The width of `x_ND` is not `sae.d_model`.
    """
    x_ND = _checked(sae, x_ND)
    return architecture(sae).encode(core_of(sae), x_ND)


def decode(sae, z_NS, x_ND=None) -> jax.Array:
    """Reconstructed activations; for a transcoder, those of its output stream.

    Args:
        sae: An autoencoder of any architecture.
        z_NS: Its latents; any leading axes, or none.
        x_ND: The activations that were encoded. Needed where decoding depends on them: with a
            skip connection, or where each row was normalised.

    Raises:
        ValueError: `x_ND` is needed and missing, or the last axes do not fit the SAE.
    """
    _check_shapes(sae)
    z_NS = jnp.asarray(z_NS)
    if z_NS.ndim == 0 or z_NS.shape[-1] != sae.d_sae:
        raise ValueError(
            f"`z_NS` must have d_sae = {sae.d_sae} as its last axis, got shape {z_NS.shape}; is it"
            " from another SAE?"
        )
    if x_ND is not None:
        x_ND = jnp.asarray(x_ND)
        wanted = (*z_NS.shape[:-1], sae.d_model)
        if x_ND.shape != wanted:
            raise ValueError(
                f"`x_ND` must be what `z_NS` was encoded from, of shape {wanted}, got {x_ND.shape}"
            )
    y_ND = architecture(sae).decode(core_of(sae), z_NS)
    return framed.leave(sae, y_ND, x_ND) if isinstance(sae, framed.FramedSae) else y_ND


def encode_block(sae, x_ND, start: int, stop: int) -> jax.Array:
    """Latents `start` to `stop`; where latents are independent, the others are not computed.

    For many blocks of the same rows, call `prepare` once.
    """
    return prepare(sae, x_ND)(start, stop)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockEncoder:
    """Any latents of fixed rows: `encoder(start, stop) -> z_NB`, `encoder.columns(index_K) -> z_NK`.

    Attributes:
        core: The autoencoder without its frame, where latents are independent; else None.
        inner_ND: The input of its encoder.
        kept: Each row's active latents, where they depend on each other; else None.
        d_sae: Number of latents.
    """

    core: Any
    inner_ND: jax.Array
    kept: Kept | None
    d_sae: int

    def __call__(self, start: int, stop: int) -> jax.Array:
        """float32 z_NB, the latents of all rows from `start` to before `stop`."""
        stop = min(stop, self.d_sae)
        if self.kept is None:
            return self.columns(jnp.arange(start, stop))
        return _kept_block(self.kept, start, size=stop - start)

    def columns(self, index_K) -> jax.Array:
        """float32 z_NK, these latents of all rows."""
        index_K = jnp.asarray(index_K)
        if self.kept is None:
            return _encode_columns(self.core, self.inner_ND, index_K)
        return _kept_columns(self.kept, index_K, d_sae=self.d_sae)


def prepare(sae, x_ND) -> BlockEncoder:
    """Prepares rows for encoding by blocks of latents, in memory O(N k) plus one block.

    Args:
        sae: An autoencoder of any architecture.
        x_ND: float32 [N, D].

    Raises:
        ValueError: The width of `x_ND` is not `sae.d_model`.
    """
    checks.check_shape("x_ND", x_ND, (None, sae.d_model), "is it from another model or site?")
    core, inner_ND = core_of(sae), _checked(sae, x_ND)
    keep = architecture(sae).keep
    kept = None if keep is None else keep(core, inner_ND)
    return BlockEncoder(core=core, inner_ND=inner_ND, kept=kept, d_sae=sae.d_sae)


def random_like(sae, x_ND, key: jax.Array) -> jump_relu.JumpReluSae:
    """The control: random directions, each active as often as the latent that it replaces.

    See `jump_relu.random_like`; `sae` may be of any architecture.
    """
    x_ND = jnp.asarray(x_ND)
    return jump_relu.random_like(sae, x_ND, key, prepare(sae, x_ND))


def check_sae(sae, hint: str = "", d_out: int | None = None) -> None:
    """Raises ValueError unless the (concrete) arrays of an autoencoder fit together."""
    architecture(sae).check(core_of(sae), hint, d_out)
    if isinstance(sae, framed.FramedSae):
        framed.check_frame(sae, hint)


def _check_shapes(sae) -> None:
    """Raises ValueError for arrays that cannot be multiplied, with a clearer message than JAX's."""
    architecture(sae)  # raises TypeError for anything else
    linear.check_shapes(core_of(sae))
    if isinstance(sae, framed.FramedSae):
        framed.check_frame(sae)
    if hasattr(core_of(sae), "k"):
        linear.check_k(core_of(sae))


def _checked(sae, x_ND) -> jax.Array:
    """The input of the core's encoder, checked."""
    _check_shapes(sae)
    x_ND = jnp.asarray(x_ND, jnp.float32)
    if x_ND.ndim == 0 or x_ND.shape[-1] != sae.d_model:
        raise ValueError(
            f"`x_ND` must have d_model = {sae.d_model} as its last axis, got shape {x_ND.shape}; is"
            " it from another model or site?"
        )
    return framed.enter(sae, x_ND) if isinstance(sae, framed.FramedSae) else x_ND


@jax.jit
def _encode_columns(core, inner_ND, index_K):
    _, _, encode_core, _, take, _ = architecture(core)
    if take is None:
        raise TypeError(
            f"latents of {type(core).__name__} depend on each other; encode them with `prepare`"
        )
    # Weights in narrower formats are widened for these latents only.
    return encode_core(jax.tree.map(_widened, take(core, index_K)), inner_ND)


def _widened(array):
    return array.astype(jnp.float32) if jnp.issubdtype(array.dtype, jnp.floating) else array


@jax.jit(static_argnames="size")
def _kept_block(kept: Kept, start, *, size: int):
    place_NK = kept.index_NK - start
    place_NK = jnp.where(place_NK < 0, size, place_NK)  # a negative place counts from the end
    return linear.scatter(kept.value_NK, place_NK, size)


@jax.jit(static_argnames="d_sae")
def _kept_columns(kept: Kept, index_K, *, d_sae: int):
    # The position of each latent among the wanted columns; the others get one out of range and are dropped.
    width = index_K.shape[0]
    place_S = jnp.full(d_sae, width, jnp.int32)
    place_S = place_S.at[index_K].set(jnp.arange(width, dtype=jnp.int32))
    rows_N1 = jnp.arange(kept.index_NK.shape[0])[:, None]
    z_NK = jnp.zeros((kept.index_NK.shape[0], width), jnp.float32)
    z_NK = z_NK.at[rows_N1, place_S[kept.index_NK]].set(kept.value_NK, mode="drop")
    return z_NK[:, place_S[index_K]]  # a latent that is asked for twice is in both columns
