"""A config's sections as dataclasses: types, ranges and finiteness are checked before any work."""

import dataclasses
import math
import numbers
import types
import typing
from collections.abc import Mapping
from typing import Any

from jaxprobe import checks

_INTS, _SEEDS = 2**31 - 1, 2**32 - 1  # sizes index arrays in int32, seeds are NumPy's
_COUNT = (1, _INTS)
# Key of any section -> lowest and highest value, of each entry where it is a tuple. What depends on two
# keys is checked by the stages' own `check_config`.
RANGES: Mapping[str, tuple[float, float]] = {
    "max_length": _COUNT,
    "buckets": _COUNT,
    "batch_tokens": _COUNT,
    "mesh": _COUNT,
    "d_sae": _COUNT,
    "target_l0": (0, _INTS),
    "num_tokens": (1, 2**53),
    "batch_size": _COUNT,
    "learning_rate": (0, 1e6),
    "bandwidth": (0, 1e6),
    "held_out": (0, 1),
    "max_gib": (0, 2**30),
    "checkpoint_seconds": (0, 2**53),
    "num_devices": (0, _INTS),
    "seed": (0, _SEEDS),
    "max_latents": _COUNT,
    "random_latents": (0, _INTS),
    "num_latents": _COUNT,
    "regime_num_latents": _COUNT,
    "memory_gib": (0, 2**30),
    "workers": _COUNT,
}


def build(kind: type, section: str, values: Mapping[str, Any]) -> Any:
    """The dataclass `kind` from a section's values; lists become tuples, whole numbers floats where wanted.

    Raises:
        ValueError: An unknown key, a value of another type, one out of its range or not finite, or an
            entry twice; the key is named.
    """
    hints = typing.get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]
    for key in values:
        checks.check_choice(f"key of config.{section}", key, known)
    return kind(
        **{
            k: checked(f"config.{section}.{k}", v, hints[k], RANGES.get(k))
            for k, v in values.items()
        }
    )


def checked(name: str, value: Any, wanted: Any, span: tuple[float, float] | None = None) -> Any:
    """A value as its type wants it.

    Args:
        name: The key, for the message.
        value: What the config says.
        wanted: str, bool, int, float, a tuple of one of them, or one of these or None.
        span: Lowest and highest number.

    Raises:
        ValueError: It has another type, is out of range or not finite, or holds an entry twice.
    """
    if isinstance(wanted, types.UnionType) or typing.get_origin(wanted) is typing.Union:
        if value is None:
            return None
        (wanted,) = (kind for kind in typing.get_args(wanted) if kind is not type(None))
    if typing.get_origin(wanted) is tuple:
        return _tuple(name, value, typing.get_args(wanted), span)
    converted = _plain(value, wanted)
    if converted is None:
        raise ValueError(f"`{name}` must be {_WORDS[wanted]}, got {value!r}")
    if span is not None and not span[0] <= converted <= span[1]:
        raise ValueError(f"`{name}` must lie between {span[0]:,} and {span[1]:,}, got {value!r}")
    return converted


_WORDS = {
    str: "a text",
    bool: "True or False",
    int: "a whole number",
    float: "a finite number",
}


def _plain(value: Any, wanted: type) -> Any:
    """The value as `wanted`; None where it is none."""
    if wanted in (str, bool):
        return value if isinstance(value, wanted) else None
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    if wanted is int:
        return int(value) if isinstance(value, numbers.Integral) else None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _tuple(name: str, value: Any, kinds: tuple, span: tuple[float, float] | None) -> tuple:
    if not isinstance(value, list | tuple):
        raise ValueError(
            f"`{name}` must be several values in brackets, got {value!r}; write ({value!r},)"
        )
    fixed = kinds[-1] is not Ellipsis
    if fixed and len(value) != len(kinds):
        raise ValueError(f"`{name}` must hold {len(kinds)} values, got {value!r}")
    found = tuple(checked(name, one, kinds[0], span) for one in value)
    twice = [one for one in dict.fromkeys(found) if found.count(one) > 1]
    if twice and not fixed:
        raise ValueError(f"`{name}` names {twice[0]!r} twice; name it once")
    return found
