"""What differs between architectures in training: which latents are active, and how L0 is kept.

There is no sparsity coefficient to tune. TopK and BatchTopK fix the number of active latents; the others share
one shift of their thresholds, `exp(log_threshold_S + log_shift)`, which feedback steers so that L0 stays at its
target:

    jump_relu   z = pre [pre > t]           thresholds move by straight-through gradients
    relu        z = relu(pre - t)           t is folded into the encoder's bias
    gated       z = [pre > t] relu(e^r xW + b_mag), and relu(pre - t) has to reconstruct as well
    topk        z = relu of the k largest pre of a row
    batch_topk  z = relu of the k B largest pre of a batch; t follows the smallest of them
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxprobe.saes import straight_through
from jaxprobe.saes.batch_topk import BatchTopKSae
from jaxprobe.saes.gated import GatedSae
from jaxprobe.saes.jump_relu import JumpReluSae
from jaxprobe.saes.relu import ReluSae
from jaxprobe.saes.topk import TopKSae

THRESHOLD_RATE = 0.05  # least rate at which BatchTopK's threshold follows that of its batches
FOLLOWED_STEPS = (
    10  # in a short run it follows over this many steps, while the learning rate falls to 0
)


class Active(NamedTuple):
    """The latents of a batch.

    Attributes:
        z_BS: Their values.
        active_BS: Which count as active.
        price_S: Straight-through gradient of L0 by `log_threshold_S`, or None: thresholds stay.
        gate_BS: What must reconstruct as well as `z_BS`, or None.
        level: The threshold of this batch, where the rule finds one, or None.
    """

    z_BS: jax.Array
    active_BS: jax.Array
    price_S: jax.Array | None = None
    gate_BS: jax.Array | None = None
    level: jax.Array | None = None


class Rule(NamedTuple):
    """An architecture in training.

    Attributes:
        activate: `(parameters, log_shift, pre_BS, recipe) -> Active`.
        shrinks: Whether the threshold is subtracted from active latents.
        counts: Whether the number of active latents is fixed, not steered.
        fold: `(weights, parameters, t_S, scale, mean_S, recipe) -> SAE` on raw activations.
    """

    activate: Callable[..., Active]
    shrinks: bool
    counts: bool
    fold: Callable[..., Any]


def _jump_relu(parameters, log_shift, pre_BS, recipe) -> Active:
    threshold_S = jnp.exp(parameters.log_threshold_S + log_shift)
    z_BS = straight_through.jump(recipe.bandwidth, pre_BS, threshold_S)
    near_BS = straight_through.near(recipe.bandwidth, pre_BS, threshold_S)
    price_S = -near_BS.mean(axis=0, dtype=jnp.float32) / recipe.bandwidth
    return Active(z_BS, pre_BS > threshold_S[None, :], price_S)


def _relu(parameters, log_shift, pre_BS, recipe) -> Active:
    threshold_S = jax.lax.stop_gradient(jnp.exp(parameters.log_threshold_S + log_shift))
    z_BS = jax.nn.relu(pre_BS - threshold_S[None, :])
    return Active(z_BS, z_BS > 0)


def _gated(parameters, log_shift, pre_BS, recipe) -> Active:
    threshold_S = jax.lax.stop_gradient(jnp.exp(parameters.log_threshold_S + log_shift))
    gate_BS = jax.nn.relu(pre_BS - threshold_S[None, :])
    xw_BS = pre_BS - parameters.b_enc_S[None, :]
    gain_S = jnp.exp(parameters.r_mag_S)
    magnitude_BS = jax.nn.relu(gain_S[None, :] * xw_BS + parameters.b_mag_S[None, :])
    z_BS = jnp.where(gate_BS > 0, magnitude_BS, 0.0)
    return Active(z_BS, z_BS > 0, gate_BS=gate_BS)


def _topk(parameters, log_shift, pre_BS, recipe) -> Active:
    # Counting beats sorting here too: a tenth of the time of `top_k` on CPUs.
    level_B1 = kth_largest(jax.lax.stop_gradient(pre_BS), recipe.k, axis=1)
    active_BS = (pre_BS >= level_B1) & (pre_BS > 0)
    return Active(jnp.where(active_BS, pre_BS, 0.0), active_BS)


def _batch_topk(parameters, log_shift, pre_BS, recipe) -> Active:
    count = max(1, round(recipe.target_l0 * pre_BS.shape[0]))
    guess_11 = jnp.exp(log_shift)[None, None]
    level_11 = kth_largest(jax.lax.stop_gradient(pre_BS), count, axis=(0, 1), guess=guess_11)
    active_BS = (pre_BS >= level_11) & (pre_BS > 0)
    return Active(jnp.where(active_BS, pre_BS, 0.0), active_BS, level=level_11[0, 0])


def kth_largest(
    x: jax.Array, count: int, *, axis: int | tuple[int, ...], guess: jax.Array | None = None
) -> jax.Array:
    """The `count`-th largest of the positive entries, exactly; 0 where there are fewer.

    Sorting millions of numbers takes longer than a training step. The bits of positive floats, read as
    integers, are in the order of the floats. So the answer is in an interval of integers, which a few
    passes of counting shrink, alternately by halving and by assuming that counts fall exponentially.

    Args:
        x: Numbers.
        count: Which one, counted from 1.
        axis: The axes to search along; kept, with size 1.
        guess: A number near the answer, of the answer's shape.
    """
    bits = jax.lax.bitcast_convert_type(jax.nn.relu(x), jnp.int32)
    above = lambda level: (bits >= level).sum(axis=axis, keepdims=True, dtype=jnp.int32)
    high = bits.max(axis=axis, keepdims=True) + 1
    low = jnp.zeros_like(high)
    state = _Interval(low, high, above(low), jnp.zeros_like(high), jnp.int32(0))
    if guess is not None:
        for factor in (0.97, 1.0, 1.03):
            level = jax.lax.bitcast_convert_type(jnp.maximum(guess, 0.0) * factor, jnp.int32)
            state = _cut(state, level, above, count)
    # Where exactly `count` numbers reach `low`, the smallest of them is the answer.
    is_open = lambda s: ((s.high - s.low > 1) & (s.n_low != count)).any()
    step = lambda s: _cut(s, _between(s, count), above, count)
    found = jax.lax.while_loop(is_open, step, state)
    top = jnp.iinfo(jnp.int32).max
    least = jnp.where(bits >= found.low, bits, top).min(axis=axis, keepdims=True)
    level = jnp.where(found.n_low == count, least, found.low)
    return jax.lax.bitcast_convert_type(level, jnp.float32)


class _Interval(NamedTuple):
    """`n_low` numbers reach `low`, which is enough; `n_high` reach `high`, which is too few."""

    low: jax.Array
    high: jax.Array
    n_low: jax.Array
    n_high: jax.Array
    turn: jax.Array


def _between(state: _Interval, count: int) -> jax.Array:
    """Where to look next: in two of three turns at an exponential's estimate, else half-way."""
    log_low, log_high = (
        jnp.log(jnp.maximum(n, 1).astype(jnp.float32)) for n in (state.n_low, state.n_high)
    )
    fall = log_low - log_high
    share = jnp.clip((log_low - math.log(count)) / jnp.maximum(fall, 1e-6), 0.0, 1.0)
    share = jnp.where((state.turn % 3 < 2) & (fall > 0), share, 0.5)
    inside = (share * (state.high - state.low).astype(jnp.float32)).astype(jnp.int32)
    return jnp.clip(state.low + inside, state.low + 1, state.high - 1)


