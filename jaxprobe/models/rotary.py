"""Rotary position embedding: tables that blocks share, and the layer that turns heads by them."""

import dataclasses

import jax.numpy as jnp
from penzai import pz

STATIC = {"pytree_node": False}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rotary:
    """How a head turns with its position.

    Attributes:
        base: Base of the wavelengths.
        width: Leading entries of a head that turn, an even number; the others stay.
        divisors: What each of the `width // 2` frequencies is divided by; None for no scaling.
    """

    base: float
    width: int
    divisors: tuple[float, ...] | None = None

    @property
    def magnitude(self) -> float:
        """Factor on the part of a head that turns."""
        return 1.0

    def frequencies(self, length: pz.nx.NamedArray) -> pz.nx.NamedArray:
        """Radians per position.

        Args:
            length: int32 counts of real tokens, named {batch}.

        Returns:
            float32 {half}, or {batch, half} where they depend on the length.
        """
        del length
        return pz.nx.wrap(divided(plain_frequencies(self.base, self.width), self.divisors), "half")


def plain_frequencies(base, width: int) -> jnp.ndarray:
    """Frequencies without scaling, `width // 2` of them for each entry of `base`."""
    exponent = jnp.arange(0, width, 2, dtype=jnp.float32) / width
    return 1.0 / (jnp.asarray(base, jnp.float32)[..., None] ** exponent)


def divided(frequency: jnp.ndarray, divisors: tuple[float, ...] | None) -> jnp.ndarray:
    """Frequencies over their divisors."""
    return frequency if divisors is None else frequency / jnp.asarray(divisors, jnp.float32)


def rotary_table(positions: pz.nx.NamedArray, length: pz.nx.NamedArray, rotary: Rotary):
    """Cosines and sines of every position's angles, times the rotation's magnitude.

    Args:
        positions: int32 positions under any named axes.
        length: int32 counts of each row's real tokens, named {batch}.
        rotary: Which angles.

    Returns:
        Two float32 named arrays {.., half}: cosines and sines.
    """
    angle = positions.astype(jnp.float32) * rotary.frequencies(length)
    cos, sin = pz.nx.nmap(jnp.cos)(angle), pz.nx.nmap(jnp.sin)(angle)
    if rotary.magnitude == 1.0:
        return cos, sin
    return cos * rotary.magnitude, sin * rotary.magnitude


@pz.pytree_dataclass
class Rotate(pz.nn.Layer):
    """Rotary position embedding of the `projection` axis, from tables that blocks share.

    Attributes:
        rotary: Which table.
        positions_name: Side input whose positions the `seq` axis stands for.
    """

    rotary: Rotary = dataclasses.field(metadata=STATIC)
    positions_name: str = dataclasses.field(default="token_positions", metadata=STATIC)

    def __call__(self, x: pz.nx.NamedArray, *, tables, **_unused) -> pz.nx.NamedArray:
        """Rotates the pairs (i, i + width / 2) by their position's angles."""
        cos, sin = tables[self.positions_name, self.rotary]
        kept = [name for name in x.named_axes if name != "projection"]
        values = x.unwrap(*kept, "projection")
        turning, still = jnp.split(values, [self.rotary.width], axis=-1)
        pairs = turning.reshape(*turning.shape[:-1], 2, -1)
        low, high = (pz.nx.wrap(pairs[..., i, :], *kept, "half") for i in (0, 1))
        turned = (low * cos - high * sin, high * cos + low * sin)
        # Stacked, not concatenated: XLA runs that as one pass over memory, at twice the speed.
        halves = jnp.stack([half.unwrap(*kept, "half") for half in turned], axis=-2)
        out = halves.reshape(turning.shape)
        if still.shape[-1]:
            out = jnp.concatenate([out, still], axis=-1)
        return pz.nx.wrap(out, *kept, "projection")
