"""What probes in closed form share: one candidate, nothing to converge, a threshold along a direction.

Such a probe is a function from training rows to a direction w. `midpoint` turns it into log-odds: for
two normal classes of one variance s^2 along w and equal priors,

    log-odds(x) = (m1 - m0) / s^2 * (w'x - (m1 + m0) / 2),   m = class means of w'x

so it is zero halfway between the class means.

References:
    Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2009, section 4.3.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxprobe.probes import gram, probe

# Log-odds at a class mean are at most this; two rows leave no variance to scale with.
MAX_LOGIT = 20.0


class Certain(NamedTuple):
    """What a candidate leaves behind where its fit is exact or stands for itself: its certificate.

    Attributes:
        residual: 0.
        converged: True.
    """

    residual: Any
    converged: Any


class ClassMeans(NamedTuple):
    """Weighted means of the two classes and the weight of each; zero for a class without rows."""

    pos_D: jax.Array
    neg_D: jax.Array
    pos: jax.Array
    neg: jax.Array


def certain(shape, dtype) -> Certain:
    """A certificate of exact fits."""
    return Certain(jnp.zeros(shape, dtype), jnp.ones(shape, bool))


def class_means(x_ND, y_N, weight_N) -> ClassMeans:
    """Means of both classes.

    Args:
        x_ND: Features.
        y_N: Labels in {0, 1}.
        weight_N: Non-negative weights; 0 leaves a row out.
    """
    pos_N, neg_N = weight_N * y_N, weight_N * (1 - y_N)
    pos, neg = jnp.sum(pos_N), jnp.sum(neg_N)
    return ClassMeans(
        pos_N @ x_ND / probe.total_weight(pos_N),
        neg_N @ x_ND / probe.total_weight(neg_N),
        pos,
        neg,
    )


def midpoint(x_ND, y_N, weight_N, w_D) -> probe.Linear:
    """Log-odds along a direction, zero halfway between the class means.

    Args:
        x_ND: Features, best near zero mean.
        y_N: Labels in {0, 1}.
        weight_N: Non-negative weights; 0 leaves a row out.
        w_D: Direction, of any length, towards class 1. Where class means coincide, all scores are 0.

    Returns:
        A linear model of `x_ND`. The slope is the distance of the class means over the pooled
        within-class variance, no steeper than log-odds of `MAX_LOGIT` at the class means.
    """
    length = jnp.linalg.norm(w_D)
    w_D = w_D / jnp.where(length > 0, length, 1)
    along_N = x_ND @ w_D
    means = class_means(along_N[:, None], y_N, weight_N)
    pos, neg = means.pos_D[0], means.neg_D[0]
    # A direction that orders examples well may still have its means the other way round.
    gap = jnp.abs(pos - neg)
    off_N = along_N - jnp.where(y_N > 0, pos, neg)
    variance = jnp.sum(weight_N * off_N**2) / jnp.maximum(means.pos + means.neg - 2, 1)
    variance = jnp.maximum(variance, gap**2 / (2 * MAX_LOGIT))
    slope = gap / jnp.where(variance > 0, variance, 1)
    return probe.linear(slope * w_D, -slope * (pos + neg) / 2)


def along(score_N, y_N, weight_N):
    """Scores that only rank, as log-odds: `midpoint` of one column, a function that keeps their order."""
    model = midpoint(score_N[:, None], y_N, weight_N, jnp.ones(1, score_N.dtype))
    return score_N * model.coef_D[0] + model.intercept


def make(direction: Callable) -> probe.Probe:
    """A probe without a hyperparameter from a direction in feature space.

    Args:
        direction: `(x_ND centred, y_N, weight_N) -> w_D`, towards class 1.
    """

    def fitted(prepared, y_N, weight_N) -> probe.Linear:
        x_ND, _, _ = prepared
        return midpoint(x_ND, y_N, weight_N, direction(x_ND, y_N, weight_N))

    def path(prepared, y_N, weight_N, value_H):
        model = fitted(prepared, y_N, weight_N)
        return one_candidate(prepared[0] @ model.coef_D + model.intercept, value_H)

    def fit(prepared, y_N, weight_N, value, models_FH) -> probe.Linear:
        del value, models_FH
        return fitted(prepared, y_N, weight_N)

    return probe.Probe(prepare, path, fit, score, probe.one_value, probe.no_value)


def prepare(x_ND, weight_N, seed):
    """Centred features, their mean and their scale, 1."""
    del seed
    return gram.centre(x_ND, weight_N)


def one_candidate(score_N, value_H):
    """What `Probe.path` returns where all candidates are one exact fit."""
    shape = (value_H.shape[0], score_N.shape[0])
    return certain(shape[:1], score_N.dtype), jnp.broadcast_to(score_N[None, :], shape)


def score(prepared, model: probe.Linear, x_MD):
    """Scores of raw rows by a model of rows that were centred and divided by a scale."""
    _, mean_D, scale_D = prepared
    coef_D = model.coef_D / scale_D
    return x_MD @ coef_D + (model.intercept - mean_D @ coef_D)
