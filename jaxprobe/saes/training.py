"""Training an SAE of any architecture: pure functions of arrays, one step at a time.

    minimise  E |x - x_hat|^2 / D   subject to   E |z|_0 = target_l0

What differs between architectures is in `rules`. JumpReLU's thresholds are
`exp(log_threshold_S + log_shift)`. Feedback steers the one shared shift so that the number of active
latents stays at its target from the first step to the last. The individual thresholds follow
straight-through gradients of reconstruction and sparsity, where the price of an active latent is the
multiplier at which moving all thresholds together would gain nothing. So there is no sparsity
coefficient to tune.

References:
    Rajamanoharan et al., Jumping Ahead: Improving Reconstruction Fidelity with JumpReLU Sparse
    Autoencoders, 2024 (the rectangle-kernel gradient). Bussmann et al., BatchTopK Sparse
    Autoencoders, 2024 (one threshold shared by a batch).
"""

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprobe.saes import straight_through
from jaxprobe.saes.rules import FOLLOWED_STEPS, RULES, THRESHOLD_RATE

if TYPE_CHECKING:  # takes long to import, and only training needs it
    import optax

SMALLEST_EIGENVALUE = (
    1e-2  # as a share of the mean one; limits how far whitening stretches a direction
)
PROBE_ROWS = 1024  # rows on which the first thresholds are measured
GATE_WEIGHT = 0.1  # of the loss of a gated SAE's gates, relative to that of its latents
IDLE_TOKENS = 100_000  # a latent that was not active for this many tokens counts as dead


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a training step needs to know; static, so each recipe compiles once.

    Attributes:
        num_steps: Steps of the whole run, which the schedule spans.
        target_l0: Mean number of active latents.
        learning_rate: Adam's rate at its peak.
        warm_up: Fraction of the steps over which the rate rises from 0; it then falls to 0.
        bandwidth: Width of the straight-through kernel, relative to the threshold.
        feedback: Share of the (logarithmic) L0 error that the shift corrects in a step.
        compute_dtype: Type of the factors of matrix products; sums are always float32.
        architecture: One of `rules.RULES`.
    """

    num_steps: int
    target_l0: float
    learning_rate: float = 6e-3
    warm_up: float = 0.05
    bandwidth: float = 0.5
    feedback: float = 0.3
    compute_dtype: str = "bfloat16"
    architecture: str = "jump_relu"

    @property
    def k(self) -> int:
        """Latents that TopK keeps."""
        return max(1, round(self.target_l0))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaling:
    """How activations are normalised: `(x - mean_D) * scale` has mean squared norm D."""

    mean_D: jax.Array
    scale: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameters:
    """The trained parameters, for normalised activations; decoder rows have unit norm."""

    W_enc_DS: jax.Array
    b_enc_S: jax.Array
    W_dec_SD: jax.Array
    b_dec_D: jax.Array
    log_threshold_S: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class GatedParameters(Parameters):
    """Parameters with those of a gated SAE: the magnitudes' gain over the gate, and their bias."""

    r_mag_S: jax.Array
    b_mag_S: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """Everything that a step changes."""

    parameters: Parameters
    adam: Any  # optax's state
    log_shift: jax.Array
    idle_S: jax.Array  # int32 tokens since each latent was last active
    step: jax.Array


class StepReport(NamedTuple):
    """Scalars of one step, measured before its update."""

    loss: jax.Array  # mean |x - x_hat|^2 / D; 1 for predicting the mean
    l0: jax.Array
    dead: jax.Array  # fraction of latents


class Measured(NamedTuple):
    """What a step measures.

    Attributes:
        mse: Mean squared error per dimension.
        l0: Mean number of active latents.
        price_S: The straight-through gradient of `l0` by `log_threshold_S` (never positive).
        fired_S: Which latents were active at all.
        level: The batch's own threshold, where the rule finds one.
    """

    mse: jax.Array
    l0: jax.Array
    price_S: jax.Array | None
    fired_S: jax.Array
    level: jax.Array | None


def fit_scaling(x_ND: np.ndarray) -> Scaling:
    """The scaling that normalises these activations.

    Raises:
        ValueError: All rows are the same.
    """
    mean_D = x_ND.mean(axis=0, dtype=np.float64)
    variance = float(x_ND.var(axis=0, dtype=np.float64).sum())
    if not variance > 0:
        raise ValueError("`x_ND` must vary, got the same activations in every row")
    scale = jnp.float32(np.sqrt(x_ND.shape[1] / variance))
    return Scaling(mean_D=jnp.asarray(mean_D, jnp.float32), scale=scale)


def normalise(scaling: Scaling, x_ND: jax.typing.ArrayLike) -> jax.Array:
    """Activations with mean 0 and mean squared norm D."""
    return (jnp.asarray(x_ND) - scaling.mean_D[None, :]) * scaling.scale


