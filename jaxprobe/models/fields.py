"""Numbers and switches as model files state them: of the type and range that is meant, or refused by name."""

from typing import Any

import numpy as np

# Far above any published model's, and small enough that what is made of them costs nothing before they are
# compared with the tensors.
MOST_WIDTH, MOST_BLOCKS, MOST_HEADS, MOST_HEAD_WIDTH = 1 << 20, 1 << 14, 1 << 14, 1 << 16
MOST_MLP, MOST_WORDS, MOST_TOKENS = 1 << 24, 1 << 28, 1 << 40


def whole(name: str, value: Any, most: int, least: int = 1) -> int:
    """A whole number from `least` to `most`.

    Raises:
        ValueError: Anything else; a boolean and 4.0 are none.
    """
    if type(value) is not int or not least <= value <= most:
        raise ValueError(
            f"`{name}` must be a whole number from {least} to {most:,}, got {shown(value)}"
        )
    return value


def real(name: str, value: Any, above: float = 0.0) -> float:
    """A number above `above` that is finite, and not zero, in float32.

    Raises:
        ValueError: Anything else; a boolean is none.
    """
    if type(value) in (int, float) and above < value < 3.4e38 and np.float32(value) > above:
        return float(value)
    raise ValueError(f"`{name}` must be a finite number above {above:g}, got {shown(value)}")


def flag(name: str, value: Any) -> bool:
    """True or false, where nothing stands for false.

    Raises:
        ValueError: Anything else; 0, 1 and words are none.
    """
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"`{name}` must be true or false, got {shown(value)}")
    return bool(value)


def table(name: str, value: Any) -> dict[str, Any]:
    """An object of fields, where nothing stands for none.

    Raises:
        ValueError: Anything else.
    """
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"`{name}` must be an object, got {shown(value)}")
    return dict(value or {})


def word(name: str, value: Any) -> str:
    """A string.

    Raises:
        ValueError: Anything else.
    """
    if not isinstance(value, str):
        raise ValueError(f"`{name}` must be a string, got {shown(value)}")
    return value


def shown(value: Any) -> str:
    """A value for a message, cut where it is long."""
    if type(value) is int and value.bit_length() > 128:
        return f"a number of {value.bit_length()} bits"  # printing it could take long
    if isinstance(value, list | tuple | dict) and len(value) > 8:
        return f"{type(value).__name__} of {len(value)} entries"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
