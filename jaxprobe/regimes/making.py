"""Splits of a dataset: all draws of a regime, or a split of rows that the caller chose."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from jaxprobe import arguments, base, checks
from jaxprobe.regimes import draws
from jaxprobe.regimes.folds import validation_folds
from jaxprobe.regimes.texts import DEDUP_BY, distinct_rows

TEST, SHIFTED = "test", "shifted"  # names of test sets


def splits(
    dataset: base.TextDataset,
    regime: str = "standard",
    *,
    protocol: str = "paper",
    seed: int = 42,
    shifted: base.TextDataset | None = None,
    dedup_by: str = "exact",
) -> tuple[base.Split, ...]:
    """All train/test draws of one dataset in one regime, one draw per level.

    Args:
        dataset: Labelled prompts.
        regime: One of `base.REGIMES`.
        protocol: `paper`, or `dedup`: one row per distinct text, without texts that occur under both
            labels.
        seed: Seed of every draw.
        shifted: The shifted test set; required for `covariate_shift`, whose splits number the rows of
            `base.joined(dataset, shifted)` (the dataset's N rows, then the shifted set's), and refused
            for other regimes.
        dedup_by: When `dedup` treats two prompts as the same: `exact`, equal in every character, or
            `normalised`, equal after Unicode composition (NFC) and stripping. Must be left out for
            other protocols.

    Returns:
        Splits by increasing level. Levels that the dataset is too small for are left out, so the tuple
        can be empty; indexing it then raises an error that says why.

    Raises:
        ValueError: An unknown regime or protocol, a missing shifted set, arguments of other types, or
            `dedup_by` without effect.
    """
    seed = arguments.whole("seed", seed, 0, 2**32 - 1)
    _check(dataset, regime, protocol, shifted, dedup_by)
    dedup = protocol == "dedup"
    rows_N = np.arange(len(dataset.texts))
    if dedup:
        rows_N = distinct_rows(dataset.texts, dataset.y_N, dedup_by)
    if shifted is not None:
        tests, drawn = _covariate_shift(dataset, shifted, rows_N, dedup_by if dedup else None, seed)
    else:
        y_N = np.asarray(dataset.y_N)[rows_N]
        # In a small set, an extreme ratio or label noise can leave one class to train on: left out.
        drawn = [draw for draw in draws.DRAWS[regime](y_N, seed) if 0 < draw.y_train_N.mean() < 1]
        tests = [base.TestSet(name=TEST, row_M=rows_N[d.test_N], y_M=y_N[d.test_N]) for d in drawn]
    found = [
        base.Split(
            dataset=dataset.name,
            regime=regime,
            level=draw.level,
            protocol=protocol,
            seed=seed,
            train_N=rows_N[draw.train_N],
            y_train_N=draw.y_train_N,
            folds=validation_folds(draw.y_train_N, seed),
            tests=(test,),
            num_rows=len(dataset.texts) + (0 if shifted is None else len(shifted.texts)),
        )
        for draw, test in zip(drawn, tests, strict=True)
    ]
    return Splits(found, dataset, regime)


def split_of(
    dataset: base.TextDataset,
    train_N: Sequence[int] | np.ndarray,
    tests: Mapping[str, Sequence[int] | np.ndarray],
    *,
    regime: str,
    level: float = math.nan,
    protocol: str = "paper",
    seed: int = 42,
    y_train_N: Sequence[int] | np.ndarray | None = None,
    weight_train_N: Sequence[float] | np.ndarray | None = None,
    group: str = "",
) -> base.Split:
    """A split of rows that the caller chose, with the protocol's validation folds.

    Args:
        dataset: The table whose rows are chosen.
        train_N: Row numbers to train on.
        tests: Row numbers to test on, by the name of the test set.
        regime: Name of the experiment's own regime, for result rows.
        level: Its level; NaN for none.
        protocol: One of `base.PROTOCOLS`, for result rows.
        seed: Seed of the folds.
        y_train_N: Training labels, if not the dataset's own.
        weight_train_N: Weights of training rows; by default all 1.
        group: The dataset's column with the group of each test row; empty for none.

    Raises:
        ValueError: Row numbers outside the table, or a column that it lacks.
    """
    num_rows = len(dataset.texts)
    train_N = _rows("train_N", train_N, num_rows)
    y_N = np.asarray(dataset.y_N)
    y_train_N = y_N[train_N] if y_train_N is None else np.asarray(y_train_N)
    group_N = dataset.column(group).code_N if group else None
    test_sets = [
        base.TestSet(
            name=name,
            row_M=row_M,
            y_M=y_N[row_M],
            group_M=None if group_N is None else group_N[row_M],
        )
        for name, rows in tests.items()
        for row_M in [_rows(f"tests[{name!r}]", rows, num_rows)]
    ]
    return base.Split(
        dataset=dataset.name,
        regime=regime,
        level=level,
        protocol=protocol,
        seed=seed,
        train_N=train_N,
        y_train_N=y_train_N,
        folds=validation_folds(y_train_N, seed),
        tests=tuple(test_sets),
        weight_train_N=None if weight_train_N is None else np.asarray(weight_train_N),
        num_rows=num_rows,
    )


def _rows(name: str, rows: Sequence[int] | np.ndarray, num_rows: int) -> np.ndarray:
    """Row numbers as an array."""
    row_N = np.asarray(rows)
    if row_N.ndim != 1 or row_N.dtype.kind not in "iu" or not len(row_N):
        raise ValueError(f"`{name}` must hold at least one row number, got {rows!r:.80}")
    if row_N.min() < 0 or row_N.max() >= num_rows:
        raise ValueError(
            f"`{name}` must lie between 0 and {num_rows - 1}, got {row_N.min()} to {row_N.max()}"
        )
    return row_N


def _check(
    dataset: base.TextDataset,
    regime: str,
    protocol: str,
    shifted: base.TextDataset | None,
    dedup_by: str,
) -> None:
    """Raises ValueError for arguments of `splits` that are unknown or do not go together."""
    for name, data in (("dataset", dataset), ("shifted", shifted)):
        if not isinstance(data, base.TextDataset) and (data is not None or name == "dataset"):
            raise ValueError(f"`{name}` must be a TextDataset, got {type(data).__name__}")
    checks.check_choice("regime", regime, base.REGIMES)
    checks.check_choice("protocol", protocol, base.PROTOCOLS)
    checks.check_choice("dedup_by", dedup_by, DEDUP_BY)
    if dedup_by != "exact" and protocol != "dedup":
        raise ValueError(
            f"`dedup_by` has no effect under protocol {protocol}, got {dedup_by!r}; leave it out, or set"
            " protocol='dedup'"
        )
    if (regime == "covariate_shift") != (shifted is not None):
        raise ValueError(
            "`shifted` must be given for regime covariate_shift and for no other, got"
            f" regime {regime!r} with shifted={None if shifted is None else shifted.name!r}"
        )


class Splits(tuple):
    """A tuple of splits that, if empty, raises an error with the reason when it is indexed."""

    reason: str

    def __new__(cls, found: list[base.Split], dataset: base.TextDataset, regime: str):
        """The splits of a dataset in a regime."""
        made = super().__new__(cls, found)
        ones = int(np.sum(dataset.y_N))
        made.reason = (
            f"{dataset.name!r} has no split in regime {regime}: {len(dataset.texts)} rows"
            f" ({len(dataset.texts) - ones} and {ones}) are too few; standard needs at least"
            f" {(draws.MIN_TEST + 2) // 2} distinct rows of each class"
        )
        return made

    def __reduce__(self):
        """Copies are plain tuples."""
        return tuple, (list(self),)

    def __getitem__(self, index):
        """A split, or for a slice a plain tuple of splits."""
        if not self and not isinstance(index, slice):
            raise IndexError(self.reason)
        return super().__getitem__(index)


def _covariate_shift(
    dataset: base.TextDataset,
    shifted: base.TextDataset,
    rows_N: np.ndarray,
    dedup_by: str | None,
    seed: int,
) -> tuple[list[base.TestSet], list[draws.Draw]]:
    """The shifted test set, and positions in `rows_N` to train on; no draw where those are too few."""
    pooled_N = rows_N < draws.SHIFT_POOL
    test_N = np.arange(len(shifted.texts))
    if dedup_by is not None:
        # The shifted prompts are fixed: drop their repeats, and training rows that share a text.
        key = DEDUP_BY[dedup_by]
        test_N = distinct_rows(shifted.texts, shifted.y_N, dedup_by)
        tested = {key(shifted.texts[row]) for row in test_N}
        pooled_N &= np.array([key(dataset.texts[row]) not in tested for row in rows_N], bool)
    pool_N = np.flatnonzero(pooled_N)
    y_N = np.asarray(dataset.y_N)[rows_N][pool_N]
    usable = 2 * int(min(np.sum(y_N == 1), np.sum(y_N == 0)))
    num_train = min(draws.MAX_TRAIN, usable)
    if num_train < 4:
        return [], []
    train_N, _ = draws.draw_rows(y_N, num_train, 0, 0.5, seed)
    # In the joined table, the shifted set's rows follow the dataset's.
    row_M = len(dataset.texts) + test_N
    test = base.TestSet(name=SHIFTED, row_M=row_M, y_M=np.asarray(shifted.y_N)[test_N])
    return [test], [draws.Draw(pool_N[train_N], y_N[train_N], test_N)]
