"""A small multilayer perceptron, trained as scikit-learn's `MLPClassifier` trains it.

    minimise over each minibatch B:   mean over B of log(1 + exp(-s f(x))) + alpha / (2 |B|) * |W|^2

f has ReLU layers; weights and biases start uniform within sqrt(6 / (fan_in + fan_out)) (Glorot); Adam
takes minibatches of min(200, N) rows, shuffled every epoch; training stops when the epoch's loss, averaged
over its minibatches during training, has not improved by 1e-4 for more than ten epochs, or after 1,000. Features
are standardised on all training rows. The published search has one draw, so the published seed fixes the
hyperparameters below; with too few rows to validate they are scikit-learn's defaults, with one small layer.

Arithmetic is float32. `converged` says whether training stopped before the limit.

References:
    Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010.
    Kingma and Ba, Adam, arXiv 1412.6980.
    Pedregosa et al., Scikit-learn: Machine Learning in Python, 2011.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxprobe.probes import probe, scaling
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
# Values of the hyperparameter: which settings are used.
USES_PUBLISHED, USES_TINY = 0.0, 1.0


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


class _Rows(NamedTuple):
    x_ND: jax.Array
    seed: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkModel:
    """A trained network, in one of two settings.

    Attributes:
        published, tiny: Parameters of the two settings' networks; None for one that cannot be in use.
        uses_tiny: Which one is in use, where both are given.
        mean_D, scale_D: What is subtracted from an example's features, and then divided by.
    """

    published: Any
    tiny: Any
    uses_tiny: Array
    mean_D: Array
    scale_D: Array

    def __call__(self, x_MD: Array) -> Array:
        """Log-odds of rows, computed in float32."""
        mean_D, scale_D = jnp.asarray(self.mean_D), jnp.asarray(self.scale_D)
        x_MD = (x_MD.astype(mean_D.dtype) - mean_D[None, :]) / scale_D[None, :]
        if self.tiny is None:
            return _logits(self.published, x_MD, PUBLISHED)
        if self.published is None:
            return _logits(self.tiny, x_MD, TINY)
        both = _logits(self.tiny, x_MD, TINY), _logits(self.published, x_MD, PUBLISHED)
        return jnp.where(self.uses_tiny, *both)

    def after_scaling(self, mean_D: Array, scale_D: Array) -> "NetworkModel":
        """The model of features of which this one reads `(x - mean) / scale`."""
        mean_D, scale_D = scaling.composed((mean_D, scale_D), (self.mean_D, self.scale_D))
        return dataclasses.replace(self, mean_D=mean_D, scale_D=scale_D)

    def trimmed(self, num_rows: int, num_columns: int) -> "NetworkModel":
        """The model without the padding of features and without the network that is not used."""
        del num_rows

        def narrow(params):
            first = params["params"]["Dense_0"]
            first = {**first, "kernel": first["kernel"][:num_columns]}
            return {"params": {**params["params"], "Dense_0": first}}

        uses_tiny = bool(self.uses_tiny)
        return NetworkModel(
            published=None if uses_tiny else narrow(self.published),
            tiny=narrow(self.tiny) if uses_tiny else None,
            uses_tiny=self.uses_tiny,
            mean_D=self.mean_D[:num_columns],
            scale_D=self.scale_D[:num_columns],
        )


def _prepare(x_ND, weight_N, seed) -> _Rows:
    del weight_N
    return _Rows(x_ND, jnp.asarray(seed))


def _key(seed, y_N, weight_N):
    """A random key derived from the rows and labels, so that no other fold or split changes it."""
    place_N = 2 * jnp.arange(weight_N.shape[0], dtype=jnp.uint32) + y_N.astype(jnp.uint32)
    # MurmurHash3's last steps: with a linear hash, sums would collide where two labels are swapped.
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        place_N = (place_N ^ (place_N >> jnp.uint32(shift))) * jnp.uint32(factor)
    content = jnp.sum(jnp.where(weight_N > 0, place_N, 0), dtype=jnp.uint32)
    return jax.random.fold_in(jax.random.key(seed.astype(jnp.uint32)), content)


def _path(prepared: _Rows, y_N, weight_N, value_H):
    key = _key(prepared.seed, y_N, weight_N)
    trained = train(prepared.x_ND, y_N, weight_N, key)
    score_N = _logits(trained.params, prepared.x_ND, PUBLISHED)
    shape = value_H.shape
    certificate = probe.Certificate(
        residual=jnp.broadcast_to(trained.residual.astype(score_N.dtype), shape),
        converged=jnp.broadcast_to(trained.converged, shape),
    )
    return certificate, jnp.broadcast_to(score_N[None, :], (*shape, score_N.shape[0]))


class _Fit(NamedTuple):
    """Parameters of both settings' networks; zeros, or None, for the one that was not trained."""

    published: Any
    tiny: Any
    uses_tiny: jax.Array
    residual: jax.Array
    converged: jax.Array


def _fit(prepared: _Rows, y_N, weight_N, value, models_FH) -> _Fit:
    del models_FH
    x_ND, key = prepared.x_ND, _key(prepared.seed, y_N, weight_N)
    uses_tiny = value == USES_TINY

    def published() -> _Fit:
        end = train(x_ND, y_N, weight_N, key)
        residual = end.residual.astype(x_ND.dtype)
        return _Fit(end.params, blank(TINY), uses_tiny, residual, end.converged)

    def tiny() -> _Fit:
        end = train(x_ND, y_N, weight_N, key, TINY)
        residual = end.residual.astype(x_ND.dtype)
        return _Fit(blank(PUBLISHED), end.params, uses_tiny, residual, end.converged)

    def blank(settings: Settings):
        shapes = jax.eval_shape(Network(settings.hidden).init, key, x_ND[:1].astype(jnp.float32))
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    if x_ND.shape[0] > BATCH:  # so many rows always have validation folds
        return published()._replace(tiny=None)
    return jax.lax.cond(uses_tiny, tiny, published)


def _finish(prepared: _Rows, fit: _Fit) -> NetworkModel:
    return NetworkModel(
        published=fit.published,
        tiny=fit.tiny,
        uses_tiny=fit.uses_tiny,
        mean_D=jnp.zeros_like(prepared.x_ND[0]),
        scale_D=jnp.ones_like(prepared.x_ND[0]),
    )


def _logits(params, x_MD, settings: Settings):
    logit_M = Network(settings.hidden).apply(params, x_MD.astype(jnp.float32))
    return jnp.asarray(logit_M).astype(x_MD.dtype)


PROBE = scaling.standardised(
    probe.Probe(
        prepare=_prepare,
        path=_path,
        fit=_fit,
        finish=_finish,
        values=lambda num_train, num_features, smallest_fold: np.array([USES_PUBLISHED]),
        default=lambda num_train, num_features: USES_TINY,
    )
)
