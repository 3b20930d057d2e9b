"""The linear algebra that the logistic probes share: losses, Hessian factors, Newton directions.

A probe's problem is small and dense. Its Newton direction comes from conjugate gradients in the
data's own precision, preconditioned by a Cholesky factor of the Hessian in float32: the factor
costs half of one in float64 (and is what accelerators are fast at), the gradients lose nothing.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Relative to a Hessian scaled to unit diagonal; keeps a float32 Cholesky of a singular one finite.
JITTER = 3e-6
# A Newton step that is off by this relative residual still gains three digits a step.
CG_TOLERANCE = 1e-3
CG_STEPS = 20
# Step sizes tried at once; logits are linear in the step, so each costs one pass over N. From a
# start where a saturated example is on the wrong side, only a tiny share of a step helps.
STEPS = (1.0, 0.5, *(4.0**-i for i in range(1, 16)))


class Loss(NamedTuple):
    """Logistic loss at one point: its value, residuals p - y and curvatures p (1 - p)."""

    value: jax.Array
    residual_N: jax.Array
    curvature_N: jax.Array


def logistic_loss(logit_N, y_N, weight_N) -> Loss:
    """Sum of weighted log(1 + exp(-s f)) with s = 2y - 1, and its first two derivatives in f."""
    p_N = jax.nn.sigmoid(logit_N)
    # p - y and p(1 - p) from the smaller tail, so that neither rounds to zero early.
    sign_N = 2 * y_N - 1
    tail_N = jax.nn.sigmoid(-sign_N * logit_N)
    value = jnp.sum(weight_N * jax.nn.softplus(-sign_N * logit_N))
    return Loss(value, -weight_N * sign_N * tail_N, weight_N * p_N * jax.nn.sigmoid(-logit_N))


def hessian_factor(z_NK, curvature_N, ridge_K, free_K):
    """Float32 Cholesky factor of `diag(ridge) + z' diag(curvature) z` on the free coordinates.

    Args:
        z_NK: Features.
        curvature_N: Non-negative curvature of each example's loss.
        ridge_K: Non-negative curvature of the penalty.
        free_K: True where a coordinate moves; the others become an identity block.

    Returns:
        A lower factor [K, K] of the matrix scaled to unit diagonal, and the scale [K] by which to
        multiply a vector before and after solving with it.
    """
    root_N = jnp.sqrt(curvature_N)
    # The root is applied before rounding to float32, so small curvatures keep their digits.
    scaled_NK = (z_NK * root_N[:, None]).astype(jnp.float32)
    ridge_K = ridge_K.astype(jnp.float32)
    diagonal_K = jnp.sum(scaled_NK * scaled_NK, axis=0) + ridge_K
    scale_K = jnp.where(free_K & (diagonal_K > 0), jax.lax.rsqrt(diagonal_K), 0)
    unit_NK = scaled_NK * scale_K[None, :]
    matrix_KK = jnp.matmul(unit_NK.T, unit_NK, preferred_element_type=jnp.float32)
    fill_K = jnp.where(scale_K > 0, ridge_K * scale_K**2 + JITTER, 1)
    return jnp.linalg.cholesky(matrix_KK + jnp.diag(fill_K)), scale_K


def newton_direction(z_NK, curvature_N, ridge_K, free_K, gradient_K):
    """Solves `H d = -gradient` on the free coordinates; 0 elsewhere.

    Conjugate gradients preconditioned by `hessian_factor`, in the dtype of `z_NK`.
    """
    factor_KK, scale_K = hessian_factor(z_NK, curvature_N, ridge_K, free_K)
    dtype = z_NK.dtype
    scale_K = scale_K.astype(dtype)

    def precondition(r_K):
        scaled_K = (r_K * scale_K).astype(jnp.float32)
        solved_K = jax.scipy.linalg.cho_solve((factor_KK, True), scaled_K)
        return solved_K.astype(dtype) * scale_K

    def apply_hessian(d_K):
        return jnp.where(free_K, z_NK.T @ (curvature_N * (z_NK @ d_K)) + ridge_K * d_K, 0)

    right_K = jnp.where(free_K, -gradient_K, 0)
    start_K = precondition(right_K)
    energy = right_K @ start_K

    def unfinished(state):
        step, _, _, _, rho = state
        return (step < CG_STEPS) & (rho > CG_TOLERANCE**2 * energy)

    def advance(state):
        step, d_K, r_K, p_K, rho = state
        hp_K = apply_hessian(p_K)
        curvature = p_K @ hp_K
        alpha = jnp.where(curvature > 0, rho / jnp.where(curvature > 0, curvature, 1), 0)
        d_K, r_K = d_K + alpha * p_K, r_K - alpha * hp_K
        s_K = precondition(r_K)
        next_rho = r_K @ s_K
        beta = next_rho / jnp.where(rho > 0, rho, 1)
        return step + 1, d_K, r_K, s_K + beta * p_K, next_rho

    state = (0, jnp.zeros_like(right_K), right_K, start_K, energy)
    return jax.lax.while_loop(unfinished, advance, state)[1]


def hessian(z_NK, curvature_N):
    """`z' diag(curvature) z`, in the dtype of `z_NK`."""
    return z_NK.T @ (z_NK * curvature_N[:, None])


def solve_free(hessian_KK, free_K, right_K, damping):
    """Solves `(H + damping diag H) d = right` on the free coordinates by Cholesky; 0 elsewhere."""
    diagonal_K = jnp.diag(hessian_KK)
    scale_K = jnp.where(free_K & (diagonal_K > 0), jax.lax.rsqrt(diagonal_K), 0)
    fill_K = jnp.where(scale_K > 0, damping, 1)
    unit_KK = hessian_KK * scale_K[:, None] * scale_K[None, :] + jnp.diag(fill_K)
    factor_KK = jnp.linalg.cholesky(unit_KK)
    return scale_K * jax.scipy.linalg.cho_solve((factor_KK, True), scale_K * right_K)
