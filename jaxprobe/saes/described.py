"""What all autoencoders share: a short repr, equality, and a check that all numbers are finite."""

import dataclasses
from typing import Any

import jax
import numpy as np


class Described:
    """A dataclass of arrays that prints in one line and can be compared."""

    def __repr__(self) -> str:
        """Types and shapes of arrays, and the settings."""
        shown = (f"{name}={_shown(value)}" for name, value in _fields(self))
        return f"{type(self).__name__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        """Whether all settings and numbers are the same."""
        if self is other or type(self) is not type(other):
            return self is other
        (mine, kind), (others, other_kind) = jax.tree.flatten(self), jax.tree.flatten(other)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in (*mine, *others)):
            return False
        return kind == other_kind and all(map(np.array_equal, mine, others))

    def __hash__(self) -> int:
        """Equal autoencoders have equal hashes."""
        return hash(repr(self))


def is_finite(array: np.ndarray) -> bool:
    """Whether no number is NaN or infinite."""
    # A sum reads an array once and allocates nothing; only if it is not finite is each entry checked.
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(array.sum()) or np.isfinite(array).all())


def not_finite(array: np.ndarray, name: str) -> np.ndarray:
    """A mask of the entries that are invalid: NaN and infinities.

    In the thresholds of latents, infinity is valid: it switches a latent off. If all thresholds are
    infinite, nothing is left to encode, and they are invalid.
    """
    wrong = ~np.isfinite(array)
    if "threshold" in name and array.ndim:
        wrong &= ~np.isposinf(array) | np.isposinf(array).all()
    return wrong


def check_finite(sae, hint: str = "") -> None:
    """Raises ValueError where an autoencoder has a NaN or infinite number; names the first.

    Args:
        sae: Concrete arrays, framed or not.
        hint: Appended to the message.
    """
    for name, value in _fields(sae):
        if isinstance(value, Described):
            check_finite(value, hint)
        elif hasattr(value, "dtype") and not is_finite(array := np.asarray(value)):
            wrong = not_finite(array, name)
            if wrong.any():
                place = tuple(int(number) for number in np.argwhere(wrong)[0])
                raise ValueError(
                    f"`{name}` must be finite, got {array[place]} at index {place}"
                    f" ({int(wrong.sum())} such entries){f'; {hint}' if hint else ''}"
                )


def _fields(sae) -> list[tuple[str, Any]]:
    return [(field.name, getattr(sae, field.name)) for field in dataclasses.fields(sae)]


def _shown(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}[{','.join(map(str, value.shape))}]"
    return repr(value)
