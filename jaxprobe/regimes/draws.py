"""Draws of training and test rows, one function per regime, as in the published code."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

MAX_TRAIN = 1024
MIN_TEST = 100
SHIFT_POOL = 1500  # covariate shift trains on rows below this one
# 2^(1 + 9i/19), rounded; written out, because the result of a power function depends on the processor. Sums
# and products of doubles do not, so the other two are computed as in NumPy, exact to the last digit, on which
# rounding a count up can depend.
SCARCITY_SIZES = (
    *(2, 3, 4, 5, 7, 10, 14, 20, 28, 38, 53, 74, 103, 143, 198, 275, 382, 531, 737, 1024),
)
IMBALANCE_RATIOS = tuple(float(ratio) for ratio in np.linspace(0.05, 0.95, 19))
NOISE_FRACTIONS = tuple(float(fraction) for fraction in np.linspace(0.0, 0.5, 11))


def num_levels(regime: str) -> int:
    """Number of splits that a regime draws from a dataset that is large enough."""
    levels = {"scarcity": SCARCITY_SIZES, "imbalance": IMBALANCE_RATIOS}
    return len((levels | {"label_noise": NOISE_FRACTIONS}).get(regime, (math.nan,)))


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


class Draw(NamedTuple):
    """A draw from the usable rows: positions to train and to test on, and training labels."""

    train_N: np.ndarray
    y_train_N: np.ndarray
    test_N: np.ndarray
    level: float = math.nan


def _standard(y_N: np.ndarray, seed: int) -> list[Draw]:
    usable = 2 * int(min(np.sum(y_N == 1), np.sum(y_N == 0)))
    if usable <= MIN_TEST + 1:
        return []
    return [_draw(y_N, min(usable - MIN_TEST, MAX_TRAIN), usable, seed)]


def _scarcity(y_N: np.ndarray, seed: int) -> list[Draw]:
    usable = 2 * int(min(np.sum(y_N == 1), np.sum(y_N == 0)))
    sizes = [size for size in SCARCITY_SIZES if size <= usable - MIN_TEST]
    return [_draw(y_N, size, usable, seed)._replace(level=float(size)) for size in sizes]


def _imbalance(y_N: np.ndarray, seed: int) -> list[Draw]:
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
        draws.append(Draw(train_N, y_N[train_N], test_N, ratio))
    return draws


def _fits(y_N: np.ndarray, num_train: int, num_test: int, ratio: float) -> bool:
    num_pos = math.ceil(ratio * num_train) + math.ceil(ratio * num_test)
    return num_pos <= np.sum(y_N == 1) and num_train + num_test - num_pos <= np.sum(y_N == 0)


def _label_noise(y_N: np.ndarray, seed: int) -> list[Draw]:
    return [
        clean._replace(y_train_N=flip_labels(clean.y_train_N, fraction, seed), level=fraction)
        for clean in _standard(y_N, seed)
        for fraction in NOISE_FRACTIONS
    ]


DRAWS: dict[str, Callable[[np.ndarray, int], list[Draw]]] = {
    "standard": _standard,
    "scarcity": _scarcity,
    "imbalance": _imbalance,
    "label_noise": _label_noise,
}


def _draw(y_N: np.ndarray, num_train: int, usable: int, seed: int) -> Draw:
    train_N, test_N = draw_rows(y_N, num_train, usable - num_train - 1, 0.5, seed)
    return Draw(train_N, y_N[train_N], test_N)
