"""JSON files beside weights, each entry read as the type that it must have.

JSON and Python bend: `"32"`, `32.5` and `true` would all pass for a number somewhere, and NaN for
any. An entry is what a loader asks for, or an error that names the file and the entry.
"""

import collections
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from absl import logging

from jaxprobe import boundary
from jaxprobe.place import Place

BYTES = 1 << 20  # a config's; the longest published ones have 30 KB
DEPTH = 32  # of what lies in what
MOST = 2**31 - 1  # of a count: of latents, of dimensions, of a layer
_ABSENT: Any = object()
Default = TypeVar("Default")
Value = TypeVar("Value")


class Config(Mapping[str, Any]):
    """The entries of a JSON object; reading one checks it.

    Missing entries and null are the same: the default, or an error where there is none.
    """

    def __init__(
        self,
        content: Mapping[str, Any],
        path: Path | Place,
        remedy: str = "take the file as it was published",
    ):
        """Entries, the file that they are from, and what to do where one is wrong."""
        self.content, self.path, self.remedy = dict(content), path, remedy

    def __getitem__(self, key: str) -> Any:
        """The entry as it stands, unchecked."""
        return self.content[key]

    def __iter__(self) -> Iterator[str]:
        """Names of entries."""
        return iter(self.content)

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self.content)

    def count(self, key: str, default: Default = _ABSENT) -> int | Default:
        """A whole number above zero, as a whole number is written."""
        value = self._value(key, default)
        if value is not default and not (type(value) is int and 0 < value <= MOST):
            raise self.error(key, f"a whole number from 1 to {MOST}")
        return value

    def layer(self, key: str, default: Default = _ABSENT) -> int | Default:
        """A whole number, zero included."""
        value = self._value(key, default)
        if value is not default and not (type(value) is int and 0 <= value <= MOST):
            raise self.error(key, f"a whole number from 0 to {MOST}")
        return value

    def positive(self, key: str, default: Default = _ABSENT) -> float | Default:
        """A finite number above zero that float32 can hold."""
        return self._number(key, default, "above zero", lambda value: value > 0)

    def nonnegative(self, key: str, default: Default = _ABSENT) -> float | Default:
        """A finite number, zero included, that float32 can hold."""
        return self._number(key, default, "of zero or more", lambda value: value >= 0)

    def flag(self, key: str, default: Default = _ABSENT) -> bool | Default:
        """True or false."""
        value = self._value(key, default)
        if value is not default and type(value) is not bool:
            raise self.error(key, "true or false")
        return value

    def text(self, key: str, default: Default = _ABSENT) -> str | Default:
        """A text that is not empty."""
        value = self._value(key, default)
        if value is not default and not (type(value) is str and value):
            raise self.error(key, "a text")
        return value

    def choice(self, key: str, known: Sequence[Any], default: Default = _ABSENT) -> Any:
        """One of the values that are known."""
        value = self._value(key, default)
        if not any(type(value) is type(one) and value == one for one in known):
            raise self.error(key, f"one of {', '.join(json.dumps(one) for one in known)}")
        return value

    def section(self, key: str, default: Default = _ABSENT) -> "Config | Default":
        """An object inside this one."""
        value = self._value(key, default)
        if value is default:
            return value
        if type(value) is not dict:
            raise self.error(key, "an object")
        return Config(value, self.path, self.remedy)

    def check_same(self, key: str, have: int, what: str) -> None:
        """Raises FileError where a count that is said is not that of the weights."""
        said = self.count(key, None)
        if said is not None and said != have:
            raise boundary.FileError(
                f"{self.path} says {key} = {said}, but the weights have {have}: {what}"
            )

    def error(self, key: str, wanted: str) -> boundary.FileError:
        """What is wrong with an entry."""
        if self.content.get(key) is None:
            known = ", ".join(sorted(map(str, self.content))[:40]) or "nothing"
            return boundary.FileError(f"{self.path} must have an entry {key!r}, got {known:.600}")
        return boundary.FileError(
            f"{self.path} must have as {key!r} {wanted}, got {_shown(self.content[key])}; {self.remedy}"
        )

    def _value(self, key: str, default: Any) -> Any:
        value = self.content.get(key)
        if value is not None:
            return value
        if default is _ABSENT:
            raise self.error(key, "")
        return default

    def _number(self, key: str, default: Any, words: str, is_right) -> Any:
        value = self._value(key, default)
        if value is default:
            return value
        # Comparing is safe for whole numbers of any length, converting is not.
        fits = type(value) in (int, float) and -3.4e38 < value < 3.4e38 and is_right(value)
        if not (fits and (value == 0 or abs(value) > 1e-37)):
            raise self.error(key, f"a finite number {words}")
        return float(value)


def read(path: Path) -> Config:
    """A JSON object of a file, in which no entry stands twice.

    Raises:
        FileError: There is none, or one that is too long or too deep.
    """
    if not os.path.lexists(path):
        raise boundary.FileError(f"{path} must be a JSON file beside the weights; fetch it too")
    what, remedy = "a JSON object beside the weights", "fetch it again"
    with boundary.reader(path, what, remedy):
        return parse(boundary.read_bytes(path, BYTES), path)


def parse(text: str | bytes, path: Path | Place) -> Config:
    """A JSON object, in which no entry stands twice; callers stand in `boundary.reader`.

    Raises:
        Exception: It is none, or one that is too long or too deep.
    """
    if len(text) > BYTES:
        raise ValueError(f"its JSON has {len(text):,} characters, more than {BYTES:,}")
    content = json.loads(text, object_pairs_hook=_unique)
    if type(content) is not dict:
        raise ValueError(f"it holds a {type(content).__name__}")
    _check_depth(content, DEPTH)
    return Config(content, path)


def told(read: Callable[..., Value], *about) -> Value | None:
    """What an entry says that no latent depends on; None, with a warning, where it is not understood.

    Args:
        read: Of a `Config`, for example its `positive`.
        about: What it is asked for.
    """
    try:
        return read(*about)
    except boundary.FileError as error:
        logging.warning("%s (it is left out: no latent depends on it)", error)
        return None


def beside(path: Path, inferred: Mapping[str, Any]) -> Config:
    """The JSON object of a file, or what its path says where there is no file.

    Raises:
        FileError: There is one that cannot be read.
    """
    return read(path) if os.path.lexists(path) else Config(inferred, path)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = collections.Counter(name for name, _ in pairs)
        raise ValueError(f"it has two entries {counts.most_common(1)[0][0]!r:.80}")
    return found


def _check_depth(value: Any, depth: int) -> None:
    """Raises ValueError for what nests deeper; what passes can be printed and copied."""
    if isinstance(value, dict | list):
        if not depth:
            raise ValueError(f"it is nested deeper than {DEPTH}")
        for part in value.values() if isinstance(value, dict) else value:
            _check_depth(part, depth - 1)


def _shown(value: Any) -> str:
    """A value as JSON writes it, cut where it is long."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and abs(value) > 10**30:
        return "a number of more than 30 digits"
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):  # of a caller's own words
        text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
