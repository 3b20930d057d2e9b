"""L2-regularised logistic regression, to convergence, along a path of strengths.

    minimise over w, b:   1/2 w'w + C * sum_n weight_n log(1 + exp(-s_n (w'z_n + b))),   s = 2y - 1

Damped Newton, each C started at the last solution. The problem is invariant to rotating the
features and, b being unpenalised, to moving them; `reduction.reduce` uses both.
"""

import jax
import jax.numpy as jnp

from jaxprobe.probes import newton, path
from jaxprobe.probes.path import Fit

MAX_STEPS = 60
# Growing C scales a solution up; trying a few scales first saves Newton steps.
WARM_SCALES = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.9)


def fit(z_NK, y_N, weight_N, c, start: Fit | None = None) -> Fit:
    """Fits one probe.

    Args:
        z_NK: Features, float32 or float64; the arithmetic follows their dtype.
        y_N: Labels in {0, 1}.
        weight_N: Non-negative example weights; 0 leaves an example out.
        c: Inverse regularisation strength, above 0.
        start: A fit to start from.

    Returns:
        The fit. `residual` is half the squared Newton decrement over the objective.

    References:
        Boyd and Vandenberghe, Convex Optimization, 2004, section 9.5.
    """
    return path.fit_from(_minimise, z_NK, y_N, weight_N, c, start)


def fit_path(z_NK, y_N, weight_N, c_R) -> Fit:
    """Fits a probe for every strength, each warm from the last; fields gain a leading axis R.

    Args:
        z_NK: Features.
        y_N: Labels in {0, 1}.
        weight_N: Non-negative example weights; 0 leaves an example out.
        c_R: Strengths, rising.
    """
    return path.walk(_minimise, z_NK, y_N, weight_N, c_R)


def value(fit: Fit, z_NK, y_N, weight_N, c):
    """The objective that a fit has on other data or at another strength."""
    loss = newton.logistic_loss(z_NK @ fit.coef_K + fit.intercept, y_N, weight_N)
    return fit.coef_K @ fit.coef_K / 2 + c * loss.value


def _minimise(z_NK, y_N, weight_N, c, v_K) -> Fit:
    ridge_K = jnp.ones_like(v_K).at[-1].set(0)
    free_K = jnp.ones(v_K.shape, bool)
    limit = path.tolerance(z_NK.dtype)

    def objective(squared_norm, logit_N):
        return squared_norm / 2 + c * newton.logistic_loss(logit_N, y_N, weight_N).value

    def unfinished(state):
        return (state.residual > limit) & (state.steps < MAX_STEPS) & ~state.stalled

    def advance(state):
        loss = newton.logistic_loss(state.logit_N, y_N, weight_N)
        gradient_K = ridge_K * state.v_K + c * (z_NK.T @ loss.residual_N)
        d_K = newton.newton_direction(z_NK, c * loss.curvature_N, ridge_K, free_K, gradient_K)
        move_N = z_NK @ d_K
        step_T = jnp.asarray(newton.STEPS, z_NK.dtype)
        norms = [
            jnp.sum(ridge_K * a * b) for a, b in ((state.v_K,) * 2, (state.v_K, d_K), (d_K,) * 2)
        ]
        norm_T = norms[0] + 2 * step_T * norms[1] + step_T**2 * norms[2]
        value_T = jax.vmap(lambda t, norm: objective(norm, state.logit_N + t * move_N))(
            step_T, norm_T
        )
        best = jnp.argmin(jnp.where(jnp.isnan(value_T), jnp.inf, value_T))
        better = value_T[best] < state.objective
        step = jnp.where(better, step_T[best], 0)
        decrement = jnp.maximum(-gradient_K @ d_K, 0)
        return path.State(
            v_K=state.v_K + step * d_K,
            logit_N=state.logit_N + step * move_N,
            objective=jnp.where(better, value_T[best], state.objective),
            residual=decrement / (2 * jnp.maximum(state.objective, jnp.finfo(z_NK.dtype).tiny)),
            steps=state.steps + 1,
            stalled=~better,
        )

    scale_S = jnp.asarray(WARM_SCALES, z_NK.dtype)
    logit_N, norm = z_NK @ v_K, jnp.sum(ridge_K * v_K * v_K)
    value_S = jax.vmap(lambda s: objective(s * s * norm, s * logit_N))(scale_S)
    scale = scale_S[jnp.argmin(value_S)]
    start = path.begin(scale * v_K, scale * logit_N, jnp.min(value_S))
    return path.finish(jax.lax.while_loop(unfinished, advance, start), limit)
