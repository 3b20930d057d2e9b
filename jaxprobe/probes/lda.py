"""Linear discriminant analysis: the difference of class means, whitened by a shrunk covariance.

    w = S^-1 (mean over positives - mean over negatives)
    log-odds(x) = w'(x - (mean over positives + mean over negatives) / 2) + log(positives / negatives)
    S = (1 - t) W + t tr(W) / D * I,   W = within-class covariance, pooled

t is Ledoit and Wolf's: the share at which S is expected to be closest to the true covariance. Features are
standardised on all training rows. All of this is invariant to rotation, so the rows are replaced by the factor
of their Gram matrix (`gram`), and the linear system has min(N, D) unknowns.

References:
    Fisher, The Use of Multiple Measurements in Taxonomic Problems, 1936.
    Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices, 2004.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxprobe.probes import closed_form, gram, probe, scaling
from jaxprobe.probes.linear_model import LinearModel
from jaxprobe.probes.probe import Array

# Standardised features have variance 1. A within-class variance below the first is rounding (two rows, or
# each class a single point) and replaced by 1. Eigenvalues are raised to at least the second.
LEAST_VARIANCE = 1e-6
LEAST_EIGENVALUE = {"float32": 1e-5, "float64": 1e-10}


class Covariance(NamedTuple):
    """A covariance matrix, shrunk.

    Attributes:
        matrix_KK: Covariance before shrinkage.
        variance: Its trace over the number of features.
        shrinkage: t in [0, 1].
    """

    matrix_KK: Array
    variance: Array
    shrinkage: Array


def ledoit_wolf(r_NK: Array, weight_N: Array, num_features: Array | int) -> Covariance:
    """Covariance of residuals and its optimal shrinkage towards a multiple of the identity.

    Args:
        r_NK: Residuals of zero mean, in any coordinates that keep inner products; 0 where weight is.
        weight_N: Non-negative weights; weight w counts as w equal rows.
        num_features: Dimensions of the feature space; K may be smaller where the others are zero.
    """
    total = probe.total_weight(weight_N)
    weighted_NK = r_NK * jnp.sqrt(weight_N)[:, None]
    matrix_KK = weighted_NK.T @ weighted_NK / total
    variance = jnp.trace(matrix_KK) / num_features
    frobenius = jnp.sum(matrix_KK**2)
    fourth = jnp.sum(weight_N * jnp.sum(r_NK**2, axis=1) ** 2)
    noise = (fourth / total - frobenius) / (num_features * total)
    spread = frobenius / num_features - variance**2
    noise = jnp.clip(noise, 0, jnp.maximum(spread, 0))
    shrinkage = jnp.where(noise > 0, noise / jnp.where(spread > 0, spread, 1), 0)
    return Covariance(matrix_KK, variance, shrinkage)


class _Prepared(NamedTuple):
    reduced: gram.Reduced
    num_features: jax.Array  # features that vary: constant ones and columns of padding do not count


def _prepare(x_ND, weight_N, seed) -> _Prepared:
    del seed
    reduced = gram.reduce(x_ND, weight_N)
    varies_D = jnp.sum(reduced.x_ND**2 * weight_N[:, None], axis=0) > jnp.sum(weight_N) / 2
    return _Prepared(reduced, jnp.maximum(jnp.sum(varies_D.astype(x_ND.dtype)), 1))


def _model(prepared: _Prepared, y_N, weight_N) -> closed_form.LinearFit:
    """Log-odds as a linear function of the reduced rows."""
    z_NK = prepared.reduced.z_NK
    means = closed_form.class_means(z_NK, y_N, weight_N)
    mean_NK = y_N[:, None] * means.pos_D[None, :] + (1 - y_N)[:, None] * means.neg_D[None, :]
    within_NK = jnp.where(weight_N[:, None] > 0, z_NK - mean_NK, 0)
    within = ledoit_wolf(within_NK, weight_N, prepared.num_features)
    known = within.variance > LEAST_VARIANCE
    ridge = jnp.where(known, within.shrinkage * within.variance, 1)
    ridge = jnp.maximum(ridge, LEAST_EIGENVALUE[z_NK.dtype.name])
    share = jnp.where(known, 1 - within.shrinkage, 0)
    shrunk_KK = share * within.matrix_KK + ridge * jnp.eye(z_NK.shape[1], dtype=z_NK.dtype)
    factor = jax.scipy.linalg.cho_factor(shrunk_KK, lower=True)
    w_K = jax.scipy.linalg.cho_solve(factor, means.pos_D - means.neg_D)
    absent = (means.pos == 0) | (means.neg == 0)
    prior = jnp.log(jnp.where(absent, 1, means.pos) / jnp.where(absent, 1, means.neg))
    return closed_form.linear_fit(w_K, prior - w_K @ (means.pos_D + means.neg_D) / 2)


def _path(prepared: _Prepared, y_N, weight_N, value_H):
    model = _model(prepared, y_N, weight_N)
    score_N = prepared.reduced.z_NK @ model.coef_D + model.intercept
    return closed_form.one_candidate(score_N, value_H)


def _fit(prepared: _Prepared, y_N, weight_N, value, models_FH) -> closed_form.LinearFit:
    del value, models_FH
    return _model(prepared, y_N, weight_N)


def _finish(prepared: _Prepared, fit: closed_form.LinearFit) -> LinearModel:
    return gram.lift(prepared.reduced, fit.coef_D, fit.intercept)


PROBE = scaling.standardised(
    probe.Probe(
        prepare=_prepare,
        path=_path,
        fit=_fit,
        finish=_finish,
        values=probe.one_value,
        default=probe.no_value,
    )
)