def initialise(x_ND: jax.Array, key: jax.Array, *, recipe: Recipe, d_sae: int) -> TrainState:
    """An initial state whose L0 is the target and whose reconstruction is already useful.

    Decoder rows are random data points. Encoder columns are the same points, half whitened
    (multiplied by covariance^(-1/2)): activations share a few strong directions, and encoders that
    all read those would all be active together. Each threshold is the same multiple of its latent's
    standard deviation; the encoders' common gain is the one that reconstructs best.

    Args:
        x_ND: Normalised activations, a few thousand random rows at least.
        key: Random key.
        recipe: The run's recipe.
        d_sae: Number of latents; at most N can differ.

    Returns:
        The state before step 0.
    """
    num_rows, d_model = x_ND.shape
    chosen_S = jax.random.choice(key, num_rows, (d_sae,), replace=d_sae > num_rows)
    W_dec_SD = _unit_rows(x_ND[chosen_S])
    W_enc_DS = _unit_rows(jnp.matmul(x_ND[chosen_S], _inverse_root(x_ND))).T
    probe_ND = x_ND[:PROBE_ROWS]
    pre_NS = jnp.matmul(probe_ND, W_enc_DS)
    spread_S = pre_NS.std(axis=0)
    multiple = jnp.quantile((pre_NS / spread_S[None, :]).ravel(), 1 - recipe.target_l0 / d_sae)
    threshold_S = jnp.maximum(multiple * spread_S, 1e-6)
    rule = RULES[recipe.architecture]
    height_NS = pre_NS - threshold_S[None, :] if rule.shrinks else pre_NS
    guess_ND = jnp.matmul(jnp.where(pre_NS > threshold_S[None, :], height_NS, 0.0), W_dec_SD)
    gain = jnp.maximum((probe_ND * guess_ND).sum() / (guess_ND**2).sum(), 1e-6)
    first = {
        "W_enc_DS": gain * W_enc_DS,
        "b_enc_S": jnp.zeros(d_sae, jnp.float32),
        "W_dec_SD": W_dec_SD,
        "b_dec_D": jnp.zeros(d_model, jnp.float32),
        "log_threshold_S": jnp.log(gain * threshold_S),
    }
    parameters, log_shift = _first_parameters(first, recipe)
    return TrainState(
        parameters=parameters,
        adam=make_optimizer(recipe).init(parameters),
        log_shift=log_shift,
        idle_S=jnp.zeros(d_sae, jnp.int32),
        step=jnp.int32(0),
    )


def _first_parameters(first: dict[str, jax.Array], recipe: Recipe) -> tuple[Any, jax.Array]:
    """Parameters and shift with which the latents above their own thresholds are active at first."""
    if recipe.architecture == "gated":
        zero_S = jnp.zeros_like(first["b_enc_S"])
        return GatedParameters(**first, r_mag_S=zero_S, b_mag_S=zero_S), jnp.float32(0.0)
    if not RULES[recipe.architecture].counts:
        return Parameters(**first), jnp.float32(0.0)
    # One threshold for all: the bias subtracts what a latent's own threshold is above the mean one.
    threshold_S = jnp.exp(first["log_threshold_S"])
    level = threshold_S.mean()
    first |= {"b_enc_S": level - threshold_S, "log_threshold_S": jnp.zeros_like(threshold_S)}
    return Parameters(**first), jnp.log(level)


def make_optimizer(recipe: Recipe) -> "optax.GradientTransformation":
    """Adam whose rate rises for a share `warm_up` of the steps, then falls linearly to 0."""
    import optax

    peak = max(1, round(recipe.warm_up * recipe.num_steps))
    schedule = optax.schedules.join_schedules(
        [
            optax.schedules.linear_schedule(0.0, recipe.learning_rate, peak),
            optax.schedules.linear_schedule(
                recipe.learning_rate, 0.0, max(1, recipe.num_steps - peak)
            ),
        ],
        [peak],
    )
    return optax.adam(schedule)


def train_step(
    state: TrainState, x_BD: jax.Array, scaling: Scaling, recipe: Recipe
) -> tuple[TrainState, StepReport]:
    """One update. Compile it once, with `state` donated and `recipe` static.

    Args:
        state: State before.
        x_BD: Raw activations.
        scaling: How to normalise them.
        recipe: The run's recipe.

    Returns:
        State after, and the step's measurements.
    """
    import optax

    x_BD = normalise(scaling, x_BD)
    measure = functools.partial(objective, recipe=recipe)
    (_, found), gradient = jax.value_and_grad(measure, has_aux=True)(
        state.parameters, state.log_shift, x_BD
    )
    changes = {}
    if found.price_S is not None:
        # The multiplier: at this price per active latent, shifting all thresholds gains nothing.
        multiplier = gradient.log_threshold_S.sum() / jnp.minimum(found.price_S.sum(), -1e-6)
        changes["log_threshold_S"] = gradient.log_threshold_S - multiplier * found.price_S
    W_dec_SD = state.parameters.W_dec_SD
    along_S = (gradient.W_dec_SD * W_dec_SD).sum(axis=1, keepdims=True)
    # Minus the component that would only change a row's norm.
    changes["W_dec_SD"] = gradient.W_dec_SD - along_S * W_dec_SD
    gradient = dataclasses.replace(gradient, **changes)
    before: Any = state.parameters  # optax's annotations admit dictionaries only
    with jax.numpy_dtype_promotion("standard"):  # optax raises floats to int32 powers
        updates, adam = make_optimizer(recipe).update(gradient, state.adam, before)
    parameters: Any = optax.apply_updates(before, updates)
    idle_S = jnp.where(found.fired_S, 0, state.idle_S + x_BD.shape[0])
    after = TrainState(
        parameters=dataclasses.replace(parameters, W_dec_SD=_unit_rows(parameters.W_dec_SD)),
        adam=adam,
        log_shift=_steered(state.log_shift, found, recipe),
        idle_S=idle_S,
        step=state.step + 1,
    )
    dead = (idle_S > IDLE_TOKENS).mean()
    return after, StepReport(loss=found.mse, l0=found.l0, dead=dead)


