"""The scalings of rotary embeddings as `config.json` names them, by `rope_type`."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from jaxprobe.models import fields
from jaxprobe.models.rotary import Rotary
from jaxprobe.models.rotary_scaling import (
    DynamicRotary,
    LongRotary,
    YarnRotary,
    linear_divisors,
    llama3_divisors,
    yarn_divisors,
    yarn_growth,
)

_BETA_FAST, _BETA_SLOW = 32.0, 1.0  # yarn's, where a file has none


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contexts:
    """Lengths that a file states outside its rotary fields.

    Attributes:
        whole: `max_position_embeddings`.
        first: `original_max_position_embeddings`, which there overrules the rotary fields'.
    """

    whole: Any
    first: Any = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Scaling:
    """A kind of scaling.

    Attributes:
        needs: Fields that must be there.
        knows: Fields that may.
        make: From (fields, base, width); every context is an int in the fields.
    """

    needs: frozenset[str]
    knows: frozenset[str] = frozenset()
    make: Callable[[Mapping[str, Any], float, int], Rotary]


def scaled(given: Mapping[str, Any], base: float, width: int, contexts: Contexts) -> Rotary:
    """The rotation that a file's rotary fields describe.

    Args:
        given: `rope_type` (or `type`) and what belongs to it.
        base: Base of the wavelengths.
        width: Entries of a head that turn.
        contexts: What the kinds of scaling fall back to.

    Raises:
        ValueError: A kind that is not supported, or a field of it that is missing, misshapen or not
            understood.
    """
    name = given.get("rope_type", given.get("type", "default")) or "default"
    if not isinstance(name, str) or name not in _SCALINGS:
        raise ValueError(
            f"the rotary scaling `rope_type` = {fields.shown(name)} of config.json is not supported; supported"
            f" are {', '.join(_SCALINGS)}"
        )
    kind = _SCALINGS[name]
    has_factor = "factor" in given
    given = {key: value for key, value in given.items() if value is not None}
    known = {"rope_type", "type", "rope_theta", "partial_rotary_factor", *kind.needs, *kind.knows}
    unknown = sorted(set(given) - known)
    if unknown:
        raise ValueError(
            f"`{unknown[0]}` = {fields.shown(given[unknown[0]])} among the rotary fields of config.json is not"
            f" understood for rope_type {name!r}"
        )
    if contexts.whole is not None:
        given = {_FIRST: contexts.whole, **given, _WHOLE: contexts.whole}
    if contexts.first is not None:
        given[_FIRST] = contexts.first
    if name == "yarn" and has_factor and _WHOLE in given and _FIRST in given:
        given.setdefault("factor", _context(given, _WHOLE) / _context(given))  # where it is null
    absent = sorted(key for key in kind.needs if key not in given)
    if absent:
        raise ValueError(f"rope_type {name!r} of config.json needs `{absent[0]}`")
    return kind.make(given, base, width)


_WHOLE, _FIRST = "max_position_embeddings", "original_max_position_embeddings"


def _context(given: Mapping[str, Any], name: str = _FIRST) -> int:
    return fields.whole(name, given[name], fields.MOST_TOKENS, least=2)


def _real(given: Mapping[str, Any], name: str, default: float | None = None) -> float:
    return fields.real(name, given.get(name, default))


def _default(_given: Mapping[str, Any], base: float, width: int) -> Rotary:
    return Rotary(base=base, width=width)


def _linear(given: Mapping[str, Any], base: float, width: int) -> Rotary:
    return Rotary(base=base, width=width, divisors=linear_divisors(width, _real(given, "factor")))


def _llama3(given: Mapping[str, Any], base: float, width: int) -> Rotary:
    low = _real(given, "low_freq_factor")
    divisors = llama3_divisors(
        width,
        base,
        factor=_real(given, "factor"),
        low=low,
        high=fields.real("high_freq_factor", given["high_freq_factor"], above=low),
        context=_context(given),
    )
    return Rotary(base=base, width=width, divisors=divisors)


def _yarn(given: Mapping[str, Any], base: float, width: int) -> Rotary:
    factor = _real(given, "factor")
    growth = yarn_growth(factor)
    if given.get("mscale") and given.get("mscale_all_dim"):
        above, below = _real(given, "mscale"), _real(given, "mscale_all_dim")
        growth = yarn_growth(factor, above) / yarn_growth(factor, below)
    slow = _real(given, "beta_slow", _BETA_SLOW)
    divisors = yarn_divisors(
        width,
        base,
        factor=factor,
        context=_context(given),
        fast=fields.real("beta_fast", given.get("beta_fast", _BETA_FAST), above=slow),
        slow=slow,
        whole=fields.flag("truncate", given.get("truncate", True)),
    )
    return YarnRotary(
        base=base,
        width=width,
        divisors=divisors,
        attention_factor=_real(given, "attention_factor", growth),
    )


def _longrope(given: Mapping[str, Any], base: float, width: int) -> Rotary:
    first = _context(given)
    factor = _real(given, "factor", _context(given, _WHOLE) / first if _WHOLE in given else 1.0)
    growth = math.sqrt(1 + math.log(factor) / math.log(first)) if factor > 1 else 1.0
    return LongRotary(
        base=base,
        width=width,
        divisors=_list(given, "short_factor", width),
        long_divisors=_list(given, "long_factor", width),
        context=first,
        attention_factor=_real(given, "attention_factor", growth),
    )


def _dynamic(given: Mapping[str, Any], base: float, width: int) -> Rotary:
    if width < 4:
        raise ValueError(
            f"rope_type 'dynamic' of config.json needs heads of 4 or more, got {width}"
        )
    factor, context = _real(given, "factor"), _context(given, _WHOLE)
    return DynamicRotary(base=base, width=width, factor=factor, context=context)


def _list(given: Mapping[str, Any], name: str, width: int) -> tuple[float, ...]:
    values = given[name]
    if not isinstance(values, list) or len(values) != width // 2:
        got = f"{len(values)} of them" if isinstance(values, list) else fields.shown(values)
        raise ValueError(
            f"`{name}` of config.json must be a list of {width // 2} numbers, got {got}"
        )
    return tuple(fields.real(name, value) for value in values)


_SCALINGS = {
    "default": _Scaling(needs=frozenset(), make=_default),
    "linear": _Scaling(needs=frozenset({"factor"}), make=_linear),
    "llama3": _Scaling(
        needs=frozenset({"factor", "low_freq_factor", "high_freq_factor", _FIRST}), make=_llama3
    ),
    "yarn": _Scaling(
        needs=frozenset({"factor", _FIRST}),
        knows=frozenset(
            {
                *("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"),
                *("truncate", "finetuned"),  # the last says how it came about
            }
        ),
        make=_yarn,
    ),
    "longrope": _Scaling(
        needs=frozenset({"short_factor", "long_factor", _FIRST}),
        knows=frozenset({"factor", "attention_factor"}),
        make=_longrope,
    ),
    "dynamic": _Scaling(needs=frozenset({"factor", _WHOLE}), make=_dynamic),
}
