"""Validation folds of a split, and when two mean validation AUROCs over them are equal."""

import itertools

import numpy as np

from jaxprobe import base

NUM_FOLDS = 6
# Two mean validation AUROCs that differ by less than this are equal, and a rule breaks the tie. A mean over
# a split's folds is a fraction: with F folds of P_f positives and N_f negatives, its denominator divides F
# times the least common multiple of all 2 P_f N_f. So with the folds of `validation_folds`, different means
# are at least 7e-6 apart (hold-outs of 100 rows: 2e-4); summing in another order changes a mean by at most
# 1e-6, also in float32.
SAME_AUROC = 2e-6


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
