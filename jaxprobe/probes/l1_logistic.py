"""L1-regularised logistic regression, to convergence, along a path of strengths.

    minimise over w, b:   |w|_1 + C * sum_n weight_n log(1 + exp(-s_n (w'z_n + b))),   s = 2y - 1

Proximal Newton: each step minimises a quadratic model of the loss plus the exact penalty, over the
few weights that may move. The model is minimised by projected Newton on orthants: a weight moves
while it stays on its side of zero, stops at zero where it would cross, and leaves zero only where
the model pulls harder than the penalty holds. Each C starts at the last solution.

References:
    Bertsekas, Projected Newton Methods for Optimization Problems with Simple Constraints, 1982.
    Lee, Sun and Saunders, Proximal Newton-type Methods for Minimizing Composite Functions, 2014.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxprobe.probes import newton, path
from jaxprobe.probes.path import Fit

MAX_STEPS = 60
MAX_MODEL_STEPS = 60
MODEL_TOLERANCE = 0.03
# Sizes of working sets, and the pull (in units of the penalty's) from which a zero may move.
WORKING_SETS = (64, 128, 256, 384)
MAY_MOVE = 0.7
MAX_ROUNDS = 20
# Relative to the Hessian's diagonal, added to it. Where the curvature is singular (fewer examples
# than latents) Newton's direction is nearly a ray; damping bends it back until a step helps.
LEAST_DAMPING = {"float32": 1e-5, "float64": 1e-10}
MOST_DAMPING = 1e3
# The nearest orthant walls can stand at a tiny share of a step.
MODEL_STEPS = tuple(0.4**i for i in range(16))
# Weights nearer to zero than this share of the largest, and pushed towards it, are not left to
# Newton's direction: it couples them to the others and could bend the projected path uphill.
NEAR_ZERO = 1e-3


def fit(z_NK, y_N, weight_N, c, start: Fit | None = None) -> Fit:
    """Fits one probe.

    Args:
        z_NK: Features, float32 or float64; the arithmetic follows their dtype.
        y_N: Labels in {0, 1}.
        weight_N: Non-negative example weights; 0 leaves an example out.
        c: Inverse regularisation strength, above 0.
        start: A fit to start from.

    Returns:
        The fit. `residual` estimates the relative distance of the objective to its minimum: what
        the last quadratic model (with the L1 term exact) had to gain, or convexity's bound.
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
    return jnp.sum(jnp.abs(fit.coef_K)) + c * loss.value


def _minimise(z_NK, y_N, weight_N, c, v_K) -> Fit:
    penalty_K = jnp.ones_like(v_K).at[-1].set(0)
    limit = path.tolerance(z_NK.dtype)

    def objective(v_K, logit_N):
        loss = newton.logistic_loss(logit_N, y_N, weight_N)
        return jnp.sum(penalty_K * jnp.abs(v_K)) + c * loss.value

    def unfinished(state):
        return (state.residual > limit) & (state.steps < MAX_STEPS) & ~state.stalled

    def advance(state):
        loss = newton.logistic_loss(state.logit_N, y_N, weight_N)
        gradient_K = c * (z_NK.T @ loss.residual_N)
        target_K, gap = _model_minimum(
            *(z_NK, c * loss.curvature_N, gradient_K, state.v_K, penalty_K),
            limit * state.objective,
        )
        step_T = jnp.asarray(newton.STEPS, v_K.dtype)
        d_K = target_K - state.v_K
        move_N = z_NK @ d_K
        value_T = jax.vmap(lambda t: objective(state.v_K + t * d_K, state.logit_N + t * move_N))(
            step_T
        )
        best = jnp.argmin(jnp.where(jnp.isnan(value_T), jnp.inf, value_T))
        better = value_T[best] < state.objective
        step = jnp.where(better, step_T[best], 0)
        # A full step lands on the model's exact zeros; v + (target - v) would round past them.
        v_next_K = jnp.where(step == 1, target_K, state.v_K + step * d_K)
        return path.State(
            v_K=v_next_K,
            logit_N=state.logit_N + step * move_N,
            objective=jnp.where(better, value_T[best], state.objective),
            residual=_certificate(gap, state, gradient_K, penalty_K),
            steps=state.steps + 1,
            stalled=~better,
        )

    logit_N = z_NK @ v_K
    start = path.begin(v_K, logit_N, objective(v_K, logit_N))
    return path.finish(jax.lax.while_loop(unfinished, advance, start), limit)


def _model_minimum(z_NK, curvature_N, gradient_K, v_K, penalty_K, target):
    """Minimiser and gap of the quadratic model over the weights that may move.

    Most weights are zero and stay so. The model is built over a working set: all that are not
    zero or that the loss pulls nearly hard enough, padded to one of a few sizes. A weight that is
    left out wrongly is pulled in at the next step, whose gradient sees all.
    """
    pull_K = jnp.where((v_K != 0) | (penalty_K == 0), jnp.inf, jnp.abs(gradient_K))
    sizes = [size for size in WORKING_SETS if size < v_K.shape[0]] + [v_K.shape[0]]
    count = jnp.sum(pull_K > MAY_MOVE)

    def restricted(size, _):
        _, index_A = jax.lax.top_k(pull_K, size)
        hessian_AA = newton.hessian(z_NK[:, index_A], curvature_N)
        part = (gradient_K[index_A], v_K[index_A], penalty_K[index_A])
        u_A, gap = _minimise_model(hessian_AA, *part, target)
        return v_K.at[index_A].set(u_A), gap

    branch = jnp.searchsorted(jnp.asarray(sizes[:-1], count.dtype), count)
    branches = [functools.partial(restricted, size) for size in sizes]
    return jax.lax.switch(branch, branches, None)


