"""Centred and standardised features: how a probe reads them, and how its model is mapped back.

`standardised(probe)` is itself a probe, as an optax optimiser wrapped by another is an optimiser: so any
method can read standardised features.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprobe.probes.probe import Array, Probe, total_weight


class Centred(NamedTuple):
    """Features minus their mean, divided by their scale.

    Attributes:
        x_ND: 0 in rows of weight 0.
        mean_D, scale_D: The subtracted mean, and the scale that was then divided by.
    """

    x_ND: jax.Array
    mean_D: jax.Array
    scale_D: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaled:
    """What a probe prepared from centred features, and how they were scaled."""

    inner: Any
    mean_D: Array
    scale_D: Array


def centred(probe: Probe) -> Probe:
    """The probe on features of mean 0 over all training rows, validation rows included."""
    return _scaled(probe, standardise=False)


def standardised(probe: Probe) -> Probe:
    """The probe on features of mean 0 and deviation 1 over all training rows, validation rows included."""
    return _scaled(probe, standardise=True)


def _scaled(probe: Probe, *, standardise: bool) -> Probe:
    def prepare(x_ND, weight_N, seed) -> Scaled:
        centred = centre(x_ND, weight_N, standardise=standardise)
        inner = probe.prepare(centred.x_ND, weight_N, seed)
        return Scaled(inner=inner, mean_D=centred.mean_D, scale_D=centred.scale_D)

    def path(prepared: Scaled, y_N, weight_N, value_H):
        return probe.path(prepared.inner, y_N, weight_N, value_H)

    def fit(prepared: Scaled, y_N, weight_N, value, models_FH):
        return probe.fit(prepared.inner, y_N, weight_N, value, models_FH)

    def finish(prepared: Scaled, fit):
        model = probe.finish(prepared.inner, fit)
        return model.after_scaling(prepared.mean_D, prepared.scale_D)

    return probe._replace(prepare=prepare, path=path, fit=fit, finish=finish)


def centre(x_ND: Array, weight_N: Array, *, standardise: bool = False) -> Centred:
    """Subtracts the weighted mean and, if asked, divides by the standard deviation.

    Args:
        x_ND: Features.
        weight_N: Non-negative weights; 0 for rows that only pad.
        standardise: Whether to divide; otherwise the scale is 1.
    """
    weight_N = jnp.asarray(weight_N).astype(x_ND.dtype)
    total = total_weight(weight_N)
    mean_D = weight_N @ x_ND / total
    x_ND = jnp.where(weight_N[:, None] > 0, x_ND - mean_D[None, :], 0)
    if not standardise:
        return Centred(x_ND, mean_D, jnp.ones_like(mean_D))
    variance_D = jnp.sum(x_ND * x_ND * weight_N[:, None], axis=0) / total
    scale_D = deviation(jnp, mean_D, variance_D, total)
    return Centred(x_ND / scale_D[None, :], mean_D, scale_D)


def deviation(xp: Any, mean_D: Array, variance_D: Array, total: Array | float) -> Any:
    """Standard deviations to divide by.

    Args:
        xp: `numpy` or `jax.numpy`, matching the arrays.
        mean_D: Means of features.
        variance_D: Their variances.
        total: The number of rows, or the sum of their weights.

    Returns:
        1 for a feature that is constant up to rounding, as in scikit-learn's `StandardScaler`.
    """
    epsilon = np.finfo(variance_D.dtype).eps
    rounding_D = total * epsilon * variance_D + (total * epsilon * mean_D) ** 2
    return xp.where(variance_D <= rounding_D, 1, xp.sqrt(variance_D))


def composed(first: tuple, then: tuple) -> tuple:
    """Mean and scale of two steps at once: `((x - m) / s - n) / t` is `(x - (m + s n)) / (s t)`."""
    (mean_D, scale_D), (next_mean_D, next_scale_D) = first, then
    return mean_D + scale_D * next_mean_D, scale_D * next_scale_D
