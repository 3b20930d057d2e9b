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
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprobe.probes import probe, scaling
from jaxprobe.probes.probe import Array

# Values of the hyperparameter: which settings are used.
USES_PUBLISHED, USES_TINY = 0.0, 1.0


def _network() -> ModuleType:
    """The module that needs flax and optax, imported when the first network is built."""
    from jaxprobe.probes import network

    return network


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
        network = _network()
        if self.tiny is None:
            return network.logits(self.published, x_MD, network.PUBLISHED)
        if self.published is None:
            return network.logits(self.tiny, x_MD, network.TINY)
        both = (
            network.logits(self.tiny, x_MD, network.TINY),
            network.logits(self.published, x_MD, network.PUBLISHED),
        )
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
    network = _network()
    trained = network.train(prepared.x_ND, y_N, weight_N, key)
    score_N = network.logits(trained.params, prepared.x_ND, network.PUBLISHED)
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
    network = _network()
    x_ND, key = prepared.x_ND, _key(prepared.seed, y_N, weight_N)
    uses_tiny = value == USES_TINY

    def published() -> _Fit:
        end = network.train(x_ND, y_N, weight_N, key)
        residual = end.residual.astype(x_ND.dtype)
        blank = network.blank(x_ND, network.TINY)
        return _Fit(end.params, blank, uses_tiny, residual, end.converged)

    def tiny() -> _Fit:
        end = network.train(x_ND, y_N, weight_N, key, network.TINY)
        residual = end.residual.astype(x_ND.dtype)
        blank = network.blank(x_ND, network.PUBLISHED)
        return _Fit(blank, end.params, uses_tiny, residual, end.converged)

    if x_ND.shape[0] > network.BATCH:  # so many rows always have validation folds
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
