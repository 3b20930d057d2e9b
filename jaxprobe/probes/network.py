"""The network of probe `mlp` and its training, which need flax and optax.

A separate module, which `mlp` imports when the first network is built: importing the two libraries takes as long as
importing the rest of jaxprobe.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxprobe.probes import probe
from jaxprobe.probes.probe import Array

MAX_EPOCHS = 1000
PATIENCE = 10
MIN_GAIN = 1e-4
BATCH = 200


class Settings(NamedTuple):
    """Widths of the hidden layers, Adam's learning rate, strength of the L2 term."""

    hidden: tuple[int, ...]
    learning_rate: float
    alpha: float


PUBLISHED = Settings((16, 16, 16), 10**-2.5, 1e-2)
TINY = Settings((32,), 1e-3, 1e-4)  # where there are no folds


class Network(nn.Module):
    """ReLU layers and one output: the log-odds of class 1.

    Attributes:
        hidden: Widths.
    """

    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, x_ND):
        """Log-odds [N] of rows [N, D]."""
        for i, width in enumerate((*self.hidden, 1)):
            bound = (6 / (x_ND.shape[1] + width)) ** 0.5
            uniform = functools.partial(_uniform, bound=bound)
            x_ND = nn.Dense(width, kernel_init=uniform, bias_init=uniform)(x_ND)
            x_ND = nn.relu(x_ND) if i < len(self.hidden) else x_ND
        return x_ND[:, 0]


class Trained(NamedTuple):
    """Parameters and how training ended.

    Attributes:
        params: Parameters of a `Network`.
        residual: 0 where training stopped before the limit, else the last epoch's relative improvement.
        converged: Whether it stopped before the limit.
        epochs: Number of epochs.
    """

    params: Any
    residual: jax.Array
    converged: jax.Array
    epochs: jax.Array


class _State(NamedTuple):
    params: Any
    moments: Any
    best: jax.Array
    last: jax.Array
    gain: jax.Array
    waited: jax.Array
    epochs: jax.Array


def train(
    x_ND: Array, y_N: Array, weight_N: Array, key: jax.Array, settings: Settings = PUBLISHED
) -> Trained:
    """Trains one network.

    Args:
        x_ND: Standardised features.
        y_N: Labels in {0, 1}.
        weight_N: Non-negative weights; 0 leaves a row out.
        key: Random key of the initial weights and of the order of rows.
        settings: Hyperparameters.
    """
    x_ND, y_N, weight_N = (array.astype(jnp.float32) for array in (x_ND, y_N, weight_N))
    network, adam = Network(settings.hidden), optax.adam(settings.learning_rate)
    step = _step(network, adam, settings.alpha)
    total = probe.total_weight(weight_N)

    def gathered(carry, batch):
        row_B, weight_B = batch
        return step(carry, (x_ND[row_B], y_N[row_B], weight_B))

    def epoch(state: _State) -> _State:
        carry = state.params, state.moments
        if x_ND.shape[0] <= BATCH:  # one batch, whose order does not matter
            carry, values = step(carry, (x_ND, y_N, weight_N))
        else:
            key = jax.random.fold_in(shuffle_key, state.epochs)
            carry, values = jax.lax.scan(gathered, carry, _shuffled(weight_N, key))
        value = jnp.sum(values) / total
        waited = jnp.where(value > state.best - MIN_GAIN, state.waited + 1, 0)
        gain = (state.last - value) / jnp.maximum(jnp.abs(value), 1e-30)
        params, moments = carry
        best = jnp.minimum(value, state.best)
        return _State(params, moments, best, value, gain, waited, state.epochs + 1)

    def unfinished(state: _State):
        return (state.waited <= PATIENCE) & (state.epochs < MAX_EPOCHS)

    init_key, shuffle_key = jax.random.split(key)
    params = network.init(init_key, x_ND[:1])
    infinity, zero = jnp.array(jnp.inf, jnp.float32), jnp.zeros((), jnp.int32)
    start = _State(params, adam.init(params), infinity, infinity, infinity, zero, zero)
    end = jax.lax.while_loop(unfinished, epoch, start)
    stopped = end.waited > PATIENCE
    residual = jnp.where(stopped, 0, jnp.maximum(end.gain, 0))
    return Trained(end.params, residual, stopped, end.epochs)


def _step(network: Network, adam, alpha: float):
    """`(carry, batch) -> (carry, loss * rows)`: Adam's step on one minibatch."""

    def loss(params, x_BD, y_B, weight_B):
        rows = probe.total_weight(weight_B)
        data = jnp.sum(weight_B * jax.nn.softplus((1 - 2 * y_B) * network.apply(params, x_BD)))
        kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2]
        penalty = sum(jnp.sum(kernel**2) for kernel in kernels)
        return (data + alpha / 2 * penalty) / rows

    def step(carry, batch):
        params, moments = carry
        value, gradient = jax.value_and_grad(loss)(params, *batch)
        with jax.numpy_dtype_promotion("standard"):  # optax counts steps in integers
            updates, next_moments = adam.update(gradient, moments)
        moved = optax.apply_updates(params, updates), next_moments
        # A minibatch of padding only takes no step.
        rows = jnp.sum(batch[-1])
        kept = jax.tree.map(lambda new, old: jnp.where(rows > 0, new, old), moved, carry)
        return kept, value * rows

    return step


def _uniform(key, shape, dtype=jnp.float32, *, bound: float):
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def _shuffled(weight_N, key):
    """Row numbers and weights of an epoch's minibatches, each [minibatches, BATCH]."""
    padding = -weight_N.shape[0] % BATCH
    place_N = jax.random.uniform(key, weight_N.shape, jnp.float32)
    order_N = jnp.argsort(jnp.where(weight_N > 0, place_N, 2))
    weight_N = jnp.pad(weight_N[order_N], (0, padding))
    return jnp.pad(order_N, (0, padding)).reshape(-1, BATCH), weight_N.reshape(-1, BATCH)


def logits(params: Any, x_MD: jax.Array, settings: Settings) -> jax.Array:
    """Log-odds [M] of rows, computed in float32."""
    logit_M = Network(settings.hidden).apply(params, x_MD.astype(jnp.float32))
    return jnp.asarray(logit_M).astype(x_MD.dtype)


def blank(x_ND: jax.Array, settings: Settings) -> Any:
    """Zeros in the shape of a network's parameters."""
    init = Network(settings.hidden).init
    shapes = jax.eval_shape(init, jax.random.key(0), x_ND[:1].astype(jnp.float32))
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