class _ModelState(NamedTuple):
    u_K: jax.Array
    value: jax.Array
    decrement: jax.Array
    damping: jax.Array
    steps: jax.Array


def _minimise_model(hessian_KK, gradient_K, v_K, penalty_K, target):
    """Minimises `g'(u - v) + (u - v)'H(u - v)/2 + |u|_1` by projected Newton on orthants.

    Stops where the next step promises a small share of what was gained, or of `target`.
    Returns the minimiser, and an estimate of how far the model's value at v lies above its
    minimum: what was gained and what the next step would still promise.
    """
    step_T = jnp.asarray(MODEL_STEPS, v_K.dtype)
    least = LEAST_DAMPING[v_K.dtype.name]

    def value(u_K):
        d_K = u_K - v_K
        quadratic = gradient_K @ d_K + d_K @ (hessian_KK @ d_K) / 2
        return quadratic + jnp.sum(penalty_K * jnp.abs(u_K))

    def unfinished(state):
        enough = jnp.maximum(worth - state.value, target) * MODEL_TOLERANCE
        movable = (state.steps < MAX_MODEL_STEPS) & (state.damping < MOST_DAMPING)
        return movable & ~(state.decrement <= enough)

    def advance(state):
        slope_of_model_K = gradient_K + hessian_KK @ (state.u_K - v_K)
        sign_K, slope_K = _steepest(state.u_K, slope_of_model_K, penalty_K)
        near = NEAR_ZERO * jnp.max(jnp.abs(state.u_K) * penalty_K)
        sinking_K = (jnp.abs(state.u_K) <= near) & (slope_K * sign_K > 0) & (penalty_K > 0)
        free_K = (sign_K != 0) & ~sinking_K
        solve = functools.partial(
            newton.solve_free, hessian_KK, right_K=-slope_K, damping=state.damping
        )
        d_K = _inward(solve, free_K, (state.u_K == 0) & (penalty_K > 0), sign_K)
        d_K = jnp.where(sinking_K, -state.u_K, d_K)
        trial_TK = state.u_K[None, :] + step_T[:, None] * d_K[None, :]
        inside_TK = (trial_TK * sign_K[None, :] >= 0) | (penalty_K == 0)[None, :]
        trial_TK = jnp.where(inside_TK, trial_TK, 0)
        value_T = jax.vmap(value)(trial_TK)
        best = jnp.argmin(jnp.where(jnp.isnan(value_T), jnp.inf, value_T))
        better = value_T[best] < state.value
        return _ModelState(
            u_K=jnp.where(better, trial_TK[best], state.u_K),
            value=jnp.where(better, value_T[best], state.value),
            decrement=-slope_K @ d_K,
            damping=jnp.where(better, jnp.maximum(state.damping / 30, least), state.damping * 100),
            steps=state.steps + 1,
        )

    worth = value(v_K)
    infinity = jnp.array(jnp.inf, v_K.dtype)
    start = _ModelState(v_K, worth, infinity, jnp.array(least, v_K.dtype), jnp.array(0))
    end = jax.lax.while_loop(unfinished, advance, start)
    left = jnp.where(jnp.isnan(end.decrement), jnp.inf, jnp.maximum(end.decrement, 0))
    return end.u_K, worth - end.value + left


def _inward(solve, free_K, at_zero_K, sign_K):
    """Newton's direction without the weights at zero that it would push out of their orthant.

    Left in, the projection would stop them, and the others would move as if they had moved.
    """

    def outward(d_K):
        return at_zero_K & (d_K * sign_K < 0)

    def again(state):
        free_K, d_K, rounds = state
        free_K = free_K & ~outward(d_K)
        return free_K, solve(free_K), rounds + 1

    start = free_K, solve(free_K), 0
    return jax.lax.while_loop(
        lambda state: jnp.any(outward(state[1])) & (state[2] < MAX_ROUNDS), again, start
    )[1]


def _certificate(gap, state, gradient_K, penalty_K):
    """Relative distance to the optimum: the model's estimate, or convexity's bound if smaller.

    A subgradient g bounds the gap by `max|g| (|w|_1 + |w*|_1)`, and |w*|_1 by the objective.
    """
    _, slope_K = _steepest(state.v_K, gradient_K, penalty_K)
    objective = jnp.maximum(state.objective, jnp.finfo(gradient_K.dtype).tiny)
    return jnp.minimum(gap / objective, 2 * jnp.max(jnp.abs(slope_K)))


def _steepest(v_K, gradient_K, penalty_K):
    """Orthant of each weight (0: held at zero) and the shortest subgradient in it."""
    pulled_K = jnp.where(jnp.abs(gradient_K) > penalty_K, -jnp.sign(gradient_K), 0)
    sign_K = jnp.where(v_K != 0, jnp.sign(v_K), pulled_K)
    sign_K = jnp.where(penalty_K > 0, sign_K, 1)
    slope_K = jnp.where(sign_K != 0, gradient_K + penalty_K * sign_K, 0)
    return sign_K, slope_K
