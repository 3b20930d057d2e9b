"""Configs as nested frozen dataclasses: defaults, types and ranges, checked before any work.

A dataclass is the schema of a config file: its fields are the keys, a field that is a dataclass is
a section. This module is independent of any experiment's keys.
"""

import dataclasses
import math
import numbers
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from jaxprobe import checks


@dataclasses.dataclass(frozen=True)
class Range:
    """Lowest and highest number allowed for a key, or for each entry of a tuple."""

    least: float
    most: float


MOST_INT = 2**31 - 1  # sizes index arrays in int32
Count = Annotated[int, Range(1, MOST_INT)]
CountOrZero = Annotated[int, Range(0, MOST_INT)]
Seed = Annotated[int, Range(0, 2**32 - 1)]  # what NumPy's generators take
Gib = Annotated[float, Range(0, 2**30)]
Seconds = Annotated[float, Range(0, 2**53)]
_WORDS = {
    str: "a text",
    bool: "True or False",
    int: "a whole number",
    float: "a finite number",
}


def keys(kind: type) -> dict[str, Any]:
    """The keys of a config dataclass and their types, ranges included."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def is_section(hint: Any) -> bool:
    """Whether a key's type is a section, a dataclass of further keys."""
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def defaults(kind: type) -> dict[str, Any]:
    """The default of every key; sections are dictionaries."""
    return dataclasses.asdict(kind())


def build(kind: type, content: Any, name: str = "config", *, root: type | None = None) -> Any:
    """A config dataclass from a file's content; absent keys take their defaults.

    Args:
        kind: A dataclass whose fields all have defaults.
        content: Keys and values; a section is a mapping, or None for its defaults. Lists become tuples,
            and whole numbers become floats where the key needs floats.
        name: The section's name, for messages.
        root: The whole config's dataclass, for messages; by default `kind`.

    Raises:
        ValueError: An unknown key; a value of another type, out of range or not finite; or an entry
            given twice. The key is named.
    """
    root, hints = root or kind, keys(kind)
    if content is not None and not isinstance(content, Mapping):
        raise ValueError(f"`{name}` must hold keys and values, got {content!r}")
    values = {}
    for key, value in (content or {}).items():
        check_key(root, kind, name, key)
        if is_section(hints[key]):
            values[key] = build(hints[key], value, f"{name}.{key}", root=root)
        else:
            values[key] = checked(f"{name}.{key}", value, hints[key])
    return kind(**values)


def check_key(root: type, kind: type, name: str, key: str) -> None:
    """Raises ValueError for a key that a section lacks; the message lists the keys that it has.

    Args:
        root: The whole config's dataclass: if another section has the key, the message says so.
        kind: The section's dataclass.
        name: The section's name, for the message.
        key: The key.
    """
    try:
        checks.check_choice(f"key of {name}", key, keys(kind))
    except ValueError as error:
        places = [where for where, section in _sections(root) if key in keys(section)]
        hint = f"; {key!r} is a key of {' and of '.join(places)}" if places else ""
        raise ValueError(f"{error}{hint}") from None


def check_path(root: type, path: str) -> None:
    """Raises ValueError for a dotted key such as `fit.baselines` that a config does not have."""
    kind, name = root, "config"
    for key in path.split("."):
        if not is_section(kind):
            raise ValueError(f"`{name}` is a value and has no key {key!r}")
        check_key(root, kind, name, key)
        kind, name = keys(kind)[key], f"{name}.{key}"


def _sections(kind: type, name: str = "config") -> Iterator[tuple[str, type]]:
    yield name, kind
    for key, hint in keys(kind).items():
        if is_section(hint):
            yield from _sections(hint, f"{name}.{key}")


def checked(name: str, value: Any, hint: Any) -> Any:
    """A value converted to its key's type.

    Args:
        name: The key, for the message.
        value: What the config says.
        hint: str, bool, int, float, a tuple of one of them, or a union of one of these with None;
            `Annotated` with a `Range` where it is bounded.

    Raises:
        ValueError: It has another type, is out of range or not finite, or holds an entry twice.
    """
    if allows_none(hint):
        if value is None:
            return None
        hint = without_none(hint)
    if typing.get_origin(hint) is tuple:
        return _tuple(name, value, typing.get_args(hint))
    wanted, span = _plain_type(hint)
    converted = _plain(value, wanted)
    if converted is None:
        raise ValueError(f"`{name}` must be {_WORDS[wanted]}, got {value!r}")
    if span is not None and not span.least <= converted <= span.most:
        raise ValueError(
            f"`{name}` must lie between {span.least:,} and {span.most:,}, got {value!r}"
        )
    return converted


def allows_none(hint: Any) -> bool:
    """Whether a key's type is a union with None."""
    return isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union


def without_none(hint: Any) -> Any:
    """The other type of a union with None."""
    (other,) = (kind for kind in typing.get_args(hint) if kind is not type(None))
    return other


def plain(hint: Any) -> type:
    """The Python type of a key's values other than None: str, bool, int, float or tuple."""
    hint = without_none(hint) if allows_none(hint) else hint
    return tuple if typing.get_origin(hint) is tuple else _plain_type(hint)[0]


def _plain_type(hint: Any) -> tuple[type, Range | None]:
    if typing.get_origin(hint) is not Annotated:
        return hint, None
    wanted, span = typing.get_args(hint)
    return wanted, span


def _plain(value: Any, wanted: type) -> Any:
    """The value as `wanted`; None where it is of another type."""
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


def _tuple(name: str, value: Any, entries: tuple) -> tuple:
    if not isinstance(value, list | tuple):
        raise ValueError(
            f"`{name}` must be several values in brackets, got {value!r}; write ({value!r},)"
        )
    fixed = entries[-1] is not Ellipsis
    if fixed and len(value) != len(entries):
        raise ValueError(f"`{name}` must hold {len(entries)} values, got {value!r}")
    converted = tuple(checked(name, one, entries[0]) for one in value)
    twice = [one for one in dict.fromkeys(converted) if converted.count(one) > 1]
    if twice and not fixed:
        raise ValueError(f"`{name}` names {twice[0]!r} twice; name it once")
    return converted
