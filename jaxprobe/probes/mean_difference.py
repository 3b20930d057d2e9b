"""Difference of class means: the direction from the negatives' mean to the positives'.

    w = mean over positives - mean over negatives,   threshold halfway between the means

The best direction where classes are normal with one spherical covariance; it has nothing to tune.
`closed_form.midpoint` gives its scores the scale of log-odds.

References:
    Marks and Tegmark, The Geometry of Truth, arXiv 2310.06824 (mass-mean probing).
"""

from jaxprobe.probes import closed_form
from jaxprobe.probes.probe import Array


def direction(x_ND: Array, y_N: Array, weight_N: Array) -> Array:
    """From the negatives' mean to the positives' [D].

    Args:
        x_ND: Features.
        y_N: Labels in {0, 1}.
        weight_N: Non-negative weights; 0 leaves a row out.
    """
    means = closed_form.class_means(x_ND, y_N, weight_N)
    return means.pos_D - means.neg_D


PROBE = closed_form.make(direction)
