"""Mean validation AUROCs as exact fractions, so that equal ones are equal on every processor.

A fold of P positives and N negatives has an AUROC that is a multiple of 1 / 2PN, so the mean over F folds is a
multiple of 1 / (F times the least common multiple of the 2PN). Summing in another order changes its last digits,
which would decide ties between methods; rounding to the nearest multiple removes that.
"""

import math
from typing import Any

import numpy as np

from jaxprobe import base, regimes


def parts(split: base.Split) -> int:
    """The denominator of a split's mean validation AUROCs: each is a whole number of such parts of 1."""
    y_N = np.asarray(split.y_train_N)
    valid = [y_N[fold.valid] for fold in split.folds] or [y_N]  # none: the training AUROC
    pairs = [2 * int(np.sum(y_V == 1)) * int(np.sum(y_V == 0)) for y_V in valid]
    # A fold of one class counts one half.
    return len(valid) * math.lcm(*(number or 2 for number in pairs))


def valid_auroc(found: Any, split: base.Split) -> Any:
    """A mean validation AUROC as its exact fraction; unchanged where parts are too small, or it is NaN."""
    if split.weight_train_N is not None:
        return found  # weighted pairs are not whole numbers
    total = parts(split)
    if total > 1 / (2 * regimes.SAME_AUROC):
        return found
    found = np.asarray(found)
    return (np.round(found.astype(np.float64) * total) / total).astype(found.dtype)[()]
