"""One encode and decode before all architectures, whole or a block of latents at a time."""

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
    """What is known of an architecture; exactly one of `take` and `keep` is given.

    Attributes:
        name: What files and messages call it.
        check: Raises ValueError for arrays that do not fit together.
        encode: Latents of activations.
        decode: Activations of latents.
        take: The autoencoder of some latents, where a latent does not depend on the others.
        keep: Each row's latents, where it does.
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
    """What is known of the architecture of an autoencoder, framed or not.

    Raises:
        TypeError: It is not one.
    """
    core = core_of(sae)
    if type(core) not in ARCHITECTURES:
        known = ", ".join(kind.__name__ for kind in ARCHITECTURES)
        raise TypeError(f"an SAE is one of {known}, framed or not; got {type(core).__name__}")
    return ARCHITECTURES[type(core)]


def core_of(sae) -> Any:
    """The autoencoder without its frame."""
    return sae.core if isinstance(sae, framed.FramedSae) else sae


def encode(sae, x_ND) -> jax.Array:
    """Latents of activations. Traceable under jit, vmap and grad.

    Args:
        sae: An autoencoder of any architecture.
        x_ND: float32 activations as the model makes them; any leading axes, or none.

    Returns:
        float32 z_NS, 0 where a latent is not active.

    Raises:
        ValueError: Activations of another width.
    """
    x_ND = _checked(sae, x_ND)
    return architecture(sae).encode(core_of(sae), x_ND)


def decode(sae, z_NS, x_ND=None) -> jax.Array:
    """Activations that latents stand for; of a transcoder, those of its output.

    Args:
        sae: An autoencoder of any architecture.
        z_NS: Its latents; any leading axes, or none.
        x_ND: The activations that were encoded. Needed where decoding depends on them: with a
            skip connection, or where each row was normalised.

    Raises:
        ValueError: They are needed and were not given, or the last axes are not the SAE's.
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
                f"`x_ND` must have the shape {wanted} of what `z_NS` was encoded from, got {x_ND.shape}"
            )
    y_ND = architecture(sae).decode(core_of(sae), z_NS)
    return framed.leave(sae, y_ND, x_ND) if isinstance(sae, framed.FramedSae) else y_ND


def encode_block(sae, x_ND, start: int, stop: int) -> jax.Array:
    """Latents `start` to `stop`, without the others where they do not depend on them.

    For many blocks of the same rows, `prepare` once.
    """
    return prepare(sae, x_ND)(start, stop)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockEncoder:
    """Any latents of fixed rows: `encoder(start, stop) -> z_NB`, `encoder.columns(index_K) -> z_NK`.

    Attributes:
        core: The autoencoder without its frame, where latents are independent; else None.
        inner_ND: What its encoder reads.
        kept: Each row's latents, where they depend on each other; else None.
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
    """Makes rows ready to be encoded by blocks of latents, in memory O(N k) beside a block.

    Args:
        sae: An autoencoder of any architecture.
        x_ND: float32 [N, D].

    Raises:
        ValueError: Activations of another width.
    """
    checks.check_shape("x_ND", x_ND, (None, sae.d_model), "is it from another model or site?")
    core, inner_ND = core_of(sae), _checked(sae, x_ND)
    keep = architecture(sae).keep
    kept = None if keep is None else keep(core, inner_ND)
    return BlockEncoder(core=core, inner_ND=inner_ND, kept=kept, d_sae=sae.d_sae)


def random_like(sae, x_ND, key: jax.Array) -> jump_relu.JumpReluSae:
    """The control: random directions, each as often active as the latent whose place it takes.

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
    """Raises ValueError for arrays that could not be multiplied, before JAX does in its words."""
    architecture(sae)  # says what is wanted where it is none
    linear.check_shapes(core_of(sae))
    if isinstance(sae, framed.FramedSae):
        framed.check_frame(sae)
    if hasattr(core_of(sae), "k"):
        linear.check_k(core_of(sae))


def _checked(sae, x_ND) -> jax.Array:
    """What the core's encoder reads."""
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
        raise TypeError(f"latents of {type(core).__name__} depend on each other: they are kept")
    # Narrower weights are widened for these latents alone.
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
    # Where each latent stands among the columns asked for; those not asked for fall off the edge.
    width = index_K.shape[0]
    place_S = jnp.full(d_sae, width, jnp.int32)
    place_S = place_S.at[index_K].set(jnp.arange(width, dtype=jnp.int32))
    rows_N1 = jnp.arange(kept.index_NK.shape[0])[:, None]
    z_NK = jnp.zeros((kept.index_NK.shape[0], width), jnp.float32)
    z_NK = z_NK.at[rows_N1, place_S[kept.index_NK]].set(kept.value_NK, mode="drop")
    return z_NK[:, place_S[index_K]]  # a latent that is asked for twice stands in both places
