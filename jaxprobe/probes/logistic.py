"""L2-regularised logistic regression, to convergence, along a path of strengths.

    minimise over w, b:   1/2 w'w + C * sum_n weight_n log(1 + exp(-s_n (w'z_n + b))),   s = 2y - 1

Damped Newton, each C started from the last two solutions. A factor of the Hessian serves as
preconditioner for as many steps as it helps. The problem is invariant to rotating the features and,
because b is not penalised, to translating them; `gram` uses both.

References:
    Boyd and Vandenberghe, Convex Optimization, 2004, section 9.5.
    Nocedal and Wright, Numerical Optimization, 2006, section 7.1 (inexact Newton).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxprobe.probes import c_path, candidates, gram, newton, probe, scaling
from jaxprobe.probes.c_path import Fit
from jaxprobe.probes.linear_model import LinearModel
from jaxprobe.probes.probe import Array

MAX_STEPS = 60
C_GRID = candidates.powers(10, -5, 5, 10)
DEFAULT_C = 1.0  # of probes with too few rows to validate


def fit(
    z_NK: Array, y_N: Array, weight_N: Array, c: Array | float, start: Fit | None = None
) -> Fit:
    """Fits one probe.

    Args:
        z_NK: Features, float32 or float64; the arithmetic follows their dtype.
        y_N: Labels in {0, 1}.
        weight_N: Non-negative example weights; 0 leaves an example out.
        c: Inverse regularisation strength, above 0.
        start: A fit to start from.

    Returns:
        The fit. `residual` is half the squared Newton decrement over the objective.
    """
    return c_path.fit_from(SOLVER, z_NK, y_N, weight_N, c, start)


def fit_path(z_NK: Array, y_N: Array, weight_N: Array, c_R: Array) -> Fit:
    """Fits a probe for every strength; fields gain a leading axis R.

    Args:
        z_NK: Features.
        y_N: Labels in {0, 1}.
        weight_N: Non-negative example weights; 0 leaves an example out.
        c_R: Strengths, increasing, ideally in equal ratios.
    """
    return c_path.walk(SOLVER, z_NK, y_N, weight_N, c_R)


class _Kept(NamedTuple):
    """A factor, and whether the next step needs a fresh one."""

    factor: newton.Factor
    stale: Array


class _State(NamedTuple):
    v_K: Array
    logit_N: Array
    objective: Array
    residual: Array
    steps: Array
    stalled: Array
    kept: _Kept


def _minimise(z_NK, y_N, weight_N, c, v_K, kept: _Kept, tolerance) -> tuple[Fit, _Kept]:
    ridge_K = jnp.ones_like(v_K).at[-1].set(0)
    single_NK = z_NK.astype(jnp.float32)

    def unfinished(state):
        going = (state.steps < MAX_STEPS) & ~state.stalled
        return going & (state.residual > tolerance)

    def advance(state):
        slope = newton.slope(state.logit_N, y_N, weight_N)
        curvature_N = c * slope.curvature_N
        gradient_K = ridge_K * state.v_K + c * (slope.residual_N @ z_NK)
        factor = jax.lax.cond(
            state.kept.stale,
            lambda: newton.factorise(z_NK, curvature_N, ridge_K),
            lambda: state.kept.factor,
        )
        d_K, effort = newton.direction(single_NK, curvature_N, ridge_K, gradient_K, factor)
        move_N = z_NK @ d_K
        along = _along(z_NK.dtype, ridge_K, state.v_K, d_K)
        step = newton.search(
            lambda t: (
                along(t) + c * newton.logistic_loss(state.logit_N + t * move_N, y_N, weight_N)
            ),
            state.objective,
        )
        decrement = jnp.maximum(-gradient_K @ d_K, 0)
        return _State(
            v_K=state.v_K + step.size * d_K,
            logit_N=state.logit_N + step.size * move_N,
            objective=step.value,
            residual=decrement / (2 * jnp.maximum(state.objective, jnp.finfo(z_NK.dtype).tiny)),
            steps=state.steps + 1,
            stalled=~step.better & state.kept.stale,
            kept=_Kept(factor, (effort > newton.STALE_STEPS) | (step.size < 1)),
        )

    logit_N = z_NK @ v_K
    objective = jnp.sum(ridge_K * v_K * v_K) / 2 + c * newton.logistic_loss(logit_N, y_N, weight_N)
    infinity, no = jnp.array(jnp.inf, v_K.dtype), jnp.array(False)
    start = _State(v_K, logit_N, objective, infinity, jnp.array(0), no, kept)
    end = jax.lax.while_loop(unfinished, advance, start)
    return c_path.finish(end.v_K, end.objective, end.residual, end.steps), end.kept


def _nothing(num_weights: int) -> _Kept:
    return _Kept(newton.no_factor(num_weights), jnp.array(True))


def _foresee(z_NK, y_N, weight_N, c, v_K, move_K):
    ridge_K = jnp.ones_like(v_K).at[-1].set(0)
    logit_N, move_N = z_NK @ v_K, z_NK @ move_K
    along = _along(z_NK.dtype, ridge_K, v_K, move_K)

    def worth(t):
        return along(t) + c * newton.logistic_loss(logit_N + t * move_N, y_N, weight_N)

    share_T = jnp.asarray(c_path.FORESIGHT, v_K.dtype)
    return v_K + share_T[jnp.argmin(jax.vmap(worth)(share_T))] * move_K


def _along(dtype, ridge_K, v_K, d_K):
    """Half the penalised squared norm of `v + t d`, as a function of t."""
    norms = [jnp.sum(ridge_K * a * b) for a, b in ((v_K, v_K), (v_K, d_K), (d_K, d_K))]
    return lambda t: (norms[0] + 2 * t * norms[1] + t * t * norms[2]).astype(dtype) / 2


SOLVER = c_path.Solver(_minimise, _nothing, _foresee)


def _prepare(x_ND, weight_N, seed) -> gram.Reduced:
    del seed
    return gram.reduce(x_ND, weight_N)


def _path(prepared: gram.Reduced, y_N, weight_N, value_H):
    fit_H = fit_path(prepared.z_NK, y_N, weight_N, value_H)
    return fit_H, fit_H.coef_K @ prepared.z_NK.T + fit_H.intercept[:, None]


def _fit(prepared: gram.Reduced, y_N, weight_N, c, fit_FH: Fit) -> Fit:
    del fit_FH
    return c_path.walk_to(SOLVER, prepared.z_NK, y_N, weight_N, C_GRID, c)


def _finish(prepared: gram.Reduced, fit: Fit) -> LinearModel:
    return gram.lift(prepared, fit.coef_K, fit.intercept)


# As in the paper, features are not scaled.
PROBE = probe.Probe(
    prepare=_prepare,
    path=_path,
    fit=_fit,
    finish=_finish,
    values=lambda num_train, num_features, smallest_fold: C_GRID,
    default=lambda num_train, num_features: DEFAULT_C,
    larger_wins=True,
)
STANDARDISED = scaling.standardised(PROBE)
