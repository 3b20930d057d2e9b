"""The linear algebra that the logistic probes share: losses, Hessian factors, Newton directions.

A probe's problem is small and dense. Logits, gradients and objectives are in the data's own precision
(float64 on CPUs); the Hessian's factor and the systems solved with it are in float32, which is half the
work and costs precision only in a step's direction, never in the optimum that is reached.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxprobe.probes.probe import Array

# Relative to a Hessian scaled to unit diagonal; keeps a float32 Cholesky of a singular one finite.
JITTER = 3e-6
# With this relative residual, a step still gains two digits of the objective.
CG_TOLERANCE = 0.1
CG_STEPS = 20
# Beyond this many steps of conjugate gradients, a new factor is cheaper.
STALE_STEPS = 6
# Step sizes are tried four at a time until one helps; logits are linear in the step, so each costs a
# pass over N. From a start with a saturated example on the wrong side, only a tiny step helps.
STEPS = (1.0, 0.5, 0.25, 0.125)
STEP_ROUNDS = 8


class Slope(NamedTuple):
    """Derivatives of the logistic loss by the logits: residuals p - y and curvatures p (1 - p)."""

    residual_N: Array
    curvature_N: Array


class Factor(NamedTuple):
    """Cholesky factor `upper' upper` of a Hessian scaled to unit diagonal, and each side's scale.

    Upper, because its rows are then the lower factor's columns, the layout that LAPACK needs: a lower factor
    would be copied before every solve, which would take two to four times as long.
    """

    upper_KK: Array
    scale_K: Array


class Step(NamedTuple):
    """The best step size found, the value there, and whether that is an improvement."""

    size: Array
    value: Array
    better: Array


def logistic_loss(logit_N: Array, y_N: Array, weight_N: Array) -> Array:
    """Sum of weighted log(1 + exp(-s f)) with s = 2y - 1, in nats."""
    return jnp.sum(weight_N * jax.nn.softplus((1 - 2 * y_N) * logit_N))


def slope(logit_N: Array, y_N: Array, weight_N: Array) -> Slope:
    """First two derivatives of `logistic_loss` by each logit."""
    # p - y and p(1 - p) are computed from the smaller tail, so that neither rounds to zero early.
    sign_N = 2 * y_N - 1
    tail_N = jax.nn.sigmoid(-sign_N * logit_N)
    return Slope(-weight_N * sign_N * tail_N, weight_N * tail_N * jax.nn.sigmoid(sign_N * logit_N))


def hessian(z_NK: Array, curvature_N: Array) -> Array:
    """`z' diag(curvature) z`, in float32."""
    # The root is applied before rounding to float32, so small curvatures keep their digits.
    scaled_NK = (z_NK * jnp.sqrt(curvature_N)[:, None]).astype(jnp.float32)
    return scaled_NK.T @ scaled_NK


def no_factor(num_weights: int) -> Factor:
    """A placeholder for a factor, before the first one is computed."""
    blank_KK = jnp.zeros((num_weights, num_weights), jnp.float32)
    return Factor(blank_KK, blank_KK[0])


def factorise(z_NK: Array, curvature_N: Array, ridge_K: Array) -> Factor:
    """Float32 factor of `diag(ridge) + z' diag(curvature) z`; a column of zeros gets scale 0."""
    matrix_KK = hessian(z_NK, curvature_N)
    ridge_K = ridge_K.astype(jnp.float32)
    diagonal_K = jnp.diag(matrix_KK) + ridge_K
    scale_K = jnp.where(diagonal_K > 0, jax.lax.rsqrt(diagonal_K), 0)
    unit_KK = matrix_KK * scale_K[:, None] * scale_K[None, :]
    fill_K = jnp.where(scale_K > 0, ridge_K * scale_K**2 + JITTER, 1)
    return Factor(_cholesky(unit_KK + jnp.diag(fill_K)), scale_K)


def _cholesky(matrix_KK):
    return jnp.linalg.cholesky(matrix_KK, symmetrize_input=False).T


def solve(factor: Factor, right_K: Array) -> Array:
    """Applies the factored matrix's inverse, in float32; 0 where the scale is 0."""
    scaled_K1 = (right_K.astype(jnp.float32) * factor.scale_K)[:, None]
    by_lower = functools.partial(
        jax.lax.linalg.triangular_solve, factor.upper_KK.T, left_side=True, lower=True
    )
    return by_lower(by_lower(scaled_K1), transpose_a=True)[:, 0] * factor.scale_K


