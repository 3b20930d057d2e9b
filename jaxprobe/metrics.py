"""Scores of a probe's predictions: weighted, exact under ties, traceable under jit and vmap.

Every function takes one probe's examples; `jax.vmap` turns it into many. A weight of 0 leaves an
example out, so padded batches need no slicing.
"""

import jax
import jax.numpy as jnp

from jaxprobe import checks


def auroc(score_N, y_N, weight_N=None):
    """Area under the ROC curve: the chance that a positive outscores a negative.

    Args:
        score_N: Real scores; ties count one half.
        y_N: Labels in {0, 1}.
        weight_N: Non-negative example weights; 0 leaves an example out. Default: all 1.

    Returns:
        Scalar in [0, 1]; NaN where a class has no weight, or an example of some weight scores NaN.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxprobe as jp
        >>> float(jp.auroc(jnp.array([0.1, 0.4, 0.4, 0.9]), jnp.array([0, 0, 1, 1])))
        0.875

    References:
        Hanley and McNeil, The meaning and use of the area under a ROC curve, 1982.
    """
    score_N, y_N, weight_N = _prepare(score_N, y_N, weight_N)
    # Sorting turns each positive's count of beaten negatives into a prefix sum: N log N, and
    # unlike a pairwise comparison it vmaps. Ties: the mean of the counts before and after the
    # run of equal scores. Examples of weight 0 add nothing wherever they are sorted to.
    order_N = jnp.argsort(score_N)
    sorted_N = score_N[order_N]
    pos_N = (weight_N * y_N)[order_N]
    neg_N = (weight_N * (1 - y_N))[order_N]
    beaten_N = jnp.concatenate([jnp.zeros(1, neg_N.dtype), jnp.cumsum(neg_N)])
    below_N = beaten_N[jnp.searchsorted(sorted_N, sorted_N, side="left")]
    upto_N = beaten_N[jnp.searchsorted(sorted_N, sorted_N, side="right")]
    wins = jnp.sum(pos_N * (below_N + upto_N)) / 2
    pairs = jnp.sum(pos_N) * jnp.sum(neg_N)
    return _ratio(wins, jnp.where(_any_nan(score_N, weight_N), 0, pairs), empty=jnp.nan)


def accuracy(probability_N, y_N, weight_N=None):
    """Weighted share of examples on the right side of probability 0.5.

    Args:
        probability_N: Probability of class 1; exactly 0.5 predicts class 0.
        y_N: Labels in {0, 1}.
        weight_N: Non-negative example weights. Default: all 1.

    Returns:
        Scalar in [0, 1]; NaN without weight.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxprobe as jp
        >>> float(jp.accuracy(jnp.array([0.2, 0.5, 0.6, 0.9]), jnp.array([0, 1, 1, 1])))
        0.75
    """
    probability_N, y_N, weight_N = _prepare(probability_N, y_N, weight_N)
    right_N = (probability_N > 0.5) == (y_N > 0.5)
    return _ratio(jnp.sum(jnp.where(right_N, weight_N, 0)), jnp.sum(weight_N), empty=jnp.nan)


def f1(probability_N, y_N, weight_N=None):
    """Mean of both classes' F1 at probability 0.5, weighted by the classes' support.

    Args:
        probability_N: Probability of class 1; exactly 0.5 predicts class 0.
        y_N: Labels in {0, 1}.
        weight_N: Non-negative example weights. Default: all 1.

    Returns:
        Scalar in [0, 1]; a class that is neither present nor predicted counts 0, as in
        scikit-learn's `f1_score(average="weighted")`. NaN without weight.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxprobe as jp
        >>> round(float(jp.f1(jnp.array([0.2, 0.5, 0.6, 0.9]), jnp.array([0, 1, 1, 1]))), 4)
        0.7667
    """
    probability_N, y_N, weight_N = _prepare(probability_N, y_N, weight_N)
    positive_N = (probability_N > 0.5).astype(y_N.dtype)
    total = jnp.zeros((), weight_N.dtype)
    for truth_N, guess_N in ((1 - y_N, 1 - positive_N), (y_N, positive_N)):
        support, guessed = jnp.sum(weight_N * truth_N), jnp.sum(weight_N * guess_N)
        both = jnp.sum(weight_N * truth_N * guess_N)
        total = total + support * _ratio(2 * both, support + guessed, empty=0.0)
    return _ratio(total, jnp.sum(weight_N), empty=jnp.nan)


