"""Data regimes: which rows of a dataset train, validate and test a probe.

Rows and labels only; no activations. Protocol `paper` draws exactly the rows of the published code;
protocol `dedup` applies the same draw to distinct prompts, so no text is in both training and test rows.
"""

import itertools
import math
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxprobe import arguments, base, checks

MAX_TRAIN = 1024
MIN_TEST = 100
SHIFT_POOL = 1500  # covariate shift trains on rows below this one
NUM_FOLDS = 6
TEST, SHIFTED = "test", "shifted"  # names of test sets
# Two mean validation AUROCs that differ by less than this are equal, and a rule breaks the tie. A mean over
# a split's folds is a fraction: with F folds of P_f positives and N_f negatives, its denominator divides F
# times the least common multiple of all 2 P_f N_f. So with the folds of `validation_folds`, different means
# are at least 7e-6 apart (hold-outs of 100 rows: 2e-4); summing in another order changes a mean by at most
# 1e-6, also in float32.
SAME_AUROC = 2e-6
# 2^(1 + 9i/19), rounded; written out, because the result of a power function depends on the processor. Sums
# and products of doubles do not, so the other two are computed as in NumPy, exact to the last digit, on which
# rounding a count up can depend.
SCARCITY_SIZES = (
    *(2, 3, 4, 5, 7, 10, 14, 20, 28, 38, 53, 74, 103, 143, 198, 275, 382, 531, 737, 1024),
)
IMBALANCE_RATIOS = tuple(float(ratio) for ratio in np.linspace(0.05, 0.95, 19))
NOISE_FRACTIONS = tuple(float(fraction) for fraction in np.linspace(0.0, 0.5, 11))


def normalised(text: str) -> str:
    """A text as `dedup_by="normalised"` compares it: composed (NFC) and stripped."""
    return unicodedata.normalize("NFC", text).strip()


DEDUP_BY: dict[str, Callable[[str], str]] = {"exact": str, "normalised": normalised}


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
    for name, data in (("dataset", dataset), ("shifted", shifted)):
        if not isinstance(data, base.TextDataset) and (data is not None or name == "dataset"):
            raise ValueError(f"`{name}` must be a TextDataset, got {type(data).__name__}")
    seed = arguments.whole("seed", seed, 0, 2**32 - 1)
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
    dedup = protocol == "dedup"
    rows_N = np.arange(len(dataset.texts))
    if dedup:
        rows_N = distinct_rows(dataset.texts, dataset.y_N, dedup_by)
    if shifted is not None:
        tests, draws = _covariate_shift(dataset, shifted, rows_N, dedup_by if dedup else None, seed)
    else:
        y_N = np.asarray(dataset.y_N)[rows_N]
        # In a small set, an extreme ratio or label noise can leave one class to train on: left out.
        draws = [draw for draw in _DRAWS[regime](y_N, seed) if 0 < draw.y_train_N.mean() < 1]
        tests = [base.TestSet(name=TEST, row_M=rows_N[d.test_N], y_M=y_N[d.test_N]) for d in draws]
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
        for draw, test in zip(draws, tests, strict=True)
    ]
    return Splits(found, dataset, regime)


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
            f" {(MIN_TEST + 2) // 2} distinct rows of each class"
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


def num_levels(regime: str) -> int:
    """Number of splits that a regime draws from a dataset that is large enough."""
    levels = {"scarcity": SCARCITY_SIZES, "imbalance": IMBALANCE_RATIOS}
    return len((levels | {"label_noise": NOISE_FRACTIONS}).get(regime, (math.nan,)))


def distinct_rows(texts: tuple[str, ...], y_N: np.ndarray, dedup_by: str = "exact") -> np.ndarray:
    """First row of every text, in row order, leaving out texts that carry both labels."""
    first: dict[str, int] = {}
    conflicting = set()
    for row, text in enumerate(map(DEDUP_BY[dedup_by], texts)):
        if y_N[first.setdefault(text, row)] != y_N[row]:
            conflicting.add(text)
    return np.array([row for text, row in first.items() if text not in conflicting], int)


