"""Fewer columns for an L2 problem, with the same solution.

An L2 probe sees its examples only through their inner products, and its free intercept makes it
blind to where the origin lies. So features may be centred, and where there are fewer examples
than dimensions, replaced by the Cholesky factor of their Gram matrix: d_model vanishes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxprobe.probes import probe

# Relative to the mean squared length; keeps the factor of a rank-deficient Gram matrix finite.
JITTER = {"float32": 1e-5, "float64": 1e-11}


class Reduced(NamedTuple):
    """Columns for an L2 problem that has the same scores and the same objective.

    Attributes:
        z_NK: Training examples, K = min(N, D); rows of weight 0 are zero.
        x_ND: The centred (and scaled) examples that z stands for.
        mean_D, scale_D: What was subtracted, and then divided by.
        lower_NN: z itself where it is a Gram matrix's factor, else None.
    """

    z_NK: jax.Array
    x_ND: jax.Array
    mean_D: jax.Array
    scale_D: jax.Array
    lower_NN: jax.Array | None


def reduce(x_ND, weight_N, *, standardise: bool = False) -> Reduced:
    """Centres, scales and reduces training examples.

    Args:
        x_ND: Training features.
        weight_N: Non-negative weights; 0 for rows that only pad.
        standardise: Whether to divide by each feature's standard deviation.
    """
    x_ND, mean_D, scale_D = centre(x_ND, weight_N, standardise=standardise)
    num_rows, d_model = x_ND.shape
    if num_rows > d_model:
        return Reduced(x_ND, x_ND, mean_D, scale_D, None)
    gram_NN = x_ND @ x_ND.T
    counted = probe.total_weight((weight_N > 0).astype(gram_NN.dtype))
    floor = JITTER[gram_NN.dtype.name] * jnp.trace(gram_NN) / counted
    # Padding rows have zero Gram rows; the floor (1 if everything is zero) carries them.
    floor = jnp.where(floor > 0, floor, 1)
    lower_NN = jnp.linalg.cholesky(gram_NN + floor * jnp.eye(num_rows, dtype=gram_NN.dtype))
    # Weights are the loss's; here they only say which rows there are.
    return Reduced(jnp.where(weight_N[:, None] > 0, lower_NN, 0), x_ND, mean_D, scale_D, lower_NN)


def lift(reduced: Reduced, coef_K, intercept):
    """Weights and bias on raw features that score as `coef_K` and `intercept` do on `z`."""
    coef_D = coef_K
    if reduced.lower_NN is not None:
        # w = X'a with X X'a = L v, so a = L'^-1 v.
        dual_N = jax.scipy.linalg.solve_triangular(reduced.lower_NN.T, coef_K, lower=False)
        coef_D = dual_N @ reduced.x_ND
    coef_D = coef_D / reduced.scale_D
    return coef_D, intercept - reduced.mean_D @ coef_D


def centre(x_ND, weight_N, *, standardise: bool = False):
    """Subtracts the weighted mean and, if asked, divides by the standard deviation.

    Returns:
        The features (0 in rows of weight 0), the mean, and the scale: 1 for a feature that is
        constant up to rounding, as in scikit-learn's `StandardScaler`.
    """
    weight_N = weight_N.astype(x_ND.dtype)
    total = probe.total_weight(weight_N)
    mean_D = weight_N @ x_ND / total
    x_ND = jnp.where(weight_N[:, None] > 0, x_ND - mean_D[None, :], 0)
    if not standardise:
        return x_ND, mean_D, jnp.ones_like(mean_D)
    variance_D = jnp.sum(x_ND * x_ND * weight_N[:, None], axis=0) / total
    epsilon = jnp.finfo(x_ND.dtype).eps
    rounding_D = total * epsilon * variance_D + (total * epsilon * mean_D) ** 2
    scale_D = jnp.where(variance_D <= rounding_D, 1, jnp.sqrt(variance_D))
    return x_ND / scale_D[None, :], mean_D, scale_D
