"""L1-regularised logistic regression, to convergence, along a path of strengths.

    minimise over w, b:   |w|_1 + C * sum_n weight_n log(1 + exp(-s_n (w'z_n + b))),   s = 2y - 1

Proximal Newton: each step minimises a quadratic model of the loss plus the exact penalty, over the
few weights that may move. The model is minimised by projected Newton on orthants: a weight keeps its
sign, stops at zero where it would cross it, and leaves zero only where the model's gradient exceeds
the penalty's. Each C starts from the last two solutions.

References:
    Bertsekas, Projected Newton Methods for Optimization Problems with Simple Constraints, 1982.
    Lee, Sun and Saunders, Proximal Newton-type Methods for Minimizing Composite Functions, 2014.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxprobe.probes import c_path, logistic, newton, scaling
from jaxprobe.probes.c_path import Fit
from jaxprobe.probes.linear_model import LinearModel
from jaxprobe.probes.probe import Array

MAX_STEPS = 60
MAX_MODEL_STEPS = 60
MODEL_TOLERANCE = 0.1
# Sizes of working sets, and the gradient (in units of the penalty's) from which a zero weight may move.
# After a change of C many zeros exceed it that will stay zero, so `MAY_GROW` and `MAY_ENTER` limit how much
# larger than the set of nonzero weights a working set may be.
WORKING_SETS = (64, 192, 288)
MAY_MOVE = 0.8
MAY_GROW, MAY_ENTER = 1.25, 64
MAY_STAY = 1.001
MAX_ROUNDS = 20
# Relative to the Hessian's diagonal, added to it. Where the curvature is singular (fewer examples
# than latents) Newton's direction is nearly a ray; damping bends it back until a step helps.
LEAST_DAMPING = 1e-6
MOST_DAMPING = 1e3
# The nearest boundary of the orthant can be at a tiny fraction of a step.
MODEL_STEPS = tuple(0.4**i for i in range(16))
# Weights smaller than this share of the largest and pushed towards zero are not left to Newton's
# direction: it couples them to the others and could make the projected path go uphill.
NEAR_ZERO = 1e-3


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
        The fit. `residual` estimates the relative distance of the objective to its minimum: the gain
        that the last quadratic model (with the exact L1 term) predicts, or the bound by convexity.
    """
    return c_path.fit_from(SOLVER, z_NK, y_N, weight_N, c, start)


def fit_path(z_NK: Array, y_N: Array, weight_N: Array, c_R: Array) -> Fit:
    """Fits a probe for every strength, each started from the last; fields gain a leading axis R.

    Args:
        z_NK: Features.
        y_N: Labels in {0, 1}.
        weight_N: Non-negative example weights; 0 leaves an example out.
        c_R: Strengths, increasing.
    """
    return c_path.walk(SOLVER, z_NK, y_N, weight_N, c_R)


class _State(NamedTuple):
    v_K: Array
    logit_N: Array
    objective: Array
    residual: Array
    steps: Array
    stalled: Array
    barred_K: Array


def _minimise(z_NK, y_N, weight_N, c, v_K, barred_K, tolerance) -> tuple[Fit, Array]:
    penalty_K = jnp.ones_like(v_K).at[-1].set(0)

    def objective(v_K, logit_N):
        return penalty_K @ jnp.abs(v_K) + c * newton.logistic_loss(logit_N, y_N, weight_N)

    def unfinished(state):
        going = (state.steps < MAX_STEPS) & ~state.stalled
        return going & (state.residual > tolerance)

    def advance(state):
        slope = newton.slope(state.logit_N, y_N, weight_N)
        gradient_K = c * (slope.residual_N @ z_NK)
        target_K, gap, barred_K = _model_minimum(
            *(z_NK, c * slope.curvature_N, gradient_K, state.v_K, penalty_K, state.barred_K),
            tolerance * state.objective,
        )
        d_K = target_K - state.v_K
        move_N = z_NK @ d_K
        step = newton.search(
            lambda t: objective(state.v_K + t * d_K, state.logit_N + t * move_N), state.objective
        )
        # A full step lands on the model's exact zeros; v + (target - v) would round past them.
        v_next_K = jnp.where(step.size == 1, target_K, state.v_K + step.size * d_K)
        return _State(
            v_K=v_next_K,
            logit_N=state.logit_N + step.size * move_N,
            objective=step.value,
            residual=_certificate(gap, state, gradient_K, penalty_K),
            steps=state.steps + 1,
            stalled=~step.better,
            barred_K=barred_K,
        )

    logit_N = z_NK @ v_K
    infinity, no = jnp.array(jnp.inf, v_K.dtype), jnp.array(False)
    start = _State(v_K, logit_N, objective(v_K, logit_N), infinity, jnp.array(0), no, barred_K)
    end = jax.lax.while_loop(unfinished, advance, start)
    return c_path.finish(end.v_K, end.objective, end.residual, end.steps), end.barred_K


