"""Metrics of a probe's predictions: weighted, exact under ties, traceable under jit and vmap.

Arguments are in scikit-learn's order, truth first. Every function takes one probe's examples; `jax.vmap` takes
many. A weight of 0 leaves an example out, so padded batches need no slicing.

Concrete arguments are checked, and computed with in float64 by NumPy: float64 scores keep their order, and
denormal ones their size, whether or not JAX computes in 64 bits. For traced arguments JAX computes in their own
precision, at least float32, and denormal numbers are zero.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxprobe import arguments, checks

_SLACK = 1e-6  # eight float32 rounding errors near 1: a sum of probabilities may exceed 1 by them
_ORDER = "the order is (y_true, y_score)"


def auroc(y_N, score_N, weight_N=None):
    """Area under the ROC curve: the chance that a positive outscores a negative.

    Args:
        y_N: Labels: 0 and 1, booleans, or two others, see `arguments.labels`.
        score_N: Real scores; ties count one half.
        weight_N: Non-negative example weights; 0 leaves an example out. Default: all 1.

    Returns:
        Scalar in [0, 1]; NaN where a class has no weight, or an example of some weight scores NaN.

    Raises:
        ValueError: Concrete labels that are not binary (are the arguments in order?), shapes that
            disagree, scores that are not real numbers, weights that are negative or not finite.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxprobe as jp
        >>> float(jp.auroc(jnp.array([0, 0, 1, 1]), jnp.array([0.1, 0.4, 0.4, 0.9])))
        0.875

    References:
        Hanley and McNeil, The meaning and use of the area under a ROC curve, 1982.
    """

    def area(xp, y_N, score_N, weight_N):
        won, pairs = _pair_counts(xp, y_N, score_N, weight_N)
        pairs = xp.where(any_nan(xp, score_N, weight_N), 0, pairs)
        return ratio(xp, won, 2 * pairs, empty=xp.nan)

    return evaluated(area, y_N, score_N, weight_N, ranks=True)


def pair_counts(y_N, score_N, weight_N):
    """Pairs of a positive and a negative: twice the number that the positive wins, and their total.

    A tie is half a win, so with integer weights both are integers and exact: scores that rank equally well
    give equal numbers on every processor. Traced or JAX arrays only.

    Args:
        y_N: Labels in {0, 1}.
        score_N: Real scores, none NaN.
        weight_N: Non-negative weights.

    Returns:
        `(won, pairs)`; AUROC is `won / (2 * pairs)`.
    """
    return _pair_counts(jnp, y_N, score_N, weight_N)


def accuracy(y_N, probability_N, weight_N=None):
    """Weighted share of examples on the right side of probability 0.5.

    Args:
        y_N: Labels, as for `auroc`.
        probability_N: Probability of class 1, in [0, 1]; exactly 0.5 predicts class 0.
        weight_N: Non-negative example weights. Default: all 1.

    Returns:
        Scalar in [0, 1]; NaN without weight, or where an example of some weight has probability NaN.

    Raises:
        ValueError: As `auroc`, and for concrete probabilities outside of [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxprobe as jp
        >>> float(jp.accuracy(jnp.array([0, 1, 1, 1]), jnp.array([0.2, 0.5, 0.6, 0.9])))
        0.75
    """

    def share(xp, y_N, probability_N, weight_N):
        right_N = (probability_N > 0.5) == (y_N > 0.5)
        total = known(xp, probability_N, weight_N)
        return ratio(xp, xp.sum(xp.where(right_N, weight_N, 0)), total, empty=xp.nan)

    return evaluated(share, y_N, probability_N, weight_N, least=0.0, most=1.0)


def f1(y_N, probability_N, weight_N=None):
    """Mean of both classes' F1 at probability 0.5, weighted by the classes' support.

    Args:
        y_N: Labels, as for `auroc`.
        probability_N: Probability of class 1, in [0, 1]; exactly 0.5 predicts class 0.
        weight_N: Non-negative example weights. Default: all 1.

    Returns:
        Scalar in [0, 1]; a class that is neither present nor predicted counts 0, as in
        scikit-learn's `f1_score(average="weighted")`. NaN as in `accuracy`.

    Raises:
        ValueError: As `accuracy`.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxprobe as jp
        >>> round(float(jp.f1(jnp.array([0, 1, 1, 1]), jnp.array([0.2, 0.5, 0.6, 0.9]))), 4)
        0.7667
    """

    def mean_f1(xp, y_N, probability_N, weight_N):
        positive_N = (probability_N > 0.5).astype(y_N.dtype)
        total = xp.zeros((), weight_N.dtype)
        for truth_N, guess_N in ((1 - y_N, 1 - positive_N), (y_N, positive_N)):
            support, guessed = xp.sum(weight_N * truth_N), xp.sum(weight_N * guess_N)
            both = xp.sum(weight_N * truth_N * guess_N)
            total = total + support * ratio(xp, 2 * both, support + guessed, empty=0.0)
        return ratio(xp, total, known(xp, probability_N, weight_N), empty=xp.nan)

    return evaluated(mean_f1, y_N, probability_N, weight_N, least=0.0, most=1.0)


def average_precision(y_N, score_N, weight_N=None):
    """Area under the precision-recall step curve; tied scores enter together.

    Args:
        y_N: Labels, as for `auroc`.
        score_N: Real scores.
        weight_N: Non-negative example weights. Default: all 1.

    Returns:
        Scalar in [0, 1]; NaN without a positive, or where an example of some weight scores NaN.

    Raises:
        ValueError: As `auroc`.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxprobe as jp
        >>> round(float(jp.average_precision(jnp.array([1, 0, 1]), jnp.array([0.9, 0.8, 0.1]))), 4)
        0.8333
    """

    def area(xp, y_N, score_N, weight_N):
        # Sorted as in `auroc`: in one program they share the sort, which is most of the work. Precision
        # counts all examples that score at least as high, so tied examples share one value.
        order_N = xp.argsort(score_N)
        sorted_N = score_N[order_N]
        pos_N, counted_N = (weight_N * y_N)[order_N], weight_N[order_N]
        first_N = xp.searchsorted(sorted_N, sorted_N, side="left")
        hits_N, seen_N = (xp.cumsum(x_N[::-1])[::-1][first_N] for x_N in (pos_N, counted_N))
        precision_N = hits_N / xp.where(seen_N > 0, seen_N, 1)
        total = xp.where(any_nan(xp, score_N, weight_N), 0, xp.sum(pos_N))
        return ratio(xp, xp.sum(pos_N * precision_N), total, empty=xp.nan)

    return evaluated(area, y_N, score_N, weight_N, ranks=True)


def log_loss(y_N, logit_N, weight_N=None):
    """Mean negative log-likelihood in nats.

    Args:
        y_N: Labels, as for `auroc`.
        logit_N: Log-odds of class 1 (not its probability); may be infinite.
        weight_N: Non-negative example weights. Default: all 1.

    Returns:
        Non-negative scalar; NaN without weight.

    Raises:
        ValueError: As `auroc`.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxprobe as jp
        >>> round(float(jp.log_loss(jnp.array([0, 1]), jnp.array([0.0, 2.0]))), 4)
        0.41
    """

    def mean_loss(xp, y_N, logit_N, weight_N):
        wrong_N = (1 - 2 * y_N) * logit_N  # not y * logit: 0 times infinity
        loss_N = xp.logaddexp(xp.zeros_like(wrong_N), wrong_N)
        loss_N = xp.where(weight_N > 0, loss_N, 0)
        return ratio(xp, xp.sum(weight_N * loss_N), xp.sum(weight_N), empty=xp.nan)

    return evaluated(mean_loss, y_N, logit_N, weight_N)


def expected_calibration_error(y_N, probability_N, weight_N=None, num_bins: int = 10):
    """Mean gap between confidence and frequency over equal-width bins of probability.

    Args:
        y_N: Labels, as for `auroc`.
        probability_N: Probability of class 1, in [0, 1].
        weight_N: Non-negative example weights. Default: all 1.
        num_bins: Bins of width 1 / num_bins, each closed below (the last on both sides).

    Returns:
        Scalar in [0, 1]; NaN as in `accuracy`.

    Raises:
        ValueError: As `accuracy`, and for `num_bins` that is not a positive integer.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxprobe as jp
        >>> round(float(jp.expected_calibration_error(jnp.array([1, 0]), jnp.array([0.8, 0.8]))), 4)
        0.3

    References:
        Guo et al., On Calibration of Modern Neural Networks, 2017 (for the positive class).
    """
    num_bins = arguments.whole("num_bins", num_bins, 1)

    def gap(xp, y_N, probability_N, weight_N):
        # Compared with edges of the same precision: multiplying would round .58 * 100 to below 58.
        edge_B = xp.asarray(np.arange(1, num_bins) / num_bins, probability_N.dtype)
        bin_N = xp.searchsorted(edge_B, probability_N, side="right")
        off_N = xp.where(weight_N > 0, weight_N * (probability_N - y_N), 0)
        if xp is np:
            off_B = np.bincount(bin_N, off_N, num_bins)
        else:
            off_B = jax.ops.segment_sum(off_N, bin_N, num_bins)
        total = known(xp, probability_N, weight_N)
        return ratio(xp, xp.sum(xp.abs(off_B)), total, empty=xp.nan)

    return evaluated(gap, y_N, probability_N, weight_N, least=0.0, most=1.0)


def evaluated(
    metric: Callable,
    y_N,
    score_N,
    weight_N,
    *,
    ranks: bool = False,
    least: float = -np.inf,
    most: float = np.inf,
    others: tuple = (),
):
    """`metric(xp, y_N, score_N, weight_N)` by NumPy, or by JAX where something is traced.

    Args:
        metric: A function of arrays of one shape.
        y_N: Labels.
        score_N: Scores.
        weight_N: Weights, or None.
        ranks: Whether only the order of scores matters.
        least: Smallest value allowed for concrete scores.
        most: Largest value allowed for concrete scores.
        others: Other arguments of `metric` that may be traced.
    """
    traced = arguments.traced(y_N, score_N, weight_N, *others)
    if not arguments.traced(y_N):
        y_N = arguments.labels("y_N", y_N, hint=_ORDER).y_N
    if not arguments.traced(score_N):
        score_N = _checked_scores(score_N, ranks, least, most)
    if weight_N is not None and not arguments.traced(weight_N):
        weight_N = _checked_weights(weight_N)
    checks.check_shape("score_N", score_N, (None,), _ORDER)
    checks.check_shape("y_N", y_N, score_N.shape, _ORDER)
    if weight_N is not None:
        checks.check_shape("weight_N", weight_N, score_N.shape)
    if traced:
        return metric(jnp, *_on_device(y_N, score_N, weight_N, ranks))
    y_N = y_N.astype(np.float64)
    weight_N = np.ones(y_N.shape) if weight_N is None else _scaled(weight_N.astype(np.float64))
    with np.errstate(all="ignore"):
        return jnp.asarray(metric(np, y_N, score_N, weight_N))


def _on_device(y_N, score_N, weight_N, ranks: bool):
    """The arguments as JAX arrays in the precision of the scores, at least float32."""
    if ranks and isinstance(score_N, np.ndarray):
        # JAX would narrow float64 to float32, where different scores tie.
        score_N = np.where(np.isnan(score_N), np.nan, np.unique(score_N, return_inverse=True)[1])
    score_N = jnp.asarray(score_N)
    dtype = score_N.dtype if score_N.dtype == jnp.float64 else jnp.float32
    weight_N = jnp.ones(y_N.shape, dtype) if weight_N is None else jnp.asarray(weight_N)
    return jnp.asarray(y_N).astype(dtype), score_N.astype(dtype), weight_N.astype(dtype)


def _checked_scores(score_N, ranks: bool, least: float, most: float) -> np.ndarray:
    """Concrete scores in their own precision, so that their order is kept; integers where only it matters."""
    found_N = arguments.array("score_N", score_N)
    if not (ranks and np.issubdtype(found_N.dtype, np.integer)):
        found_N = arguments.real("score_N", found_N)
        if found_N.dtype not in (np.float32, np.float64):
            found_N = found_N.astype(np.float32)
    if len(found_N.shape) and found_N.size:
        slack = _SLACK if np.isfinite(most) else 0.0
        with np.errstate(invalid="ignore"):
            outside_N = (found_N < least - slack) | (found_N > most + slack)
        if outside_N.any():
            raise ValueError(
                f"probabilities must lie between {least:g} and {most:g}, got"
                f" {found_N[outside_N][0].item()!r}; turn log-odds into them with jax.nn.sigmoid"
            )
    return np.clip(found_N, least, most) if np.isfinite(most) else found_N


def _checked_weights(weight_N) -> np.ndarray:
    found_N = arguments.real("weight_N", weight_N)
    bad_N = ~(np.isfinite(found_N) & (found_N >= 0))
    if bad_N.any():
        raise ValueError(f"`weight_N` must be finite and not negative, got {found_N[bad_N][0]:g}")
    return found_N


def _scaled(weight_N: np.ndarray) -> np.ndarray:
    """Weights scaled to at most 1, as only ratios matter: products of huge or tiny ones over- or underflow.

    Scaled by a power of two, so that no digit changes.
    """
    _, exponent = np.frexp(np.max(weight_N, initial=0.0))
    return np.ldexp(weight_N, -exponent)


def _pair_counts(xp, y_N, score_N, weight_N):
    # Sorting turns each positive's count of beaten negatives into a prefix sum: N log N, and
    # unlike a pairwise comparison it vmaps. Ties: the mean of the counts before and after the
    # run of equal scores. Examples of weight 0 add nothing wherever they are sorted to.
    order_N = xp.argsort(score_N)
    sorted_N = score_N[order_N]
    pos_N = (weight_N * y_N)[order_N]
    neg_N = (weight_N * (1 - y_N))[order_N]
    beaten_N = xp.concatenate([xp.zeros(1, neg_N.dtype), xp.cumsum(neg_N)])
    below_N = beaten_N[xp.searchsorted(sorted_N, sorted_N, side="left")]
    upto_N = beaten_N[xp.searchsorted(sorted_N, sorted_N, side="right")]
    return xp.sum(pos_N * (below_N + upto_N)), xp.sum(pos_N) * xp.sum(neg_N)


def any_nan(xp, score_N, weight_N):
    """Whether an example of some weight scored NaN, which sorting would treat as the highest score."""
    return xp.any(xp.isnan(score_N) & (weight_N > 0))


def known(xp, score_N, weight_N):
    """The total weight of all examples; 0 where one of them scored NaN, which is on neither side."""
    return xp.where(any_nan(xp, score_N, weight_N), 0, xp.sum(weight_N))


def ratio(xp, part, whole, *, empty):
    """`part / whole` where `whole` is above 0, else `empty`."""
    return xp.where(whole > 0, part / xp.where(whole > 0, whole, 1), empty)
