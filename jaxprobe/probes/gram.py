"""Fewer columns for an L2 problem, with the same solution.

An L2 probe depends on its examples only through their inner products, and its unpenalised intercept makes
it independent of the origin. So features may be centred and, where there are fewer examples than dimensions,
replaced by the Cholesky factor of their Gram matrix, whose size does not depend on d_model.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxprobe.probes import probe, scaling
from jaxprobe.probes.linear_model import LinearModel
from jaxprobe.probes.probe import Array

# Relative to the mean squared length; keeps the factor of a rank-deficient Gram matrix finite.
JITTER = {"float32": 1e-5, "float64": 1e-11}


class Reduced(NamedTuple):
    """Columns for an L2 problem that has the same scores and the same objective.

    Attributes:
        z_NK: Training examples, K = min(N, D); rows of weight 0 are zero.
        x_ND: The centred examples that z stands for.
        mean_D: What was subtracted.
        lower_NN: z itself where it is a Gram matrix's factor, else None.
    """

    z_NK: jax.Array
    x_ND: jax.Array
    mean_D: jax.Array
    lower_NN: jax.Array | None


def reduce(x_ND: Array, weight_N: Array) -> Reduced:
    """Centres and reduces training examples.

    Centres here rather than by `scaling.centred`: the Gram matrix needs it, and `lift` undoes both at once.

    Args:
        x_ND: Training features.
        weight_N: Non-negative weights; 0 for rows that only pad.
    """
    x_ND, mean_D, _ = scaling.centre(x_ND, weight_N)
    num_rows, d_model = x_ND.shape
    if num_rows > d_model:
        return Reduced(x_ND, x_ND, mean_D, None)
    gram_NN = x_ND @ x_ND.T
    counted = probe.total_weight((weight_N > 0).astype(gram_NN.dtype))
    floor = JITTER[gram_NN.dtype.name] * jnp.trace(gram_NN) / counted
    # Padding rows have zero Gram rows; the floor (1 if everything is zero) keeps them positive definite.
    floor = jnp.where(floor > 0, floor, 1)
    lower_NN = jnp.linalg.cholesky(gram_NN + floor * jnp.eye(num_rows, dtype=gram_NN.dtype))
    # Weights belong to the loss; here they only tell rows from padding.
    return Reduced(jnp.where(weight_N[:, None] > 0, lower_NN, 0), x_ND, mean_D, lower_NN)


def lift(reduced: Reduced, coef_K: Array, intercept: Array) -> LinearModel:
    """The model of raw features that scores as `coef_K` and `intercept` do on `z`."""
    coef_D = coef_K
    if reduced.lower_NN is not None:
        # w = X'a with X X'a = L v, so a = L'^-1 v.
        dual_N = jax.scipy.linalg.solve_triangular(reduced.lower_NN.T, coef_K, lower=False)
        coef_D = dual_N @ reduced.x_ND
    return LinearModel(coef_D=coef_D, intercept=intercept - reduced.mean_D @ coef_D)
