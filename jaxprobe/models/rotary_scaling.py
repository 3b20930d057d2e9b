"""How published models stretch their rotation beyond the context of their first training.

linear, llama3 and yarn divide each frequency by a constant. longrope and dynamic depend on how long a
prompt is, and there each row counts by its own real tokens: the numbers are those of the prompt run
alone, whatever it is batched with and however it is padded.
"""

import dataclasses
import math

import jax.numpy as jnp
from penzai import pz

from jaxprobe.models.rotary import Rotary, divided, plain_frequencies


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class YarnRotary(Rotary):
    """Yarn: `divisors` from `yarn_divisors`, and heads that grow.

    Attributes:
        attention_factor: The growth.

    References:
        Peng et al., YaRN: Efficient Context Window Extension of Large Language Models, 2023.
    """

    attention_factor: float

    @property
    def magnitude(self) -> float:
        """Factor on the part of a head that turns."""
        return self.attention_factor


@dataclasses.dataclass(frozen=True, kw_only=True)
class LongRotary(YarnRotary):
    """Longrope: `divisors` for prompts of at most `context` tokens, others for longer ones.

    Attributes:
        long_divisors: What the frequencies of longer prompts are divided by.
        context: Tokens of the context that the model was first trained on.

    References:
        Ding et al., LongRoPE: Extending LLM Context Window Beyond 2 Million Tokens, 2024.
    """

    long_divisors: tuple[float, ...]
    context: int

    def frequencies(self, length: pz.nx.NamedArray) -> pz.nx.NamedArray:
        """Radians per position, {batch, half}."""
        plain = plain_frequencies(self.base, self.width)
        short, long = (
            pz.nx.wrap(divided(plain, divisors), "half")
            for divisors in (self.divisors, self.long_divisors)
        )
        return pz.nx.nmap(jnp.where)(length > self.context, long, short)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DynamicRotary(Rotary):
    """Dynamic NTK scaling: a base that grows with the prompt beyond `context` tokens.

    Attributes:
        factor: How fast it grows.
        context: Tokens up to which nothing changes.
    """

    factor: float
    context: int

    def frequencies(self, length: pz.nx.NamedArray) -> pz.nx.NamedArray:
        """Radians per position, {batch, half}."""

        def of_row(tokens):
            longest = jnp.maximum(tokens, self.context).astype(jnp.float32)
            stretch = self.factor * longest / self.context - (self.factor - 1.0)
            base = self.base * stretch ** (self.width / (self.width - 2))
            return plain_frequencies(base, self.width)

        return pz.nx.nmap(of_row)(length).tag("half")


def yarn_divisors(
    width: int,
    base: float,
    *,
    factor: float,
    context: int,
    fast: float,
    slow: float,
    whole: bool = True,
) -> tuple[float, ...]:
    """Yarn's scaling: as llama3's, but the ramp is linear in a frequency's number.

    Args:
        width: Entries of a head that turn.
        base: Base of the wavelengths.
        factor: What frequencies of few turns are divided by.
        context: Tokens of the context that the model was first trained on.
        fast: `beta_fast`; frequencies that turn more often than this in the context are kept.
        slow: `beta_slow`; those that turn less often are divided by `factor`.
        whole: `truncate`: whether the ramp starts and ends at whole numbers.
    """

    def number(turns: float) -> float:
        return width * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(base))

    first, last = number(fast), number(slow)
    if whole:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, width - 1)
    span = last - first or 0.001
    divisors = []
    for index in range(width // 2):
        share = min(1.0, max(0.0, (index - first) / span))  # of the divided frequency
        divisors.append(1.0 / (share / factor + 1.0 - share))
    return tuple(divisors)


def yarn_growth(factor: float, scale: float = 1.0) -> float:
    """Yarn's growth of heads for a context that is `factor` times as long, 1 below that."""
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0
