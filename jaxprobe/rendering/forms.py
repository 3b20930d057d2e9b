"""How the values of a column are shown: as text, as counts, as fractions with so many decimals."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

NOTHING = "n/a"  # a value that is not known


class Form(NamedTuple):
    """How values of one kind are written.

    Attributes:
        show: A known value as text.
        is_number: Whether they stand at the right and sort by size.
        keep_whole: Whether a value may not be broken over lines.
    """

    show: Callable[[Any], str]
    is_number: bool = True
    keep_whole: bool = False


def decimals(count: int, sign: str = "") -> Form:
    """Numbers with so many decimals; `sign` is "+" where positive ones carry their sign."""
    return Form(lambda x: f"{x:{sign}.{count}f}")


TEXT = Form(str, is_number=False)
WORD = Form(str, is_number=False, keep_whole=True)
COUNT = Form(lambda x: f"{x:,.0f}")
AUROC = decimals(3)
SHORT = Form(lambda x: f"{x:.4g}")
PERCENT = Form(lambda x: f"{100 * x:.1f} %")
SPAN = Form(lambda ends: f"{ends[0]:.3f} to {ends[1]:.3f}")


def is_missing(value: object) -> bool:
    """Whether a value is unknown: None, NaN, or an interval that begins with NaN."""
    first = value[0] if isinstance(value, tuple) and value else value
    return first is None or (isinstance(first, float) and math.isnan(first))


def sort_value(value: object) -> str:
    """What a number sorts by, as text: an interval by its lower end; empty for texts."""
    first = value[0] if isinstance(value, tuple) and value else value
    if isinstance(first, bool) or not isinstance(first, int | float) or is_missing(first):
        return ""
    return repr(float(first))
