"""What `fit_grid` is asked to fit, checked against the features before anything is compiled."""

import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jaxprobe import arguments, base, checks


def sequence(name: str, found: Iterable, of: str) -> tuple:
    """Any iterable as a tuple; raises ValueError for what is none, or is one of them."""
    if isinstance(found, base.Split | str) or not isinstance(found, Iterable):
        raise ValueError(f"`{name}` must be a sequence of {of}, got {type(found).__name__}")
    return tuple(found)


def settings(is_host: bool, dtype: str, memory_gib: Any, mesh: Any, default_gib: float) -> None:
    """Raises ValueError for settings of the computation that are none, or have no effect."""
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


def splits(found: Sequence[base.Split], num_rows: int, num_shifted: int | None) -> None:
    """Raises ValueError unless every split numbers rows that are there and holds binary labels.

    Args:
        found: The splits.
        num_rows: Rows of the dataset's features.
        num_shifted: Rows of the shifted set's; None without them.
    """
    if not all(isinstance(s, base.Split) for s in found):
        raise ValueError("`splits` must be a sequence of Split, as jaxprobe.splits gives")
    if not len(found):
        raise ValueError(
            "`splits` must hold at least one split, got none; is the dataset too small?"
        )
    shifts = [split.regime == "covariate_shift" for split in found]
    if any(shifts) and num_shifted is None:
        raise ValueError("`x_shift_MD` must be given, for splits of covariate_shift test its rows")
    if num_shifted is not None and not any(shifts):
        raise ValueError("`x_shift_MD` has no effect: no split is of covariate_shift; leave it out")
    for split, shift in zip(found, shifts, strict=True):
        _split(split, num_rows, num_shifted if shift and num_shifted is not None else num_rows)


def _split(split: base.Split, num_rows: int, num_tested: int) -> None:
    where = f"of {split.dataset or 'the split'} ({split.regime})"
    if split.num_rows is not None and split.num_rows != num_rows:
        raise ValueError(
            f"`x_ND` must have a row for each of the {split.num_rows} examples {where}, got {num_rows}"
            " rows; are they features of another dataset?"
        )
    hint = "does every example have its row of features?"
    train_N = arguments.positions(f"train_N {where}", split.train_N, num_rows, hint)
    test_N = arguments.positions(f"test_N {where}", split.test_N, num_tested, hint)
    sides = (("train_N", train_N, split.y_train_N), ("test_N", test_N, split.y_test_N))
    for name, rows, y_N in sides:
        labels = arguments.labels(f"y_{name} {where}", y_N, names=(0, 1), both=name == "train_N")
        checks.check_same_length(f"{name} {where}", rows, f"y_{name}", labels.y_N)
    for fold in split.folds:
        for name, part in zip(("train", "valid"), fold, strict=True):
            arguments.positions(f"folds' {name} rows {where}", part, len(train_N))
        if np.intersect1d(fold.train, fold.valid).size:
            raise ValueError(f"a fold {where} must not validate on rows that it trains on")


def columns(
    found: Sequence[np.ndarray] | None, num_latents, num_splits: int, width: int
) -> tuple[int, ...]:
    """The values of k; `(0,)` where all columns are read.

    Raises:
        ValueError: Not one list of columns a split, columns that are not there, values of k without
            columns or the other way round.
    """
    num_latents = num_latents if isinstance(num_latents, Iterable) else (num_latents,)
    num_latents = tuple(num_latents)
    if found is None:
        if len(num_latents):
            raise ValueError("`num_latents` has no effect without `columns`; give both or neither")
        return (0,)
    if len(found) != num_splits:
        raise ValueError(
            f"`columns` must hold one list of columns a split, got {len(found)} for {num_splits}"
        )
    for column_K in found:
        if not len(arguments.positions("columns", column_K, width)):
            raise ValueError("`columns` must name a column at least for each split, got none")
    if not len(num_latents):
        raise ValueError("`num_latents` must hold a number of columns at least, got none")
    return tuple(arguments.whole("num_latents", count, 1) for count in num_latents)
