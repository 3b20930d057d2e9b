"""Mean validation AUROCs as the fractions that they are, so that equal ones are equal on every processor.

A fold of P positives and N negatives has an AUROC of whole 2PN-ths, so the mean over F folds is a whole
number of parts, F times the least common multiple of the 2PN. Sums in another order round it differently in
the last digits, which would decide a tie between methods; the nearest whole number of parts does not.
"""

import math
from typing import Any

import numpy as np

from jaxprobe import base, regimes


def parts(split: base.Split) -> int:
    """The number of parts of which every mean validation AUROC of a split is a whole number."""
    y_N = np.asarray(split.y_train_N)
    valid = [y_N[fold.valid] for fold in split.folds] or [y_N]  # none: the training AUROC
    pairs = [2 * int(np.sum(y_V == 1)) * int(np.sum(y_V == 0)) for y_V in valid]
    # A fold of one class counts one half.
    return len(valid) * math.lcm(*(number or 2 for number in pairs))


def valid_auroc(found: Any, split: base.Split) -> Any:
    """A mean validation AUROC at its fraction; as it is where parts are too small to tell, or it is NaN."""
    if split.weight_train_N is not None:
        return found  # weighted pairs are no whole numbers
    total = parts(split)
    if total > 1 / (2 * regimes.SAME_AUROC):
        return found
    found = np.asarray(found)
    return (np.round(found.astype(np.float64) * total) / total).astype(found.dtype)[()]
