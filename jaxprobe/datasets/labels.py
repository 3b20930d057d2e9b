"""The targets of a file as labels 0 and 1."""

import decimal
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxprobe.datasets.rows import short

# No two parts of the pattern can take the same digits: linear in the length of the text.
_NUMBER = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)


def labels(
    targets: Sequence[str], lines: dict[str, int], where: str
) -> tuple[np.ndarray, tuple[str, str]]:
    """Targets -> int32 labels and what 0 and 1 stand for.

    The order is that of scikit-learn's LabelEncoder on the column as pandas types it: by number if
    all targets are numbers (so 1, 01 and 1.0 are one class), False before True in any case, else by
    text. Numbers are compared exactly, of any size: 1e999 and 2e999 are two classes, and so are
    9007199254740992 and 9007199254740993.

    Args:
        targets: The column.
        lines: Distinct targets in the order of the file -> the line of the first.
        where: The file, for errors.

    Raises:
        ValueError: Not two classes.
    """
    as_value = _target_type(lines)
    spelling: dict[Any, str] = {}
    for text, line in lines.items():
        value = as_value(text)
        if value not in spelling and len(spelling) == 2:
            known = " and ".join(repr(short(label)) for label in spelling.values())
            raise ValueError(
                f"{where}, line {line}: third class {short(text)!r} after {known}; `target` must hold"
                " two distinct values: keep two, or make it one class against the rest"
            )
        spelling.setdefault(value, text)
    if len(spelling) < 2:
        got = f"only {short(next(iter(spelling.values())))!r}" if spelling else "no rows"
        raise ValueError(
            f"{where}: `target` must hold two distinct values, got {got} in {len(targets)} rows;"
            " add rows of the other class"
        )
    zero, one = sorted(spelling)
    ones = {text for text in lines if as_value(text) == one}
    y_N = np.fromiter((text in ones for text in targets), np.int32, len(targets))
    return y_N, (spelling[zero], spelling[one])


def _target_type(distinct: dict[str, int]) -> Callable[[str], Any]:
    """The type of a column of targets: the first of number, bool, str that fits them all."""
    if all(_NUMBER.fullmatch(text) for text in distinct):
        try:
            numbers = {text: decimal.Decimal(text.strip()) for text in distinct}
        except decimal.InvalidOperation:  # an exponent beyond 10^18
            return str
        return numbers.__getitem__
    if {text.lower() for text in distinct} <= {"true", "false"}:
        return lambda text: text.lower() == "true"
    return str
