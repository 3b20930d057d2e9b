"""Fewer columns for an L2 problem, with the same solution.

An L2 probe sees its examples only through their inner products, and its free intercept makes it
blind to where the origin lies. So features may be centred, and where there are fewer examples
than dimensions, replaced by the Cholesky factor of their Gram matrix: d_model vanishes.
"""

import jax
import jax.numpy as jnp

# Relative to the mean squared length; keeps the factor of a rank-deficient Gram matrix finite.
JITTER = {"float32": 1e-5, "float64": 1e-11}


def reduce(x_train_ND, weight_N, x_test_MD):
    """Columns for an L2 problem that has the same scores and the same objective.

    Args:
        x_train_ND: Training features.
        weight_N: 0 for rows that only pad.
        x_test_MD: Features to score.

    Returns:
        z_train_NK and z_test_MK with K = min(N, D), and their inner products (between training
        rows, and of test with training rows) those of the centred inputs.
    """
    weight_N = weight_N.astype(x_train_ND.dtype)
    mean_D = weight_N @ x_train_ND / jnp.maximum(jnp.sum(weight_N), 1)
    x_train_ND = (x_train_ND - mean_D[None, :]) * weight_N[:, None]
    x_test_MD = x_test_MD - mean_D[None, :]
    num_rows, d_model = x_train_ND.shape
    if num_rows > d_model:
        return x_train_ND, x_test_MD
    gram_NN = x_train_ND @ x_train_ND.T
    floor = JITTER[gram_NN.dtype.name] * jnp.trace(gram_NN) / jnp.maximum(jnp.sum(weight_N), 1)
    # Padding rows have zero Gram rows; the floor (1 if everything is zero) carries them.
    floor = jnp.where(floor > 0, floor, 1)
    factor_NK = jnp.linalg.cholesky(gram_NN + floor * jnp.eye(num_rows, dtype=gram_NN.dtype))
    cross_NM = x_train_ND @ x_test_MD.T
    z_test_KM = jax.scipy.linalg.solve_triangular(factor_NK, cross_NM, lower=True)
    return factor_NK * weight_N[:, None], z_test_KM.T
