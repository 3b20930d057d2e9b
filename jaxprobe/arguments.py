"""Checks the arrays and numbers that callers pass, and converts them to NumPy's.

Lists, tables, read-only, strided or byte-swapped arrays and the tensors of other libraries (also those that
require a gradient or are bfloat16) are accepted. Masked and sparse arrays, ragged lists, and text in place of
numbers would be misread, so they are refused with the argument's name. The values of traced arrays cannot be
checked: `traced` detects them, and functions that can be traced leave them unchanged.
"""

import numbers
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprobe import checks

_LARGEST = float(np.finfo(np.float32).max)


class Labels(NamedTuple):
    """Binary labels as numbers.

    Attributes:
        y_N: int32, 0 and 1.
        names: What 0 and 1 stand for; one is None where only the other label occurs.
    """

    y_N: np.ndarray
    names: tuple[Any, Any]


def traced(*values) -> bool:
    """Whether any of them is being traced, by jit, vmap, grad or shard_map."""
    return any(isinstance(value, jax.core.Tracer) for value in values)


def array(name: str, value) -> np.ndarray:
    """Any array-like as a NumPy array, of its own dtype; bfloat16 tensors of other libraries as float32.

    Raises:
        ValueError: The value is masked, sparse or ragged, or NumPy cannot read it.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(
            f"`{name}` must be a plain array, got a masked one; fill it, or leave masked rows out"
        )
    if _sparse(value):
        raise ValueError(
            f"`{name}` must be a dense array, got a sparse {type(value).__name__}; make it dense"
        )
    try:
        found = _tensor(value) if hasattr(type(value), "detach") else np.asarray(value)
    except Exception as error:
        raise ValueError(
            f"`{name}` must be an array, got {type(value).__name__} that NumPy cannot read"
            f" ({' '.join(str(error).split())[:160]})"
        ) from error
    if found.dtype.kind == "T":  # variable-length strings, which not every NumPy casts to `U`
        found = found.astype(object)
    if found.dtype == object:
        found = _unboxed(name, found)
    return found


def features(name: str, value, shape: tuple[int | None, ...] = (None, None), hint: str = ""):
    """Finite features [N, D], at least one row and one column, of any floating dtype.

    Args:
        name: The argument's name.
        value: Anything array-like; a JAX array stays on its device. Values of traced arrays are not
            checked.
        shape: The wanted shape, None for any size.
        hint: What to do where the shape differs.

    Raises:
        ValueError: The shape differs, the array is empty, or holds values that are not real numbers
            or that float32 cannot hold.
    """
    x_ND = finite(name, value)
    checks.check_shape(name, x_ND, shape, hint)
    if 0 in x_ND.shape:
        raise ValueError(f"`{name}` must have at least one row and column, got shape {x_ND.shape}")
    return x_ND


def finite(name: str, value):
    """Real numbers of any shape that float32 can hold, as `features` takes them.

    Raises:
        ValueError: Values are not real numbers, or float32 cannot hold them.
    """
    if traced(value):
        return value
    if not (isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating)):
        value = real(name, value)
    if not isinstance(value, jax.Array):
        check_finite(name, value)
    elif value.is_fully_addressable:
        # On a CPU, checking copies nothing; elsewhere the device checks.
        near = jax.default_backend() == "cpu"
        if near or not bool(jnp.isfinite(value).all()):
            check_finite(name, np.asarray(value))
    return value


def real(name: str, value) -> np.ndarray:
    """Real numbers in native byte order: floating dtypes as they are, all others as float32.

    Raises:
        ValueError: Text, complex numbers, dates, or what `array` refuses.
    """
    found = array(name, value)
    if found.dtype == bool or jnp.issubdtype(found.dtype, jnp.integer):
        return found.astype(np.float32)
    if not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(f"`{name}` must hold real numbers, got {_kind(found)}")
    if found.dtype == np.longdouble and found.dtype != np.float64:
        return found.astype(np.float64)
    return found.astype(found.dtype.newbyteorder("="), copy=False)


def check_finite(name: str, x_ND: np.ndarray) -> None:
    """Raises ValueError at the first number of a concrete array that is not finite in float32."""
    wide = x_ND.dtype == np.float64
    with np.errstate(over="ignore", invalid="ignore"):
        narrow_ND = x_ND.astype(np.float32, copy=False)
        # A sum is finite only if all are, and is faster than checking each.
        if np.isfinite(np.sum(narrow_ND)):
            return
    if not np.isfinite(narrow_ND).all():
        if wide:
            checks.check_finite(name, x_ND)
            worst = float(np.max(np.abs(x_ND)))
            raise ValueError(
                f"`{name}` must be in the range of float32, got numbers up to {worst:.3g}; scale them"
            )
        checks.check_finite(name, narrow_ND)


def labels(
    name: str, value, *, names: tuple[Any, Any] | None = None, both: bool = False, hint: str = ""
) -> Labels:
    """Binary labels of any kind: booleans, whole numbers (-1 and 1, 0 and 2, ...) or text.

    0 and 1 (False and True) stay as they are. Of two other labels, the smaller one, or the first text in
    character order, becomes 0.

    Args:
        name: The argument's name.
        value: One label per example.
        names: What 0 and 1 stand for, where other labels have decided it.
        both: Whether both must occur.
        hint: What to do where they are not labels.

    Raises:
        ValueError: More or other than two labels, numbers that are not integers, or another shape.
    """
    found_N = array(name, value)
    tail = f"; {hint}" if hint else ""
    if found_N.ndim != 1:
        raise ValueError(
            f"`{name}` must hold one label per example, got shape {found_N.shape}{tail}"
        )
    found_N = _plain_labels(name, found_N, tail)
    distinct, code_N = np.unique(found_N, return_inverse=True)
    known = names or _names(name, distinct.tolist(), tail)
    place = {label: at for at, label in enumerate(known)}
    others = [label for label in distinct.tolist() if label not in place]
    if others:
        raise ValueError(
            f"`{name}` must hold the labels {known[0]!r} and {known[1]!r} only, got"
            f" {', '.join(repr(label) for label in others[:5])}{tail}"
        )
    if both and len(distinct) < 2:
        raise ValueError(
            f"`{name}` must hold both classes, got only label {distinct.tolist()}{tail}"
        )
    codes = np.array([place[label] for label in distinct.tolist()], np.int32)
    return Labels(codes[code_N] if len(codes) else np.zeros(0, np.int32), known)


def whole(name: str, value, least: int, most: int | None = None) -> int:
    """A whole number in a range.

    Raises:
        ValueError: The value is not an integer, or outside the range.
    """
    span = f"of at least {least}" if most is None else f"from {least} to {most}"
    try:
        found = operator.index(value)
    except TypeError:
        found = None
    if found is None or isinstance(value, bool | np.bool_):
        raise ValueError(f"`{name}` must be a whole number {span}, got {value!r}")
    if found < least or (most is not None and found > most):
        raise ValueError(f"`{name}` must be a whole number {span}, got {found}")
    return found


def positions(name: str, value, size: int, hint: str = "") -> np.ndarray:
    """Whole numbers in [0, size), one axis of them: row or column numbers of an array.

    Raises:
        ValueError: Another type or shape, or numbers outside the range.
    """
    found_N = array(name, value)
    tail = f"; {hint}" if hint else ""
    if found_N.ndim != 1 or (len(found_N) and not np.issubdtype(found_N.dtype, np.integer)):
        raise ValueError(
            f"`{name}` must be one axis of whole numbers, got {_kind(found_N)} of shape"
            f" {found_N.shape}{tail}"
        )
    if len(found_N) and not 0 <= found_N.min() <= found_N.max() < size:
        worst = found_N.min() if found_N.min() < 0 else found_N.max()
        raise ValueError(f"`{name}` must lie between 0 and {size - 1}, got {worst}{tail}")
    return found_N.astype(np.intp)


def _names(name: str, distinct: list, tail: str) -> tuple[Any, Any]:
    """What 0 and 1 stand for among the labels that occur."""
    if set(distinct) <= {0, 1}:
        return (False, True) if distinct and isinstance(distinct[0], bool) else (0, 1)
    if len(distinct) == 2:
        return distinct[0], distinct[1]
    shown = ", ".join(repr(label) for label in distinct[:5])
    dots = ", ..." if len(distinct) > 5 else ""
    raise ValueError(
        f"`{name}` must hold labels 0 and 1, or two others, got {len(distinct)}: {shown}{dots}{tail}"
    )


def _plain_labels(name: str, found_N: np.ndarray, tail: str) -> np.ndarray:
    """Labels as booleans, whole numbers or text."""
    if found_N.dtype == bool or found_N.dtype.kind in "US" or not len(found_N):
        return found_N
    if np.issubdtype(found_N.dtype, np.integer):
        return found_N
    if jnp.issubdtype(found_N.dtype, jnp.integer):  # int4 and its like
        return found_N.astype(np.int64)
    if not jnp.issubdtype(found_N.dtype, jnp.floating):
        raise ValueError(f"`{name}` must hold labels, got {_kind(found_N)}{tail}")
    wide_N = found_N.astype(np.float64)
    odd_N = ~np.isfinite(wide_N) | (wide_N != np.floor(wide_N)) | (np.abs(wide_N) > 2.0**53)
    if odd_N.any():
        at = int(np.argmax(odd_N))
        raise ValueError(
            f"`{name}` must hold labels, whole numbers or text, got {wide_N[at]:g} at index {at}{tail}"
        )
    return wide_N.astype(np.int64)


def _unboxed(name: str, found: np.ndarray) -> np.ndarray:
    """Converts an array of Python objects, as in tables, to one of numbers, booleans or text."""
    kinds = {type(item) for item in found.flat}
    if kinds and all(issubclass(kind, str) for kind in kinds):
        return found.astype(str)
    if kinds and all(issubclass(kind, bool | np.bool_) for kind in kinds):
        return found.astype(bool)
    if kinds and all(issubclass(kind, int | np.integer) for kind in kinds):
        whole_numbers = np.array(found.tolist())
        if whole_numbers.dtype != object:
            return whole_numbers
    if kinds and all(issubclass(kind, numbers.Real) for kind in kinds):
        return found.astype(np.float64)
    shown = ", ".join(sorted(kind.__name__ for kind in kinds)[:4]) or "nothing"
    raise ValueError(
        f"`{name}` must be an array of numbers of one shape, got Python objects ({shown}); are its rows"
        " of equal length and none of them missing?"
    )


def _tensor(value) -> np.ndarray:
    """A PyTorch-like tensor as a NumPy array: detached, and copied from its device; needs no import."""
    value = value.detach().cpu()
    try:
        return np.asarray(value.numpy())
    except TypeError:  # bfloat16 and narrower, which NumPy does not have
        return np.asarray(value.float().numpy())


def _sparse(value) -> bool:
    kind = type(value)  # not the value itself: a table may have columns of these names
    if hasattr(kind, "detach"):
        return "sparse" in str(getattr(value, "layout", ""))
    return hasattr(kind, "toarray") or hasattr(kind, "todense")


def _kind(found: np.ndarray) -> str:
    kinds = {"U": "text", "S": "bytes", "c": "complex numbers", "b": "booleans"}
    return kinds.get(found.dtype.kind, str(found.dtype))