def average_precision(score_N, y_N, weight_N=None):
    """Area under the precision-recall step curve; tied scores enter together.

    Args:
        score_N: Real scores.
        y_N: Labels in {0, 1}.
        weight_N: Non-negative example weights. Default: all 1.

    Returns:
        Scalar in [0, 1]; NaN without a positive, or where an example of some weight scores NaN.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxprobe as jp
        >>> round(float(jp.average_precision(jnp.array([0.9, 0.8, 0.1]), jnp.array([1, 0, 1]))), 4)
        0.8333
    """
    score_N, y_N, weight_N = _prepare(score_N, y_N, weight_N)
    # The order is that of `auroc`: in one program they share the sort, most of the work. Precision is
    # read at the first of each run of ties, counted from the highest score down.
    order_N = jnp.argsort(score_N)
    sorted_N = score_N[order_N]
    pos_N, counted_N = (weight_N * y_N)[order_N], weight_N[order_N]
    first_N = jnp.searchsorted(sorted_N, sorted_N, side="left")
    hits_N, seen_N = (jnp.cumsum(x_N[::-1])[::-1][first_N] for x_N in (pos_N, counted_N))
    precision_N = hits_N / jnp.where(seen_N > 0, seen_N, 1)
    total = jnp.where(_any_nan(score_N, weight_N), 0, jnp.sum(pos_N))
    return _ratio(jnp.sum(pos_N * precision_N), total, empty=jnp.nan)


def log_loss(logit_N, y_N, weight_N=None):
    """Mean negative log-likelihood in nats.

    Args:
        logit_N: Log-odds of class 1.
        y_N: Labels in {0, 1}.
        weight_N: Non-negative example weights. Default: all 1.

    Returns:
        Non-negative scalar; NaN without weight.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxprobe as jp
        >>> round(float(jp.log_loss(jnp.array([0.0, 2.0]), jnp.array([0, 1]))), 4)
        0.41
    """
    logit_N, y_N, weight_N = _prepare(logit_N, y_N, weight_N)
    loss_N = jax.nn.softplus(logit_N) - y_N * logit_N
    return _ratio(jnp.sum(weight_N * loss_N), jnp.sum(weight_N), empty=jnp.nan)


def expected_calibration_error(probability_N, y_N, weight_N=None, num_bins: int = 10):
    """Mean gap between confidence and frequency over equal-width bins of probability.

    Args:
        probability_N: Probability of class 1, in [0, 1].
        y_N: Labels in {0, 1}.
        weight_N: Non-negative example weights. Default: all 1.
        num_bins: Bins of width 1 / num_bins, each closed below.

    Returns:
        Scalar in [0, 1]; NaN without weight.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxprobe as jp
        >>> round(float(jp.expected_calibration_error(jnp.array([0.8, 0.8]), jnp.array([1, 0]))), 4)
        0.3

    References:
        Guo et al., On Calibration of Modern Neural Networks, 2017 (for the positive class).
    """
    probability_N, y_N, weight_N = _prepare(probability_N, y_N, weight_N)
    bin_N = jnp.clip((probability_N * num_bins).astype(jnp.int32), 0, num_bins - 1)
    gap = jax.ops.segment_sum(weight_N * (probability_N - y_N), bin_N, num_bins)
    return _ratio(jnp.sum(jnp.abs(gap)), jnp.sum(weight_N), empty=jnp.nan)


def _prepare(score_N, y_N, weight_N):
    score_N = jnp.asarray(score_N)
    dtype = score_N.dtype if score_N.dtype == jnp.float64 else jnp.float32
    y_N = jnp.asarray(y_N)
    weight_N = jnp.ones(y_N.shape, dtype) if weight_N is None else jnp.asarray(weight_N)
    checks.check_shape("y_N", y_N, score_N.shape)
    checks.check_shape("weight_N", weight_N, score_N.shape)
    return score_N.astype(dtype), y_N.astype(dtype), weight_N.astype(dtype)


def _any_nan(score_N, weight_N):
    """A probe that scored NaN ranks nothing; sorting alone would call NaN the highest score."""
    return jnp.any(jnp.isnan(score_N) & (weight_N > 0))


def _ratio(part, whole, *, empty):
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), empty)
