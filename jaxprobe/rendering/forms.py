"""How the values of a column are shown: as text, as counts, as numbers with fixed decimals."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

NOTHING = "n/a"  # a value that is not known


class Form(NamedTuple):
    """How values of one kind are written.

    Attributes:
        show: A known value as text.
        is_number: Whether they are right-aligned and sorted by size.
        keep_whole: Whether a value must stay on one line.
    """

    show: Callable[[Any], str]
    is_number: bool = True
    keep_whole: bool = False


def decimals(count: int, sign: str = "") -> Form:
    """Numbers with `count` decimals; `sign` is "+" to show the sign of positive ones."""
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
    """The sort key of a number, as text: an interval sorts by its lower end; empty for texts."""
    first = value[0] if isinstance(value, tuple) and value else value
    if isinstance(first, bool) or not isinstance(first, int | float) or is_missing(first):
        return ""
    return repr(float(first))