def _steered(log_shift: jax.Array, found: Measured, recipe: Recipe) -> jax.Array:
    """The shift of the thresholds after a step."""
    if found.level is not None:  # follows the batches' own thresholds
        rate = min(1.0, max(THRESHOLD_RATE, FOLLOWED_STEPS / recipe.num_steps))
        return log_shift + rate * (jnp.log(jnp.maximum(found.level, 1e-6)) - log_shift)
    if RULES[recipe.architecture].counts:
        return log_shift
    return log_shift + recipe.feedback * jnp.log(jnp.maximum(found.l0, 1.0) / recipe.target_l0)


def loss(parameters: Parameters, log_shift: jax.Array, x_BD: jax.Array, recipe: Recipe):
    """Mean squared error per dimension of normalised activations.

    Returns:
        (loss, (l0, price_S, fired_S)): l0 is the mean number of active latents; `price_S` its
        straight-through gradient by `log_threshold_S` (never positive); `fired_S` says which
        latents were active at all.
    """
    value, found = objective(parameters, log_shift, x_BD, recipe)
    return value, (found.l0, found.price_S, found.fired_S)


def objective(
    parameters: Parameters, log_shift: jax.Array, x_BD: jax.Array, recipe: Recipe
) -> tuple[jax.Array, Measured]:
    """The loss that a step minimises, and its measurements.

    The loss is the mean squared error per dimension of normalised activations; for a gated SAE, plus
    that of its gates alone, through a decoder that gets no gradient from it.
    """
    matmul = functools.partial(straight_through.matmul, recipe.compute_dtype)
    pre_BS = matmul(x_BD, parameters.W_enc_DS) + parameters.b_enc_S[None, :]
    active = RULES[recipe.architecture].activate(parameters, log_shift, pre_BS, recipe)
    guess_BD = matmul(active.z_BS, parameters.W_dec_SD) + parameters.b_dec_D[None, :]
    mse = ((guess_BD - x_BD) ** 2).mean()
    l0 = active.active_BS.sum(axis=1).astype(jnp.float32).mean()
    found = Measured(mse, l0, active.price_S, active.active_BS.any(axis=0), active.level)
    if active.gate_BS is None:
        return mse, found
    W_dec_SD, b_dec_D = jax.lax.stop_gradient((parameters.W_dec_SD, parameters.b_dec_D))
    gate_guess_BD = matmul(active.gate_BS, W_dec_SD) + b_dec_D[None, :]
    return mse + GATE_WEIGHT * ((gate_guess_BD - x_BD) ** 2).mean(), found


def fold(state: TrainState, scaling: Scaling, recipe: Recipe | None = None):
    """The SAE on raw activations: folds the normalisation into weights, biases and thresholds.

    Args:
        state: The trained state.
        scaling: How activations were normalised.
        recipe: The run's recipe; by default that of a JumpReLU SAE.
    """
    p = state.parameters
    threshold_S = jnp.exp(p.log_threshold_S + state.log_shift)
    mean_S = jnp.matmul(scaling.mean_D, p.W_enc_DS)
    # pre = (x - m) s W + b; latents are divided by s so that decoder rows keep their unit norm.
    weights = {
        "W_enc_DS": p.W_enc_DS,
        "b_enc_S": p.b_enc_S / scaling.scale - mean_S,
        "W_dec_SD": p.W_dec_SD,
        "b_dec_D": p.b_dec_D / scaling.scale + scaling.mean_D,
    }
    rule = RULES["jump_relu" if recipe is None else recipe.architecture]
    return rule.fold(weights, p, threshold_S, scaling.scale, mean_S, recipe)


def _inverse_root(x_ND: jax.Array) -> jax.Array:
    """covariance^(-1/2), with the smallest eigenvalues raised to a floor."""
    value_D, basis_DD = jnp.linalg.eigh(jnp.matmul(x_ND.T, x_ND) / x_ND.shape[0])
    value_D = jnp.maximum(value_D, value_D.mean() * SMALLEST_EIGENVALUE)
    return jnp.matmul(basis_DD / jnp.sqrt(value_D)[None, :], basis_DD.T)


def _unit_rows(a: jax.Array) -> jax.Array:
    """Rows scaled to norm 1; rows of zeros stay."""
    return a / jnp.maximum(jnp.linalg.norm(a, axis=1, keepdims=True), 1e-12)
