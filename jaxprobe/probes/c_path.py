"""What the solvers that run to convergence share: a fit, its certificate, a path of strengths."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxprobe.probes.probe import Array

# Estimated relative gap of the objective, before the last step, at which a fit counts as converged;
# that step then leaves about a hundredth of it.
TOLERANCE = 1e-5
ROUGH = 1e-3  # the same for a fit that only serves as a start for another
# Fractions of the last move along the path that are tried as the next one. Strengths are equally spaced
# in log C, in which a path is nearly straight once the separable examples are separated.
FORESIGHT = (0.0, 0.25, 0.5, 0.75, 1.0)


class Fit(NamedTuple):
    """One fitted probe.

    Attributes:
        coef_K: Weights.
        intercept: Bias.
        objective: Value of the minimised function.
        residual: Certificate: estimated relative distance of the objective to its minimum, before
            the last step.
        converged: Whether the residual is within `TOLERANCE`.
        steps: Newton steps taken.
    """

    coef_K: Array
    intercept: Array
    objective: Array
    residual: Array
    converged: Array
    steps: Array


class Solver(NamedTuple):
    """A convex problem's functions, over `v_K`: the weights and, last, the intercept.

    Attributes:
        minimise: `(z_NK with ones, y_N, weight_N, c, start v_K, kept, tolerance) -> (Fit, kept)`, where
            `kept` is what a fit passes to the next besides its weights, to save work.
        nothing: `num_weights -> kept` for the first fit.
        foresee: `(z_NK with ones, y_N, weight_N, c, v_K, move_K) -> start v_K`, the best of several
            fractions of `move_K` away from `v_K`.
    """

    minimise: Callable[..., tuple[Fit, Any]]
    nothing: Callable[[int], Any]
    foresee: Callable[..., jax.Array]


def fit_from(
    solver: Solver, z_NK: Array, y_N: Array, weight_N: Array, c: Array | float, start: Fit | None
) -> Fit:
    """One fit, started from another fit or from zero."""
    z_NK, y_N, weight_N = _with_intercept(z_NK, y_N, weight_N)
    v_K = jnp.zeros(z_NK.shape[1], z_NK.dtype)
    if start is not None:
        v_K = jnp.append(start.coef_K, start.intercept)
    c, kept = jnp.asarray(c, z_NK.dtype), solver.nothing(z_NK.shape[1])
    return solver.minimise(z_NK, y_N, weight_N, c, v_K, kept, TOLERANCE)[0]


def walk(solver: Solver, z_NK: Array, y_N: Array, weight_N: Array, c_R: Array) -> Fit:
    """A fit for every strength, each started from the last two; fields gain a leading axis R."""
    z_NK, y_N, weight_N = _with_intercept(z_NK, y_N, weight_N)

    def advance(carry, c):
        v_K, before_K, kept = carry
        start_K = solver.foresee(z_NK, y_N, weight_N, c, v_K, v_K - before_K)
        best, kept = solver.minimise(z_NK, y_N, weight_N, c, start_K, kept, TOLERANCE)
        return (jnp.append(best.coef_K, best.intercept), v_K, kept), best

    v_K = jnp.zeros(z_NK.shape[1], z_NK.dtype)
    start = (v_K, v_K, solver.nothing(z_NK.shape[1]))
    return jax.lax.scan(advance, start, jnp.asarray(c_R, z_NK.dtype))[1]


def walk_to(
    solver: Solver, z_NK: Array, y_N: Array, weight_N: Array, c_R: Array, c: Array | float
) -> Fit:
    """A fit at one strength, reached through the smaller ones of `c_R`, each fitted roughly.

    Starting from a fit on other rows can take longer: a row that it left out may be far on the wrong side,
    where the loss has no curvature left for Newton's method to use.
    """
    z_NK, y_N, weight_N = _with_intercept(z_NK, y_N, weight_N)
    way_R = jnp.append(jnp.asarray(c_R, z_NK.dtype), jnp.inf)

    def advance(state):
        r, v_K, before_K, kept, _ = state
        here = jnp.minimum(way_R[r], c)
        start_K = solver.foresee(z_NK, y_N, weight_N, here, v_K, v_K - before_K)
        tolerance = jnp.where(here < c, ROUGH, TOLERANCE)
        best, kept = solver.minimise(z_NK, y_N, weight_N, here, start_K, kept, tolerance)
        next_r = jnp.where(here < c, r + 1, -1)
        return next_r, jnp.append(best.coef_K, best.intercept), v_K, kept, best

    zero_K, zero = jnp.zeros(z_NK.shape[1], z_NK.dtype), jnp.zeros((), z_NK.dtype)
    blank = finish(zero_K, zero, zero, jnp.array(0))
    start = (jnp.array(0), zero_K, zero_K, solver.nothing(z_NK.shape[1]), blank)
    return jax.lax.while_loop(lambda state: state[0] >= 0, advance, start)[-1]


def finish(v_K: Array, objective: Array, residual: Array, steps: Array) -> Fit:
    """A solver's last state as a fit."""
    return Fit(v_K[:-1], v_K[-1], objective, residual, residual <= TOLERANCE, steps)


def _with_intercept(z_NK, y_N, weight_N):
    """Appends the column of ones that carries the intercept; unifies dtypes."""
    z_NK = jnp.asarray(z_NK)
    ones_N1 = jnp.ones((z_NK.shape[0], 1), z_NK.dtype)
    labels = jnp.asarray(y_N, z_NK.dtype), jnp.asarray(weight_N, z_NK.dtype)
    return jnp.concatenate([z_NK, ones_N1], axis=1), *labels
