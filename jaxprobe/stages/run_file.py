"""`run.json`, read and checked: what a run was, and what it took."""

import importlib.metadata
import json
import math
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import logging

from jaxprobe import boundary, sealed

RESULTS = "results"  # whose results the table holds: dataset -> features -> fingerprints
TIMES = "times"  # stage -> seconds over all starts
PACKAGES = ("jaxprobe", "jax", "jaxlib", "numpy", "penzai", "optax", "tensorstore", "gguf")
_MAPPINGS = ("config", "versions", "seeds", "fingerprints", "sae_quality")
_DEPTH = 64  # of mappings and lists in each other
_BITS = 1024  # of a whole number: no float holds more


def read(path: Path) -> dict[str, Any]:
    """The record of a run, without its digest.

    A run's own record names versions and must hold a digest; one that a person wrote names none and
    needs none.

    Raises:
        FileError: No record of a run, not what was written, or no regular file.
        FileNotFoundError: Nothing lies there.
    """
    remedy = (
        f"if you edited it, take out its {sealed.KEY!r} and 'versions', else restore it from a copy,"
        " or run the fit stage again, which writes it anew, or delete it to report without"
    )
    with boundary.missing_stays_missing(path), boundary.reader(path, "a run's record", remedy):
        record = json.loads(boundary.read_bytes(path, boundary.JSON_BYTES))
        if not isinstance(record, dict):
            raise ValueError(f"it must hold a JSON object, got a {type(record).__name__}")
        sealed.verify(path, record.pop(sealed.KEY, None), remedy, needed="versions" in record)
        _check(record)
    return record


def earlier(path: Path) -> dict[str, Any]:
    """What earlier starts recorded; nothing where it is damaged, since it is written anew then."""
    try:
        return read(path)
    except FileNotFoundError:
        return {}
    except boundary.FileError as error:
        logging.warning("%s: it is written anew, the times of earlier starts are lost", error)
        return {}


def versions() -> dict[str, str]:
    """Of Python and of what makes the numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def positive(value: object, *, zero: bool = False) -> dict[str, float]:
    """The entries of a mapping that are finite numbers above 0 (or not below it); none of another value."""
    if not isinstance(value, Mapping):
        return {}
    return {str(name): x for name, x in value.items() if _is_positive(x, zero)}


def _is_positive(x: object, zero: bool) -> bool:
    if isinstance(x, bool) or not isinstance(x, int | float):
        return False
    if isinstance(x, int) and x.bit_length() >= _BITS:
        return False
    return math.isfinite(x) and (x > 0 or (zero and x == 0))


def _check(record: Mapping[str, Any]) -> None:
    """Raises ValueError where an entry that is read later has another shape than it is read as."""
    _check_values(record)
    for key in (*_MAPPINGS, TIMES, RESULTS):
        value = record.get(key, {})
        if not isinstance(value, Mapping):
            raise ValueError(f"its `{key}` must be an object, got a {type(value).__name__}")
    times = record.get(TIMES, {})
    if wrong := sorted(times.keys() - positive(times, zero=True).keys()):
        raise ValueError(f"the `{TIMES}` of {wrong[0][:80]!r} must be a number of seconds")
    for dataset, by_features in record.get(RESULTS, {}).items():
        marks = by_features.values() if isinstance(by_features, Mapping) else [None]
        if not all(isinstance(m, list) and all(isinstance(one, str) for one in m) for m in marks):
            raise ValueError(
                f"the `{RESULTS}` of {dataset[:80]!r} must be lists of fingerprints by features"
            )


def _check_values(record: Mapping[str, Any]) -> None:
    """Refuses what could not be shown: values too deep in each other, numbers too large."""
    level: list[Any] = [record]
    for _ in range(_DEPTH):
        inside: list[Any] = []
        for value in level:
            if isinstance(value, int) and value.bit_length() >= _BITS:
                raise ValueError(f"it holds a number of {value.bit_length()} bits")
            if isinstance(value, Mapping | list):
                inside += value.values() if isinstance(value, Mapping) else value
        level = inside
    if level:
        raise ValueError(f"it is nested deeper than {_DEPTH} levels")
