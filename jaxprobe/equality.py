"""Equality of dataclasses that hold arrays."""

import dataclasses
from collections.abc import Mapping

import numpy as np


def same_fields(one: object, other: object) -> bool:
    """Whether two dataclasses of one type have equal fields; arrays by content, NaN equals NaN."""
    if type(one) is not type(other):
        return NotImplemented
    return all(
        _same(getattr(one, field.name), getattr(other, field.name))
        for field in dataclasses.fields(one)  # type: ignore[arg-type]
    )


def _same(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(np.asarray(one), np.asarray(other))
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return {*one} == {*other} and all(_same(one[key], other[key]) for key in one)
    return one == other or (one != one and other != other)