def _cut(state: _Interval, level: jax.Array, above: Callable, count: int) -> _Interval:
    """The part of an interval above or below a level inside it."""
    n_level = above(level)
    inside = (level > state.low) & (level < state.high)
    enough, short = inside & (n_level >= count), inside & (n_level < count)
    return _Interval(
        low=jnp.where(enough, level, state.low),
        high=jnp.where(short, level, state.high),
        n_low=jnp.where(enough, n_level, state.n_low),
        n_high=jnp.where(short, n_level, state.n_high),
        turn=state.turn + 1,
    )


def _fold_jump_relu(weights, parameters, t_S, scale, mean_S, recipe) -> JumpReluSae:
    return JumpReluSae(**weights, threshold_S=t_S / scale)


def _fold_relu(weights, parameters, t_S, scale, mean_S, recipe) -> ReluSae:
    return ReluSae(**{**weights, "b_enc_S": weights["b_enc_S"] - t_S / scale})


def _fold_gated(weights, parameters, t_S, scale, mean_S, recipe) -> GatedSae:
    b_gate_S = weights.pop("b_enc_S") - t_S / scale
    b_mag_S = parameters.b_mag_S / scale - jnp.exp(parameters.r_mag_S) * mean_S
    return GatedSae(**weights, b_gate_S=b_gate_S, b_mag_S=b_mag_S, r_mag_S=parameters.r_mag_S)


def _fold_topk(weights, parameters, t_S, scale, mean_S, recipe) -> TopKSae:
    return TopKSae(**weights, k=recipe.k)


def _fold_batch_topk(weights, parameters, t_S, scale, mean_S, recipe) -> BatchTopKSae:
    return BatchTopKSae(**weights, threshold=t_S[0] / scale)


RULES = {
    "jump_relu": Rule(_jump_relu, shrinks=False, counts=False, fold=_fold_jump_relu),
    "relu": Rule(_relu, shrinks=True, counts=False, fold=_fold_relu),
    "gated": Rule(_gated, shrinks=False, counts=False, fold=_fold_gated),
    "topk": Rule(_topk, shrinks=False, counts=True, fold=_fold_topk),
    "batch_topk": Rule(_batch_topk, shrinks=False, counts=True, fold=_fold_batch_topk),
}