def _nothing(num_weights: int):
    """Weights barred by the last fit: none."""
    return jnp.zeros(num_weights, bool)


def _foresee(z_NK, y_N, weight_N, c, v_K, move_K):
    """The best of several fractions of the last move; weights keep their sign, and zeros stay."""
    penalty_K = jnp.ones_like(v_K).at[-1].set(0)
    share_T = jnp.asarray(c_path.FORESIGHT, v_K.dtype)
    start_TK = v_K[None, :] + share_T[:, None] * move_K[None, :]
    kept_TK = (start_TK * v_K[None, :] > 0) | (penalty_K == 0)[None, :]
    start_TK = jnp.where(kept_TK, start_TK, 0)
    loss_T = jax.vmap(newton.logistic_loss, (0, None, None))(start_TK @ z_NK.T, y_N, weight_N)
    return start_TK[jnp.argmin(jnp.abs(start_TK) @ penalty_K + c * loss_T)]


SOLVER = c_path.Solver(_minimise, _nothing, _foresee)


def _model_minimum(z_NK, curvature_N, gradient_K, v_K, penalty_K, barred_K, target):
    """Minimiser and gap of the quadratic model over the weights that may move, and the last barred ones.

    Most weights are zero and stay zero. The model is built over a working set: all weights that are
    nonzero or have nearly a large enough gradient, padded to one of a few sizes. A weight that is left
    out wrongly enters at the next step, whose gradient is over all weights.
    """
    pull_K = jnp.where((v_K != 0) | (penalty_K == 0), jnp.inf, jnp.abs(gradient_K))
    sizes = _working_sets(*z_NK.shape)
    most = MAY_GROW * jnp.sum(jnp.isinf(pull_K)).astype(pull_K.dtype) + MAY_ENTER
    count = jnp.minimum(jnp.sum(pull_K > MAY_MOVE).astype(jnp.int32), most.astype(jnp.int32))

    def restricted(size, _):
        _, index_A = jax.lax.top_k(pull_K, size)
        hessian_AA = newton.hessian(z_NK[:, index_A], curvature_N)
        part = (gradient_K[index_A], v_K[index_A], penalty_K[index_A], barred_K[index_A])
        u_A, gap, barred_A = _minimise_model(hessian_AA, *part, target)
        # A working set that leaves out a violated condition certifies nothing.
        left_out = jnp.max(pull_K.at[index_A].set(0))
        gap = jnp.where(left_out > MAY_STAY, jnp.inf, gap)
        return v_K.at[index_A].set(u_A), gap, barred_K.at[index_A].set(barred_A)

    if len(sizes) == 1:
        return restricted(sizes[0], None)
    branch = jnp.searchsorted(jnp.asarray(sizes[:-1], count.dtype), count)
    branches = [functools.partial(restricted, size) for size in sizes]
    return jax.lax.switch(branch, branches, None)


def _working_sets(num_rows: int, num_weights: int) -> list[int]:
    """Sizes to choose from; only one where examples are so few that solutions have few weights."""
    if num_rows <= 16:
        return [min(num_weights, 64)]
    return [size for size in WORKING_SETS if 1.5 * size < num_weights] + [num_weights]


class _ModelState(NamedTuple):
    u_K: Array
    value: Array
    decrement: Array
    damping: Array
    steps: Array
    barred_K: Array