def leak_rate(texts: tuple[str, ...], split: base.Split) -> float:
    """Fraction of a split's (first) test rows whose text is also among its training rows.

    Args:
        texts: Texts of the table whose rows the split numbers.
        split: The split.
    """
    seen = {texts[row] for row in split.train_N}
    return float(np.mean([texts[row] in seen for row in split.test_N]))


def draw_rows(
    y_N: np.ndarray, num_train: int, num_test: int, ratio: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws training and test rows with `ceil(ratio * size)` positives each.

    The random generator is called as in the published code and in the same order, so the rows are the same.

    Args:
        y_N: Labels in {0, 1}.
        num_train: Training rows.
        num_test: Test rows.
        ratio: Fraction of positives in both.
        seed: Seed of the draw.

    Returns:
        Row numbers for training and for test, shuffled.

    Raises:
        ValueError: A class has too few rows.

    References:
        `get_train_test_indices` in sae-probes 0.4.2.
    """
    rng = np.random.RandomState(seed)
    pools = [np.flatnonzero(y_N == 1), np.flatnonzero(y_N == 0)]
    drawn = []
    for size in (num_train, num_test):
        num_pos = math.ceil(ratio * size)
        parts = []
        for label, count in ((0, num_pos), (1, size - num_pos)):
            if count > len(pools[label]):
                raise ValueError(
                    f"a draw of {size} rows at ratio {ratio:g} needs {count} rows of one class, but"
                    f" only {len(pools[label])} are left; use a smaller size"
                )
            parts.append(rng.choice(pools[label], size=count, replace=False))
        pools = [_without(pool, part, len(y_N)) for pool, part in zip(pools, parts, strict=True)]
        drawn.append(np.concatenate(parts))
    return rng.permutation(drawn[0]), rng.permutation(drawn[1])


def _without(pool: np.ndarray, part: np.ndarray, num_rows: int) -> np.ndarray:
    """As `np.setdiff1d` for sorted rows, without sorting."""
    kept = np.ones(num_rows, bool)
    kept[part] = False
    return pool[kept[pool]]


def flip_labels(y_N: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Flips `int(N * fraction)` labels, chosen as the published `corrupt_ytrain` chooses them."""
    rng = np.random.RandomState(seed)
    flip = rng.choice(len(y_N), size=int(len(y_N) * fraction), replace=False)
    flipped_N = np.array(y_N)
    flipped_N[flip] = 1 - flipped_N[flip]
    return flipped_N


def validation_folds(y_N: np.ndarray, seed: int) -> tuple[base.Fold, ...]:
    """Validation folds by training size, as defined in PROTOCOL section 4.

    Args:
        y_N: Training labels in {0, 1}, in training order.
        seed: Seed of the stratified shuffle.

    Returns:
        Up to 3 rows: no folds. Up to 12: every pair of rows that holds both classes is left out once.
        Below 128: six stratified folds, without those whose validation part has one class. From 128:
        the last `min(N // 5, 100)` rows.
    """
    num = len(y_N)
    everything = np.arange(num)
    if num <= 3:
        return ()
    if num >= 128:
        cut = num - min(num // 5, 100)
        return (base.Fold(everything[:cut], everything[cut:]),)
    if num <= 12:
        valid_parts = [np.array(pair) for pair in itertools.combinations(range(num), 2)]
    else:
        fold_N = _stratified_fold_numbers(y_N, seed)
        valid_parts = [np.flatnonzero(fold_N == fold) for fold in range(NUM_FOLDS)]
    return tuple(
        base.Fold(np.delete(everything, valid), valid)
        for valid in valid_parts
        if y_N[valid].min() != y_N[valid].max()
    )


def _stratified_fold_numbers(y_N: np.ndarray, seed: int) -> np.ndarray:
    """Fold of each row, equal to scikit-learn's `StratifiedKFold(6, shuffle=True)`."""
    rng = np.random.RandomState(seed)
    # Classes are numbered by first appearance; the sorted labels are dealt to the folds in turn.
    class_N = (y_N != y_N[0]).astype(int)
    sorted_N = np.sort(class_N)
    dealt = [np.bincount(sorted_N[f::NUM_FOLDS], minlength=2) for f in range(NUM_FOLDS)]
    fold_N = np.empty(len(y_N), int)
    for label in range(2):
        folds = np.arange(NUM_FOLDS).repeat([counts[label] for counts in dealt])
        rng.shuffle(folds)
        fold_N[class_N == label] = folds
    return fold_N


class _Draw(NamedTuple):
    """A draw from the usable rows: positions to train and to test on, and training labels."""

    train_N: np.ndarray
    y_train_N: np.ndarray
    test_N: np.ndarray
    level: float = math.nan


def _standard(y_N: np.ndarray, seed: int) -> list[_Draw]:
    usable = 2 * int(min(np.sum(y_N == 1), np.sum(y_N == 0)))
    if usable <= MIN_TEST + 1:
        return []
    return [_draw(y_N, min(usable - MIN_TEST, MAX_TRAIN), usable, seed)]


def _scarcity(y_N: np.ndarray, seed: int) -> list[_Draw]:
    usable = 2 * int(min(np.sum(y_N == 1), np.sum(y_N == 0)))
    sizes = [size for size in SCARCITY_SIZES if size <= usable - MIN_TEST]
    return [_draw(y_N, size, usable, seed)._replace(level=float(size)) for size in sizes]


def _imbalance(y_N: np.ndarray, seed: int) -> list[_Draw]:
    low, high = min(IMBALANCE_RATIOS), max(IMBALANCE_RATIOS)
    total = int(min(np.sum(y_N == 0) / (1 - low), np.sum(y_N == 1) / high))
    num_train = min(total - MIN_TEST, MAX_TRAIN)
    num_test = max(MIN_TEST, total - num_train - 1)
    if num_train < 2:
        return []
    # Rounding both sizes up can need one row more than a class of odd size has; the test set gives it up.
    while not all(_fits(y_N, num_train, num_test, ratio) for ratio in IMBALANCE_RATIOS):
        num_test -= 1
    draws = []
    for ratio in IMBALANCE_RATIOS:
        train_N, test_N = draw_rows(y_N, num_train, num_test, ratio, seed)
        draws.append(_Draw(train_N, y_N[train_N], test_N, ratio))
    return draws


def _fits(y_N: np.ndarray, num_train: int, num_test: int, ratio: float) -> bool:
    num_pos = math.ceil(ratio * num_train) + math.ceil(ratio * num_test)
    return num_pos <= np.sum(y_N == 1) and num_train + num_test - num_pos <= np.sum(y_N == 0)


def _label_noise(y_N: np.ndarray, seed: int) -> list[_Draw]:
    return [
        clean._replace(y_train_N=flip_labels(clean.y_train_N, fraction, seed), level=fraction)
        for clean in _standard(y_N, seed)
        for fraction in NOISE_FRACTIONS
    ]


_DRAWS: dict[str, Callable[[np.ndarray, int], list[_Draw]]] = {
    "standard": _standard,
    "scarcity": _scarcity,
    "imbalance": _imbalance,
    "label_noise": _label_noise,
}


def _covariate_shift(
    dataset: base.TextDataset,
    shifted: base.TextDataset,
    rows_N: np.ndarray,
    dedup_by: str | None,
    seed: int,
) -> tuple[list[base.TestSet], list[_Draw]]:
    """The shifted test set, and positions in `rows_N` to train on; no draw where those are too few."""
    pooled_N = rows_N < SHIFT_POOL
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
    num_train = min(MAX_TRAIN, usable)
    if num_train < 4:
        return [], []
    train_N, _ = draw_rows(y_N, num_train, 0, 0.5, seed)
    # In the joined table, the shifted set's rows follow the dataset's.
    row_M = len(dataset.texts) + test_N
    test = base.TestSet(name=SHIFTED, row_M=row_M, y_M=np.asarray(shifted.y_N)[test_N])
    return [test], [_Draw(pool_N[train_N], y_N[train_N], test_N)]


def _draw(y_N: np.ndarray, num_train: int, usable: int, seed: int) -> _Draw:
    train_N, test_N = draw_rows(y_N, num_train, usable - num_train - 1, 0.5, seed)
    return _Draw(train_N, y_N[train_N], test_N)
