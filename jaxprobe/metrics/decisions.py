"""Metrics of decisions: thresholds set on validation rows, and the worst of several groups."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxprobe import arguments, checks
from jaxprobe.metrics.kernels import evaluated, known, ratio

_SLACK = 1e-6  # .29 * 100 is a little below 29 in floating point, and 29 of 100 must be allowed


def threshold_at_fpr(y_N, score_N, weight_N=None, *, rate: float):
    """The lowest threshold that at most a share `rate` of the negatives exceeds.

    It is the score of a negative; an example is classified as positive where its score is above it.

    Args:
        y_N: Labels, as for `auroc`.
        score_N: Real scores.
        weight_N: Non-negative example weights. Default: all 1.
        rate: The largest false-positive rate allowed, in [0, 1).

    Returns:
        Scalar; NaN without negatives, or where an example of some weight scores NaN.

    Raises:
        ValueError: As `auroc`, and for a rate outside of [0, 1).

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxprobe import metrics
        >>> y = jnp.array([0, 0, 0, 0, 1])
        >>> score = jnp.array([0.1, 0.2, 0.3, 0.9, 0.5])
        >>> round(float(metrics.threshold_at_fpr(y, score, rate=0.25)), 4)
        0.3
    """
    if not 0 <= rate < 1:
        raise ValueError(f"`rate` must be at least 0 and below 1, got {rate!r}")

    def lowest(xp, y_N, score_N, weight_N):
        neg_N = weight_N * (1 - y_N)
        order_N = xp.argsort(score_N)
        sorted_N, total = score_N[order_N], xp.sum(neg_N)
        upto_N = xp.cumsum(neg_N[order_N])
        last_N = xp.searchsorted(sorted_N, sorted_N, side="right") - 1  # of each run of ties
        above_N = total - upto_N[last_N]
        enough_N = (above_N <= rate * total + _SLACK * total) & (neg_N[order_N] > 0)
        found = xp.min(xp.where(enough_N, sorted_N, xp.inf), initial=xp.inf)
        valid = (known(xp, score_N, weight_N) > 0) & (total > 0)
        return xp.where(valid, found, xp.nan)

    return evaluated(lowest, y_N, score_N, weight_N)


def recall(y_N, score_N, weight_N=None):
    """Weighted share of the positives that score above 0.

    Args:
        y_N: Labels, as for `auroc`.
        score_N: Log-odds, or any scores minus a threshold.
        weight_N: Non-negative example weights. Default: all 1.

    Returns:
        Scalar in [0, 1]; NaN without positives, or where an example of some weight scores NaN.

    Raises:
        ValueError: As `auroc`.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxprobe import metrics
        >>> float(metrics.recall(jnp.array([1, 1, 0]), jnp.array([0.5, -0.5, 2.0])))
        0.5
    """

    def share(xp, y_N, score_N, weight_N):
        pos_N = weight_N * y_N
        found = xp.sum(xp.where(score_N > 0, pos_N, 0))
        total = xp.where(known(xp, score_N, weight_N) > 0, xp.sum(pos_N), 0)
        return ratio(xp, found, total, empty=xp.nan)

    return evaluated(share, y_N, score_N, weight_N)


def worst_group_accuracy(y_N, score_N, weight_N=None, group_N=None):
    """The lowest accuracy among the groups; a score above 0 predicts class 1.

    Args:
        y_N: Labels, as for `auroc`.
        score_N: Log-odds.
        weight_N: Non-negative example weights. Default: all 1.
        group_N: Integers that name groups; negative for rows of no group. Where traced, they must be
            below the number of rows.

    Returns:
        Scalar in [0, 1]; NaN without a group of some weight, or where an example of some weight scores
        NaN.

    Raises:
        ValueError: As `auroc`, and for groups that are not one whole number per example.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxprobe import metrics
        >>> y, score = jnp.array([1, 1, 0, 0]), jnp.array([2.0, 1.0, -1.0, 3.0])
        >>> float(metrics.worst_group_accuracy(y, score, group_N=jnp.array([0, 0, 1, 1])))
        0.5

    References:
        Sagawa et al., Distributionally Robust Neural Networks, arXiv 1911.08731.
    """
    if group_N is None:
        group_N = np.full(np.shape(score_N), -1)
    if not arguments.traced(group_N):
        group_N = group_codes(group_N)
    checks.check_shape("group_N", group_N, np.shape(score_N), "one group per example")

    def worst(xp, y_N, score_N, weight_N):
        # Rows of no group are counted in an extra group, which is then left out.
        size = max(len(y_N), 1)
        code_N = xp.where(xp.asarray(group_N) < 0, size, xp.asarray(group_N))
        right_N = xp.where((score_N > 0) == (y_N > 0.5), weight_N, 0)
        total_G, right_G = (_sums(xp, part_N, code_N, size) for part_N in (weight_N, right_N))
        accuracy_G = ratio(xp, right_G, total_G, empty=xp.inf)
        found = xp.min(accuracy_G, initial=xp.inf)
        valid = (known(xp, score_N, weight_N) > 0) & xp.isfinite(found)
        return xp.where(valid, found, xp.nan)

    return evaluated(worst, y_N, score_N, weight_N, others=(group_N,))


def group_codes(group_N) -> np.ndarray:
    """Concrete groups as int32 codes 0, 1, ... in increasing order; -1 for rows of no group.

    Raises:
        ValueError: `group_N` is not one axis of integers.
    """
    found_N = arguments.array("group_N", group_N)
    if found_N.ndim != 1 or (len(found_N) and not np.issubdtype(found_N.dtype, np.integer)):
        raise ValueError(
            f"`group_N` must hold one whole number per example, got {found_N.dtype} of shape"
            f" {found_N.shape}"
        )
    names, code_N = np.unique(found_N, return_inverse=True)
    return np.maximum(code_N - np.sum(names < 0), -1).astype(np.int32)


def _sums(xp, part_N, code_N, size: int):
    """Sums by code, of codes below `size`."""
    if xp is np:
        return np.bincount(code_N, part_N, size + 1)[:size]
    return jax.ops.segment_sum(part_N, jnp.asarray(code_N), size + 1)[:size]