def direction(
    z_NK: Array, curvature_N: Array, ridge_K: Array, gradient_K: Array, factor: Factor
) -> tuple[Array, Array]:
    """Solves `H d = -gradient` nearly, by conjugate gradients in float32.

    Args:
        z_NK: Features in float32.
        curvature_N: Curvature of each example's loss.
        ridge_K: Curvature of the penalty.
        gradient_K: In the data's precision.
        factor: The preconditioner: a factor of this Hessian or of one nearby.

    Returns:
        The direction in the gradient's precision, and the number of steps taken.
    """
    # Gradients late on a path are tiny, so they are scaled before they become float32.
    size = jnp.max(jnp.abs(gradient_K))
    size = jnp.where(size > 0, size, 1)
    right_K = (-gradient_K / size).astype(jnp.float32)
    curvature_N, ridge_K = curvature_N.astype(jnp.float32), ridge_K.astype(jnp.float32)
    start_K = solve(factor, right_K)
    energy = right_K @ start_K

    def unfinished(state):
        step, _, _, _, rho = state
        return (step < CG_STEPS) & (rho > CG_TOLERANCE**2 * energy)

    def advance(state):
        step, d_K, r_K, p_K, rho = state
        hp_K = ridge_K * p_K + (curvature_N * (z_NK @ p_K)) @ z_NK
        curvature = p_K @ hp_K
        alpha = jnp.where(curvature > 0, rho / jnp.where(curvature > 0, curvature, 1), 0)
        d_K, r_K = d_K + alpha * p_K, r_K - alpha * hp_K
        s_K = solve(factor, r_K)
        next_rho = r_K @ s_K
        beta = next_rho / jnp.where(rho > 0, rho, 1)
        return step + 1, d_K, r_K, s_K + beta * p_K, next_rho

    state = (0, jnp.zeros_like(right_K), right_K, start_K, energy)
    steps, d_K, *_ = jax.lax.while_loop(unfinished, advance, state)
    return d_K.astype(gradient_K.dtype) * size, steps


def search(value: Callable[[Array], Array], now: Array) -> Step:
    """The best of four step sizes, shrunk together until one of them improves on `now`."""
    size_T = jnp.asarray(STEPS, now.dtype)

    def unfinished(state):
        rounds, step = state
        return (rounds < STEP_ROUNDS) & ~step.better

    def advance(state):
        rounds, _ = state
        trial_T = size_T * (STEPS[-1] / 2) ** rounds.astype(now.dtype)
        value_T = jax.vmap(value)(trial_T)
        value_T = jnp.where(jnp.isnan(value_T), jnp.inf, value_T)
        best = jnp.argmin(value_T)
        return rounds + 1, Step(trial_T[best], value_T[best], value_T[best] < now)

    start = Step(jnp.zeros_like(now), now, jnp.array(False))
    step = jax.lax.while_loop(unfinished, advance, (jnp.array(0), start))[1]
    return Step(jnp.where(step.better, step.size, 0), jnp.minimum(step.value, now), step.better)


def solve_free(hessian_KK: Array, free_K: Array, right_K: Array, damping: Array) -> Array:
    """Solves `(H + damping diag H) d = right` on the free coordinates by Cholesky; 0 elsewhere."""
    diagonal_K = jnp.diag(hessian_KK)
    scale_K = jnp.where(free_K & (diagonal_K > 0), jax.lax.rsqrt(diagonal_K), 0)
    damping = jnp.maximum(damping.astype(jnp.float32), JITTER)
    unit_KK = hessian_KK * scale_K[:, None] * scale_K[None, :]
    upper_KK = _cholesky(unit_KK + jnp.diag(jnp.where(scale_K > 0, damping, 1)))
    return solve(Factor(upper_KK, scale_K), right_K).astype(right_K.dtype)
