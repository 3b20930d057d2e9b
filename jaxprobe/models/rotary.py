"""Rotary position embedding: tables that blocks share, and the layer that turns heads by them."""

import dataclasses
import math

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


def linear_divisors(width: int, factor: float) -> tuple[float, ...] | None:
    """Every frequency divided by `factor`, as if positions were."""
    return None if factor == 1 else (float(factor),) * (width // 2)


def llama3_divisors(
    width: int, base: float, *, factor: float, low: float, high: float, context: int
) -> tuple[float, ...]:
    """Llama 3.1's scaling: long wavelengths divided by `factor`, short ones kept, a ramp between.

    Args:
        width: Entries of a head that turn.
        base: Base of the wavelengths.
        factor: What wavelengths above `context / low` are divided by.
        low: `low_freq_factor`.
        high: `high_freq_factor`; wavelengths below `context / high` are kept.
        context: Tokens of the context that the model was first trained on.
    """
    divisors = []
    for i in range(0, width, 2):
        turns = context / (2 * math.pi * base ** (i / width))  # rotations in that context
        share = min(1.0, max(0.0, (turns - low) / (high - low)))
        divisors.append(1.0 / ((1.0 - share) / factor + share))
    return tuple(divisors)


def rotary_table(positions: pz.nx.NamedArray, rotary: Rotary):
    """Cosines and sines of every position's angles.

    Args:
        positions: int32 positions under any named axes.
        rotary: Which angles.

    Returns:
        Two float32 named arrays {.., half}: cosines and sines.
    """
    exponent = jnp.arange(0, rotary.width, 2, dtype=jnp.float32) / rotary.width
    frequency = 1.0 / (jnp.float32(rotary.base) ** exponent)
    if rotary.divisors is not None:
        frequency = frequency / jnp.asarray(rotary.divisors, jnp.float32)
    angle = positions.astype(jnp.float32) * pz.nx.wrap(frequency, "half")
    return pz.nx.nmap(jnp.cos)(angle), pz.nx.nmap(jnp.sin)(angle)


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