def _minimise_model(hessian_KK, gradient_K, v_K, penalty_K, barred_K, target):
    """Minimises `g'(u - v) + (u - v)'H(u - v)/2 + |u|_1` by projected Newton on orthants.

    Zeros that Newton's direction pushed out of their orthant are barred from the next steps until the
    others have settled; those steps would push them out again, at the cost of a factorisation each.
    Stops where a step that bars none predicts a small share of what was gained, or of `target`.

    Returns:
        The minimiser; an estimate of how far the model's value at v is above its minimum, which is what
        was gained plus what the next step predicts; and the weights barred last.
    """

    def value(u_K):
        d_K = u_K - v_K
        quadratic = gradient_K @ d_K + d_K @ (hessian_KK @ d_K) / 2
        return quadratic + jnp.sum(penalty_K * jnp.abs(u_K))

    def enough(value):
        return jnp.maximum(worth - value, target) * MODEL_TOLERANCE

    def unfinished(state):
        movable = (state.steps < MAX_MODEL_STEPS) & (state.damping < MOST_DAMPING)
        return movable & ~(state.decrement <= enough(state.value))

    def advance(state):
        slope_of_model_K = gradient_K + hessian_KK @ (state.u_K - v_K)
        sign_K, slope_K = _steepest(state.u_K, slope_of_model_K, penalty_K)
        sinking_K = _sinking(state.u_K, sign_K, slope_K, penalty_K)
        at_zero_K = (state.u_K == 0) & (penalty_K > 0)
        barred_K = state.barred_K & at_zero_K
        held = jnp.any(barred_K & (sign_K != 0))
        free_K = (sign_K != 0) & ~sinking_K & ~barred_K
        solve = functools.partial(
            newton.solve_free, single_KK, right_K=-slope_K, damping=state.damping
        )
        moved_K, d_K = _inward(solve, free_K, at_zero_K, sign_K)
        d_K = jnp.where(sinking_K, -state.u_K, d_K)
        decrement = -slope_K @ d_K
        settled = decrement <= enough(state.value)
        trial_TK = _trials(state.u_K, d_K, sign_K, penalty_K)
        value_T = jax.vmap(value)(trial_TK)
        best = jnp.argmin(jnp.where(jnp.isnan(value_T), jnp.inf, value_T))
        better = value_T[best] < state.value
        return _ModelState(
            u_K=jnp.where(better, trial_TK[best], state.u_K),
            value=jnp.where(better, value_T[best], state.value),
            decrement=jnp.where(held, jnp.inf, decrement),
            damping=jnp.maximum(state.damping * jnp.where(better, 1 / 30, 100), LEAST_DAMPING),
            steps=state.steps + 1,
            barred_K=(barred_K | (free_K & ~moved_K)) & ~(held & settled),
        )

    single_KK, hessian_KK = hessian_KK, hessian_KK.astype(v_K.dtype)
    worth = value(v_K)
    infinity = jnp.array(jnp.inf, v_K.dtype)
    damping = jnp.array(LEAST_DAMPING, v_K.dtype)
    start = _ModelState(v_K, worth, infinity, damping, jnp.array(0), barred_K)
    end = jax.lax.while_loop(unfinished, advance, start)
    left = jnp.where(jnp.isnan(end.decrement), jnp.inf, jnp.maximum(end.decrement, 0))
    return end.u_K, worth - end.value + left, end.barred_K


def _sinking(u_K, sign_K, slope_K, penalty_K):
    """Weights smaller than `NEAR_ZERO` times the largest, and pushed towards zero."""
    near = NEAR_ZERO * jnp.max(jnp.abs(u_K) * penalty_K)
    return (jnp.abs(u_K) <= near) & (slope_K * sign_K > 0) & (penalty_K > 0)


def _trials(u_K, d_K, sign_K, penalty_K):
    """Steps of all `MODEL_STEPS`; a weight stops at zero where it would leave its orthant."""
    step_T = jnp.asarray(MODEL_STEPS, u_K.dtype)
    trial_TK = u_K[None, :] + step_T[:, None] * d_K[None, :]
    inside_TK = (trial_TK * sign_K[None, :] >= 0) | (penalty_K == 0)[None, :]
    return jnp.where(inside_TK, trial_TK, 0)


def _inward(solve, free_K, at_zero_K, sign_K):
    """Newton's direction without the weights at zero that it would push out of their orthant.

    If they were kept, the projection would stop them, while the others moved as if they had moved.

    Returns:
        Which weights remain, and the direction.
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
    )[:2]


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


def _prepare(z_NK, weight_N, seed):
    del weight_N, seed
    return z_NK


def _path(z_NK, y_N, weight_N, value_H):
    fit_H = fit_path(z_NK, y_N, weight_N, value_H)
    return fit_H, fit_H.coef_K @ z_NK.T + fit_H.intercept[:, None]


def _fit(z_NK, y_N, weight_N, c, fit_FH: Fit) -> Fit:
    del fit_FH
    return c_path.walk_to(SOLVER, z_NK, y_N, weight_N, logistic.C_GRID, c)


def _finish(z_NK, fit: Fit) -> LinearModel:
    del z_NK
    return LinearModel(coef_D=fit.coef_K, intercept=fit.intercept)


# Centring changes no solution, but improves the conditioning of the Hessian.
PROBE = scaling.centred(
    logistic.PROBE._replace(prepare=_prepare, path=_path, fit=_fit, finish=_finish)
)
