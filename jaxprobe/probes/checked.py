"""Checks of `fit_grid`'s arguments against the features, before anything is compiled."""

import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jaxprobe import arguments, base, checks, metrics


def sequence(name: str, found: Iterable, of: str) -> tuple:
    """Any iterable as a tuple; raises ValueError for anything else, or for a single item."""
    if isinstance(found, base.Split | str) or not isinstance(found, Iterable):
        raise ValueError(f"`{name}` must be a sequence of {of}, got {type(found).__name__}")
    return tuple(found)


def settings(is_host: bool, dtype: str, memory_gib: Any, mesh: Any, default_gib: float) -> None:
    """Raises ValueError for invalid settings of the computation, or ones without effect."""
    is_number = isinstance(memory_gib, numbers.Real) and not isinstance(memory_gib, bool)
    if not (is_number and 0 < float(memory_gib) < float("inf")):
        raise ValueError(f"`memory_gib` must be a finite number above 0, got {memory_gib!r}")
    if not isinstance(mesh, Mesh | None):
        raise ValueError(
            f"`mesh` must be a jax.sharding.Mesh or None, got {mesh!r:.80}; make one with jax.make_mesh"
        )
    given = {"dtype": dtype != "auto", "memory_gib": memory_gib != default_gib}
    for name, is_given in {**given, "mesh": mesh is not None}.items():
        if is_host and is_given:
            raise ValueError(f"`{name}` has no effect on a method of a host library; leave it out")


def splits(found: Sequence[base.Split], num_rows: int, *, weighted: bool) -> None:
    """Raises ValueError unless every split refers to existing rows and holds binary labels.

    Args:
        found: The splits.
        num_rows: Rows of features.
        weighted: Whether the method takes weights of training rows.
    """
    if not all(isinstance(s, base.Split) for s in found):
        raise ValueError("`splits` must be a sequence of Split, as jaxprobe.splits gives")
    if not len(found):
        raise ValueError(
            "`splits` must hold at least one split, got none; is the dataset too small?"
        )
    for split in found:
        where = f"of {split.dataset or 'the split'} ({split.regime})"
        _rows(split, num_rows, where)
        _folds(split, where)
        if split.weight_train_N is not None:
            _weights(split, weighted, where)


def _rows(split: base.Split, num_rows: int, where: str) -> None:
    if split.num_rows is not None and split.num_rows != num_rows:
        hint = "are they features of another dataset?"
        if split.regime == "covariate_shift":
            hint = (
                "append the rows of the shifted set to the dataset's, or give them as `x_shift_MD`"
            )
        raise ValueError(
            f"`x_ND` must have a row for each of the {split.num_rows} examples {where}, got {num_rows}"
            f" rows; {hint}"
        )
    hint = "does every example have its row of features?"
    train_N = arguments.positions(f"train_N {where}", split.train_N, num_rows, hint)
    y_N = arguments.labels(f"y_train_N {where}", split.y_train_N, names=(0, 1), both=True).y_N
    checks.check_same_length(f"train_N {where}", train_N, "y_train_N", y_N)
    for test in split.tests:
        which = where if len(split.tests) == 1 else f"{where}, test set {test.name!r}"
        row_M = arguments.positions(f"test_N {which}", test.row_M, num_rows, hint)
        y_M = arguments.labels(f"y_test_N {which}", test.y_M, names=(0, 1)).y_N
        checks.check_same_length(f"test_N {which}", row_M, "y_test_N", y_M)
        if test.group_M is not None:
            group_M = metrics.group_codes(test.group_M)
            checks.check_same_length(f"test_N {which}", row_M, "group_M", group_M)


def _folds(split: base.Split, where: str) -> None:
    for fold in split.folds:
        for name, part in zip(("train", "valid"), fold, strict=True):
            arguments.positions(f"folds' {name} rows {where}", part, len(split.train_N))
        if np.intersect1d(fold.train, fold.valid).size:
            raise ValueError(f"a fold {where} must not validate on rows that it trains on")


def _weights(split: base.Split, weighted: bool, where: str) -> None:
    if not weighted:
        raise ValueError(
            f"`weight_train_N` {where} has no effect on a method that counts or pairs rows (knn, lat);"
            " leave the weights out, or use another method"
        )
    weight_N = arguments.real("weight_train_N", split.weight_train_N)
    checks.check_shape(f"weight_train_N {where}", weight_N, (len(split.train_N),), "one per row")
    if not (np.isfinite(weight_N).all() and (weight_N >= 0).all()):
        raise ValueError(f"`weight_train_N` {where} must be finite and not negative")
    of_class = [weight_N[np.asarray(split.y_train_N) == label].sum() for label in (0, 1)]
    if min(of_class) <= 0:
        raise ValueError(
            f"`weight_train_N` {where} must leave both classes some weight, got {of_class}"
        )


def columns(
    found: Sequence[np.ndarray] | None, num_latents: Any, num_splits: int, width: int
) -> tuple[int, ...]:
    """The values of k; `(0,)` where all columns are read.

    Raises:
        ValueError: Not one list of columns per split, columns that do not exist, or values of k without
            columns or vice versa.
    """
    num_latents = num_latents if isinstance(num_latents, Iterable) else (num_latents,)
    num_latents = tuple(num_latents)
    if found is None:
        if len(num_latents):
            raise ValueError("`num_latents` has no effect without `columns`; give both or neither")
        return (0,)
    if len(found) != num_splits:
        raise ValueError(
            f"`columns` must hold one list of columns per split, got {len(found)} for {num_splits}"
        )
    for column_K in found:
        if not len(arguments.positions("columns", column_K, width)):
            raise ValueError("`columns` must name at least one column for each split, got none")
    if not len(num_latents):
        raise ValueError("`num_latents` must hold at least one number of columns, got none")
    return tuple(arguments.whole("num_latents", count, 1) for count in num_latents)
