"""L2-regularised logistic regression, to convergence, along a path of strengths.

    minimise over w, b:   1/2 w'w + C * sum_n weight_n log(1 + exp(-s_n (w'z_n + b))),   s = 2y - 1

Damped Newton, each C started at the last solution. The problem is invariant to rotating the
features and, b being unpenalised, to moving them; `features.reduce` uses both.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxprobe.probes import newton

MAX_STEPS = 60
# Growing C scales a solution up; trying a few scales first saves Newton steps.
WARM_SCALES = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.9)


class Fit(NamedTuple):
    """One fitted probe.

    Attributes:
        coef_K: Weights.
        intercept: Bias.
        objective: Value of the minimised function.
        residual: Certificate: estimated relative distance of the objective to its minimum.
        converged: Whether the residual is within tolerance.
        steps: Newton steps taken.
    """

    coef_K: jax.Array
    intercept: jax.Array
    objective: jax.Array
    residual: jax.Array
    converged: jax.Array
    steps: jax.Array


def tolerance(dtype) -> float:
    """Relative gap of the objective at which a fit counts as converged, by precision."""
    return 1e-8 if jnp.dtype(dtype) == jnp.float64 else 1e-5


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
    z_NK, y_N, weight_N = _prepare(z_NK, y_N, weight_N)
    start = zero_fit(z_NK.shape[1] - 1, z_NK.dtype) if start is None else start
    v_K = jnp.append(start.coef_K, start.intercept)
    return _minimise(z_NK, y_N, weight_N, jnp.asarray(c, z_NK.dtype), v_K)


def fit_path(z_NK, y_N, weight_N, c_R) -> Fit:
    """Fits a probe for every strength, each warm from the last; fields gain a leading axis R.

    Args:
        z_NK: Features.
        y_N: Labels in {0, 1}.
        weight_N: Non-negative example weights; 0 leaves an example out.
        c_R: Strengths, rising.
    """
    z_NK, y_N, weight_N = _prepare(z_NK, y_N, weight_N)

    def advance(v_K, c):
        best = _minimise(z_NK, y_N, weight_N, c, v_K)
        return jnp.append(best.coef_K, best.intercept), best

    v_K = jnp.zeros(z_NK.shape[1], z_NK.dtype)
    return jax.lax.scan(advance, v_K, jnp.asarray(c_R, z_NK.dtype))[1]


def value(fit: Fit, z_NK, y_N, weight_N, c):
    """The objective that a fit has on other data or at another strength."""
    loss = newton.logistic_loss(z_NK @ fit.coef_K + fit.intercept, y_N, weight_N)
    return fit.coef_K @ fit.coef_K / 2 + c * loss.value


def zero_fit(num_features: int, dtype) -> Fit:
    """The fit that knows nothing: where every path starts."""
    zero = jnp.zeros((), dtype)
    return Fit(jnp.zeros(num_features, dtype), zero, zero, zero, jnp.array(False), jnp.array(0))


def _prepare(z_NK, y_N, weight_N):
    """Appends the column of ones that carries the intercept; unifies dtypes."""
    z_NK = jnp.asarray(z_NK)
    ones_N1 = jnp.ones((z_NK.shape[0], 1), z_NK.dtype)
    labels = jnp.asarray(y_N, z_NK.dtype), jnp.asarray(weight_N, z_NK.dtype)
    return jnp.concatenate([z_NK, ones_N1], axis=1), *labels


class _State(NamedTuple):
    v_K: jax.Array
    logit_N: jax.Array
    objective: jax.Array
    residual: jax.Array
    steps: jax.Array
    stalled: jax.Array


def _minimise(z_NK, y_N, weight_N, c, v_K) -> Fit:
    ridge_K = jnp.ones_like(v_K).at[-1].set(0)
    free_K = jnp.ones(v_K.shape, bool)
    limit = tolerance(z_NK.dtype)

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
        return _State(
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
    start = _State(
        *(scale * v_K, scale * logit_N, jnp.min(value_S)),
        *(jnp.array(jnp.inf, z_NK.dtype), jnp.array(0), jnp.array(False)),
    )
    end = jax.lax.while_loop(unfinished, advance, start)
    return Fit(
        *(end.v_K[:-1], end.v_K[-1], end.objective, end.residual),
        *(end.residual <= limit, end.steps),
    )
