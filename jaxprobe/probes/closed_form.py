"""What closed-form probes share: a single candidate, an exact fit, a threshold along a direction.

Such a probe is a function from training rows to a direction w. `midpoint` turns it into log-odds: for
two normal classes of one variance s^2 along w and equal priors,

    log-odds(x) = (m1 - m0) / s^2 * (w'x - (m1 + m0) / 2),   m = class means of w'x

so it is zero halfway between the class means.

References:
    Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2009, section 4.3.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxprobe.probes import probe, scaling
from jaxprobe.probes.linear_model import LinearModel
from jaxprobe.probes.probe import Array

# Log-odds at a class mean are at most this: with two rows there is no variance to scale by.
MAX_LOGIT = 20.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearFit:
    """A direction and a threshold in centred features, in closed form, so always converged."""

    coef_D: Array
    intercept: Array
    residual: Array
    converged: Array


def linear_fit(coef_D: Array, intercept: Array) -> LinearFit:
    """A fit with the certificate of an exact one."""
    certificate = probe.exact(intercept.shape, intercept.dtype)
    return LinearFit(
        coef_D=coef_D,
        intercept=intercept,
        residual=certificate.residual,
        converged=certificate.converged,
    )


def finish(prepared: Any, fit: LinearFit) -> LinearModel:
    """`Probe.finish` where a fit reads the probe's features unchanged."""
    del prepared
    return LinearModel(coef_D=fit.coef_D, intercept=fit.intercept)


class ClassMeans(NamedTuple):
    """Weighted means of the two classes and the weight of each; zero for a class without rows."""

    pos_D: Array
    neg_D: Array
    pos: Array
    neg: Array


def class_means(x_ND: Array, y_N: Array, weight_N: Array) -> ClassMeans:
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


def midpoint(x_ND: Array, y_N: Array, weight_N: Array, w_D: Array) -> LinearFit:
    """Log-odds along a direction, zero halfway between the class means.

    Args:
        x_ND: Features, for accuracy close to zero mean.
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
    # A direction that ranks examples well may still have its means in the opposite order.
    gap = jnp.abs(pos - neg)
    off_N = along_N - jnp.where(y_N > 0, pos, neg)
    variance = jnp.sum(weight_N * off_N**2) / jnp.maximum(means.pos + means.neg - 2, 1)
    variance = jnp.maximum(variance, gap**2 / (2 * MAX_LOGIT))
    slope = gap / jnp.where(variance > 0, variance, 1)
    return linear_fit(slope * w_D, -slope * (pos + neg) / 2)


def along(score_N: Array, y_N: Array, weight_N: Array) -> Array:
    """Turns scores that only rank into log-odds: `midpoint` of one column, which keeps their order."""
    model = midpoint(score_N[:, None], y_N, weight_N, jnp.ones(1, score_N.dtype))
    return score_N * model.coef_D[0] + model.intercept


def make(direction: Callable) -> probe.Probe:
    """A probe without a hyperparameter from a direction in feature space.

    Args:
        direction: `(x_ND centred, y_N, weight_N) -> w_D`, towards class 1.
    """

    def prepare(x_ND, weight_N, seed):
        del weight_N, seed
        return x_ND

    def path(x_ND, y_N, weight_N, value_H):
        model = midpoint(x_ND, y_N, weight_N, direction(x_ND, y_N, weight_N))
        return one_candidate(x_ND @ model.coef_D + model.intercept, value_H)

    def fit(x_ND, y_N, weight_N, value, models_FH) -> LinearFit:
        del value, models_FH
        return midpoint(x_ND, y_N, weight_N, direction(x_ND, y_N, weight_N))

    plain = probe.Probe(
        prepare=prepare,
        path=path,
        fit=fit,
        finish=finish,
        values=probe.one_value,
        default=probe.no_value,
    )
    return scaling.centred(plain)


def one_candidate(score_N: Array, value_H: Array) -> tuple[probe.Certificate, Array]:
    """What `Probe.path` returns where all candidates have the same exact fit."""
    shape = (value_H.shape[0], score_N.shape[0])
    return probe.exact(shape[:1], score_N.dtype), jnp.broadcast_to(score_N[None, :], shape)
