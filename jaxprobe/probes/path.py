"""What the converged solvers share: a fit, its certificate, the walk along a path of strengths."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


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


class State(NamedTuple):
    """Where a solver stands: `v_K` holds the weights and, last, the intercept."""

    v_K: jax.Array
    logit_N: jax.Array
    objective: jax.Array
    residual: jax.Array
    steps: jax.Array
    stalled: jax.Array


# (z_NK with a column of ones, y_N, weight_N, c, start v_K) -> the fit that minimises the objective
Minimise = Callable[..., Fit]


def tolerance(dtype) -> float:
    """Relative gap of the objective at which a fit counts as converged, by precision."""
    return 1e-7 if jnp.dtype(dtype) == jnp.float64 else 1e-5


def zero_fit(num_features: int, dtype) -> Fit:
    """The fit that knows nothing: where every path starts."""
    zero = jnp.zeros((), dtype)
    return Fit(jnp.zeros(num_features, dtype), zero, zero, zero, jnp.array(False), jnp.array(0))


def fit_from(minimise: Minimise, z_NK, y_N, weight_N, c, start: Fit | None) -> Fit:
    """One fit, from another or from nothing."""
    z_NK, y_N, weight_N = _with_intercept(z_NK, y_N, weight_N)
    start = zero_fit(z_NK.shape[1] - 1, z_NK.dtype) if start is None else start
    v_K = jnp.append(start.coef_K, start.intercept)
    return minimise(z_NK, y_N, weight_N, jnp.asarray(c, z_NK.dtype), v_K)


def walk(minimise: Minimise, z_NK, y_N, weight_N, c_R) -> Fit:
    """A fit for every strength, each warm from the last; fields gain a leading axis R."""
    z_NK, y_N, weight_N = _with_intercept(z_NK, y_N, weight_N)

    def advance(v_K, c):
        best = minimise(z_NK, y_N, weight_N, c, v_K)
        return jnp.append(best.coef_K, best.intercept), best

    v_K = jnp.zeros(z_NK.shape[1], z_NK.dtype)
    return jax.lax.scan(advance, v_K, jnp.asarray(c_R, z_NK.dtype))[1]


def begin(v_K, logit_N, objective) -> State:
    """The state before the first step."""
    infinity = jnp.array(jnp.inf, v_K.dtype)
    return State(v_K, logit_N, objective, infinity, jnp.array(0), jnp.array(False))


def finish(state: State, limit: float) -> Fit:
    """The fit that a solver ended with."""
    converged = state.residual <= limit
    return Fit(
        *(state.v_K[:-1], state.v_K[-1], state.objective, state.residual, converged, state.steps)
    )


def _with_intercept(z_NK, y_N, weight_N):
    """Appends the column of ones that carries the intercept; unifies dtypes."""
    z_NK = jnp.asarray(z_NK)
    ones_N1 = jnp.ones((z_NK.shape[0], 1), z_NK.dtype)
    labels = jnp.asarray(y_N, z_NK.dtype), jnp.asarray(weight_N, z_NK.dtype)
    return jnp.concatenate([z_NK, ones_N1], axis=1), *labels
