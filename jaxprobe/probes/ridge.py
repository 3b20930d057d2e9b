"""Ridge regression on labels -1 and 1, all strengths from one eigendecomposition per fold.

    minimise over w, b:   sum_n weight_n (t_n - w'x_n - b)^2 + a * m * |w|^2,   t = 2y - 1

m is the mean squared distance of the training rows from their mean, so a means the same whatever the features'
scale. With the centred rows Z and Z'Z = V diag(e) V', w = V (V'Z't / (e + a m)) for every a. Features are not
scaled. The regression estimates 2p - 1, and to first order at p = 1/2 the log-odds are twice that: the score is
2 (w'x + b).

References:
    Hoerl and Kennard, Ridge Regression, 1970.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxprobe.probes import candidates, closed_form, gram, probe
from jaxprobe.probes.linear_model import LinearModel

STRENGTHS = candidates.powers(10, -5, 5, 10)  # a, increasing
DEFAULT_STRENGTH = 1.0


class _Spectrum(NamedTuple):
    """Centred training rows in the eigenbasis of their covariance, where ridge is a division."""

    vector_KK: jax.Array
    value_K: jax.Array
    moment_K: jax.Array  # Z't, rotated
    mean_K: jax.Array
    mean_label: jax.Array
    unit: jax.Array  # m


def _spectrum(z_NK, y_N, weight_N) -> _Spectrum:
    total = probe.total_weight(weight_N)
    root_N = jnp.sqrt(weight_N)  # weighting squared errors scales rows by the root of the weight
    mean_K = weight_N @ z_NK / total
    label_N = 2 * y_N - 1
    mean_label = weight_N @ label_N / total
    centred_NK = (z_NK - mean_K[None, :]) * root_N[:, None]
    value_K, vector_KK = jnp.linalg.eigh(centred_NK.T @ centred_NK)
    moment_K = ((label_N - mean_label) * root_N) @ centred_NK @ vector_KK
    unit = jnp.sum(centred_NK**2) / total
    return _Spectrum(vector_KK, jnp.maximum(value_K, 0), moment_K, mean_K, mean_label, unit)


def _weights(spectrum: _Spectrum, strength):
    """Weights and bias of the score at one strength."""
    penalised_K = spectrum.value_K + strength * spectrum.unit
    # Where all rows are equal, the divisor is 0, and so is the moment.
    scaled_K = spectrum.moment_K / jnp.where(penalised_K > 0, penalised_K, 1)
    coef_K = 2 * (spectrum.vector_KK @ scaled_K)
    return coef_K, 2 * spectrum.mean_label - spectrum.mean_K @ coef_K


def _prepare(x_ND, weight_N, seed) -> gram.Reduced:
    del seed
    return gram.reduce(x_ND, weight_N)


def _path(prepared: gram.Reduced, y_N, weight_N, value_H):
    spectrum = _spectrum(prepared.z_NK, y_N, weight_N)
    coef_HK, intercept_H = jax.vmap(_weights, (None, 0))(spectrum, value_H)
    certificate = probe.exact(value_H.shape, value_H.dtype)
    return certificate, coef_HK @ prepared.z_NK.T + intercept_H[:, None]


def _fit(prepared: gram.Reduced, y_N, weight_N, strength, models_FH) -> closed_form.LinearFit:
    del models_FH
    coef_K, intercept = _weights(_spectrum(prepared.z_NK, y_N, weight_N), strength)
    return closed_form.linear_fit(coef_K, intercept)


def _finish(prepared: gram.Reduced, fit: closed_form.LinearFit) -> LinearModel:
    return gram.lift(prepared, fit.coef_D, fit.intercept)


PROBE = probe.Probe(
    prepare=_prepare,
    path=_path,
    fit=_fit,
    finish=_finish,
    values=lambda num_train, num_features, smallest_fold: STRENGTHS,
    default=lambda num_train, num_features: DEFAULT_STRENGTH,
    larger_wins=True,
)
