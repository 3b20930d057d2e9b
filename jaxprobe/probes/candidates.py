"""Candidates of hyperparameters, the same on every processor.

The published code takes them from `numpy.logspace`, whose power function depends on the processor: with AVX512,
2^log2(3) is 2.9999999999999996 and truncated to 2; elsewhere it is 3. Here each step of that formula is rounded
once, to the nearest double, in software. NumPy gives the same where its power and logarithm come from the C
library (x86 without AVX512, Arm). The paper's files were made with these values. With five training rows, none of
the 113 sets has a kNN with a validation AUROC below 1/2, which 3 neighbours of 3 rows ensure (all scores tie).
With seven training rows, five sets have one, which 5 neighbours of 5 rows would exclude (2^log2(5) rounds below 5).

References:
    `find_best_pcareg` and `find_best_knn` in sae-probes 0.4.2.
    Kantamneni et al., arXiv 2502.16681: `scarcity/summary/all_results.csv` of its results.
"""

import decimal
import functools

import numpy as np

_DIGITS = 60  # far more than correct rounding to a double needs


def powers(base: int, start: float, stop: float, num: int) -> np.ndarray:
    """`numpy.logspace(start, stop, num, base=base)`, each step rounded once to the nearest double."""
    return np.array(_powers(base, start, stop, num))


@functools.cache
def whole_powers(most: int, num: int) -> tuple[int, ...]:
    """The distinct integer parts of `num` powers from 1 to `most`, as in the published code.

    Rounding can leave the last below `most`: 5 gives 1, 2, 3, 4; for 100 the last is 99.
    """
    return tuple(sorted({int(power) for power in _powers(2, 0.0, _log2(most), num)}))


def _powers(base: int, start: float, stop: float, num: int) -> tuple[float, ...]:
    # Sums and products of doubles are the same everywhere; powers and logarithms are not.
    step = (stop - start) / (num - 1)
    exponents = [i * step + start for i in range(num - 1)] + [stop]
    with decimal.localcontext(prec=_DIGITS):
        return tuple(float(decimal.Decimal(base) ** decimal.Decimal(e)) for e in exponents)


def _log2(value: int) -> float:
    with decimal.localcontext(prec=_DIGITS):
        return float(decimal.Decimal(value).ln() / decimal.Decimal(2).ln())
