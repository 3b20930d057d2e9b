"""The scalings of rotary embeddings as `config.json` names them, by `rope_type`."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

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

    whole: int | None
    first: int | None = None


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


def scaled(fields: Mapping[str, Any], base: float, width: int, contexts: Contexts) -> Rotary:
    """The rotation that a file's rotary fields describe.

    Args:
        fields: `rope_type` (or `type`) and what belongs to it.
        base: Base of the wavelengths.
        width: Entries of a head that turn.
        contexts: What the kinds of scaling fall back to.

    Raises:
        ValueError: A kind that is not supported, or a field of it that is missing, misshapen or not
            understood.
    """
    name = fields.get("rope_type", fields.get("type", "default")) or "default"
    if name not in _SCALINGS:
        raise ValueError(
            f"the rotary scaling `rope_type` = {name!r} of config.json is not supported; supported"
            f" are {', '.join(_SCALINGS)}"
        )
    kind = _SCALINGS[name]
    given = {key: value for key, value in fields.items() if value is not None}
    known = {"rope_type", "type", "rope_theta", "partial_rotary_factor", *kind.needs, *kind.knows}
    unknown = sorted(set(given) - known)
    if unknown:
        raise ValueError(
            f"`{unknown[0]}` = {given[unknown[0]]!r} among the rotary fields of config.json is not"
            f" understood for rope_type {name!r}"
        )
    if contexts.whole is not None:
        given = {_FIRST: contexts.whole, **given, _WHOLE: contexts.whole}
    if contexts.first is not None:
        given[_FIRST] = contexts.first
    if name == "yarn" and "factor" in fields and _WHOLE in given and _FIRST in given:
        given.setdefault("factor", given[_WHOLE] / given[_FIRST])  # where it is null
    absent = sorted(key for key in kind.needs if key not in given)
    if absent:
        raise ValueError(f"rope_type {name!r} of config.json needs `{absent[0]}`")
    return kind.make(given, base, width)


_WHOLE, _FIRST = "max_position_embeddings", "original_max_position_embeddings"


def _default(_fields: Mapping[str, Any], base: float, width: int) -> Rotary:
    return Rotary(base=base, width=width)


def _linear(fields: Mapping[str, Any], base: float, width: int) -> Rotary:
    return Rotary(base=base, width=width, divisors=linear_divisors(width, float(fields["factor"])))


def _llama3(fields: Mapping[str, Any], base: float, width: int) -> Rotary:
    divisors = llama3_divisors(
        width,
        base,
        factor=float(fields["factor"]),
        low=float(fields["low_freq_factor"]),
        high=float(fields["high_freq_factor"]),
        context=int(fields[_FIRST]),
    )
    return Rotary(base=base, width=width, divisors=divisors)


def _yarn(fields: Mapping[str, Any], base: float, width: int) -> Rotary:
    factor = float(fields["factor"])
    above, below = fields.get("mscale"), fields.get("mscale_all_dim")
    growth = yarn_growth(factor)
    if above and below:
        growth = yarn_growth(factor, above) / yarn_growth(factor, below)
    divisors = yarn_divisors(
        width,
        base,
        factor=factor,
        context=int(fields[_FIRST]),
        fast=float(fields.get("beta_fast") or _BETA_FAST),
        slow=float(fields.get("beta_slow") or _BETA_SLOW),
        whole=bool(fields.get("truncate", True)),
    )
    return YarnRotary(
        base=base,
        width=width,
        divisors=divisors,
        attention_factor=float(fields.get("attention_factor", growth)),
    )


def _longrope(fields: Mapping[str, Any], base: float, width: int) -> Rotary:
    first = int(fields[_FIRST])
    factor = fields.get("factor") or fields.get(_WHOLE, first) / first
    growth = math.sqrt(1 + math.log(factor) / math.log(first)) if factor > 1 else 1.0
    return LongRotary(
        base=base,
        width=width,
        divisors=_list(fields, "short_factor", width),
        long_divisors=_list(fields, "long_factor", width),
        context=first,
        attention_factor=float(fields.get("attention_factor", growth)),
    )


def _dynamic(fields: Mapping[str, Any], base: float, width: int) -> Rotary:
    if width < 4:
        raise ValueError(
            f"rope_type 'dynamic' of config.json needs heads of 4 or more, got {width}"
        )
    factor, context = float(fields["factor"]), int(fields[_WHOLE])
    return DynamicRotary(base=base, width=width, factor=factor, context=context)


def _list(fields: Mapping[str, Any], name: str, width: int) -> tuple[float, ...]:
    values = fields[name]
    if not isinstance(values, list) or len(values) != width // 2:
        got = f"{len(values)} of them" if isinstance(values, list) else repr(values)
        raise ValueError(
            f"`{name}` of config.json must be a list of {width // 2} numbers, got {got}"
        )
    return tuple(float(value) for value in values)


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
