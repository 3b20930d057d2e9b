"""Argument checks; errors say which argument, what was wanted, what came and what to do."""

import difflib
from collections.abc import Iterable, Sequence

import numpy as np


def check_shape(name: str, array, wanted: Sequence[int | None], hint: str = "") -> None:
    """Raises unless `array.shape` matches `wanted`, where None admits any size.

    Args:
        name: The argument's name, for the message.
        array: Anything with a `shape`.
        wanted: One size or None per axis.
        hint: What to do, appended to the message.

    Raises:
        ValueError: The rank or a size differs.
    """
    got = tuple(array.shape)
    fits = len(got) == len(wanted) and all(
        want is None or want == have for want, have in zip(wanted, got, strict=True)
    )
    if not fits:
        shown = ", ".join("*" if want is None else str(want) for want in wanted)
        raise ValueError(f"`{name}` must have shape ({shown}), got {got}{_tail(hint)}")


def check_same_length(name: str, array, other_name: str, other, hint: str = "") -> None:
    """Raises ValueError unless the two arrays agree in their first axis."""
    if array.shape[0] != other.shape[0]:
        raise ValueError(
            f"`{name}` and `{other_name}` must have one entry per example, got {array.shape[0]}"
            f" and {other.shape[0]}{_tail(hint)}"
        )


def check_finite(name: str, array: np.ndarray, hint: str = "") -> None:
    """Raises ValueError at the first NaN or infinity of a concrete array, naming its row."""
    bad = ~np.isfinite(np.asarray(array))
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"`{name}` must be finite, got {np.asarray(array)[where]} at index {where}"
            f" ({int(bad.sum())} such entries){_tail(hint)}"
        )


def check_binary(name: str, y_N: np.ndarray, *, both: bool = False) -> None:
    """Raises ValueError unless every label is 0 or 1 (and, with `both`, each occurs)."""
    found = np.unique(np.asarray(y_N))
    if not np.isin(found, (0, 1)).all():
        raise ValueError(f"`{name}` must hold labels 0 and 1 only, got {found[:5].tolist()}")
    if both and len(found) < 2:
        raise ValueError(f"`{name}` must hold both classes, got only label {found.tolist()}")


def check_choice(name: str, value: str, known: Iterable[str]) -> None:
    """Raises ValueError for a value that is not among `known`; lists the nearest spellings first."""
    known = list(known)
    if value in known:
        return
    near = difflib.get_close_matches(str(value), known, n=3, cutoff=0.4)
    rest = [choice for choice in known if choice not in near]
    shown = ", ".join((near + rest)[:12]) + (", ..." if len(known) > 12 else "")
    raise ValueError(f"unknown {name} {value!r}; known: {shown}")


def check_positive(name: str, value: float) -> None:
    """Raises ValueError unless `value` is above zero."""
    if not value > 0:
        raise ValueError(f"`{name}` must be above zero, got {value}")


def _tail(hint: str) -> str:
    return f"; {hint}" if hint else ""
