"""Logistic regression on the first principal components, their number chosen by validation.

Features are standardised and the components found on all training rows, validation rows among them, as
published. Of the two Gram matrices (rows, features) the smaller is decomposed: they share a spectrum.
The first h components are the first columns of one matrix, so every h is the same problem with the remaining
columns zero, and each fit starts from the previous solution.

References:
    Kantamneni et al., Are Sparse Autoencoders Useful?, arXiv 2502.16681.
    Parlett, The Symmetric Eigenvalue Problem, 1998, section 11.3 (Rayleigh-Ritz).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprobe.probes import c_path, candidates, logistic, probe, scaling
from jaxprobe.probes.linear_model import LinearModel
from jaxprobe.probes.probe import Array

MAX_COMPONENTS = 100
NUM_VALUES = 10
C = 1.0
# The size of Gram matrices from which they are decomposed in float32 first, how many more vectors than are
# kept that finds, and the ratio of eigenvalues from which its errors matter.
LARGE, SPARE, STEEP = 256, 28, 1e3


class Components(NamedTuple):
    """Training rows in the basis of their principal components.

    Attributes:
        z_NK: Rows by components, the largest variance first; 0 in rows of weight 0.
        vector_DK: Unit vectors; 0 where there is no variance left.
    """

    z_NK: Array
    vector_DK: Array


def components(x_ND: Array, weight_N: Array) -> Components:
    """Principal components of rows, `min(N, D, MAX_COMPONENTS)` of them.

    Args:
        x_ND: Training features of mean 0; 0 in rows of weight 0.
        weight_N: Non-negative weights; 0 for rows that only pad.
    """
    num_rows, d_model = x_ND.shape
    kept = min(num_rows, d_model, MAX_COMPONENTS)
    by_rows = num_rows <= d_model
    weighted_ND = x_ND * jnp.sqrt(weight_N)[:, None]
    value_K, vector_AK = _leading(weighted_ND.T if by_rows else weighted_ND, kept)
    # After squaring, the smallest eigenvalues are rounding errors; their directions would be noise.
    least = value_K[0] * vector_AK.shape[0] * jnp.finfo(value_K.dtype).eps
    real_K = (value_K > least) & (value_K > 0)
    length_K = jnp.sqrt(jnp.where(real_K, value_K, 1))
    vector_DK = weighted_ND.T @ (vector_AK / length_K[None, :]) if by_rows else vector_AK
    vector_DK = jnp.where(real_K[None, :], vector_DK, 0)
    return Components(x_ND @ vector_DK, vector_DK)


def _leading(a_BA, kept: int):
    """The `kept` largest eigenvalues of `a'a` and their unit vectors [A, kept].

    In float64 a large matrix is first decomposed in float32; a Rayleigh-Ritz step in float64 then refines
    the leading vectors, and some spare ones, within their span. That squares the error of the values. Where
    they span so many orders that the smallest would suffer, a step of the power method and another
    Rayleigh-Ritz step follow. Axes: B and A are the rows and columns of `a`, S the vectors.
    """
    if a_BA.dtype != jnp.float64 or a_BA.shape[1] < LARGE:
        value_A, vector_AA = jnp.linalg.eigh(a_BA.T @ a_BA)
        return value_A[::-1][:kept], vector_AA[:, ::-1][:, :kept]
    narrow_BA = a_BA.astype(jnp.float32)
    rough_AS = jnp.linalg.eigh(narrow_BA.T @ narrow_BA)[1][:, -kept - SPARE :]
    value_S, vector_AS, image_BS = _turned(a_BA, rough_AS.astype(a_BA.dtype))

    def sharpened():
        real_S = value_S > value_S[-1] * a_BA.shape[1] * jnp.finfo(value_S.dtype).eps
        powered_AS = a_BA.T @ (image_BS / jnp.where(real_S, value_S, 1)[None, :])
        return _turned(a_BA, jnp.where(real_S[None, :], powered_AS, vector_AS))[:2]

    steep = value_S[-kept] < value_S[-1] / STEEP
    value_S, vector_AS = jax.lax.cond(steep, sharpened, lambda: (value_S, vector_AS))
    return value_S[::-1][:kept], vector_AS[:, ::-1][:, :kept]


def _turned(a_BA, vector_AS):
    """Rayleigh-Ritz: within the vectors' span, eigenvalues of `a'a`, its vectors, and `a` times them."""
    lower_SS = jnp.linalg.cholesky(vector_AS.T @ vector_AS)
    vector_AS = jax.scipy.linalg.solve_triangular(lower_SS, vector_AS.T, lower=True).T
    image_BS = a_BA @ vector_AS
    value_S, turn_SS = jnp.linalg.eigh(image_BS.T @ image_BS)
    return value_S, vector_AS @ turn_SS, image_BS @ turn_SS


def values(num_train: int, num_features: int, smallest_fold: int) -> np.ndarray:
    """Numbers of components: the published grid, from one to all (or one less)."""
    del smallest_fold
    most = default(num_train, num_features)
    return np.array(candidates.whole_powers(most, NUM_VALUES))


def default(num_train: int, num_features: int) -> int:
    """All components."""
    return max(min(num_train, num_features, MAX_COMPONENTS), 1)


def _first(prepared: Components, count):
    read_K = jnp.arange(prepared.z_NK.shape[1], dtype=count.dtype) < count
    return jnp.where(read_K[None, :], prepared.z_NK, 0)


def _path(prepared: Components, y_N, weight_N, value_H):
    def advance(fit, count):
        z_NK = _first(prepared, count)
        fit = logistic.fit(z_NK, y_N, weight_N, C, fit)
        return fit, (fit, z_NK @ fit.coef_K + fit.intercept)

    zero = jnp.zeros((), prepared.z_NK.dtype)
    start = c_path.finish(
        jnp.zeros(prepared.z_NK.shape[1] + 1, zero.dtype), zero, zero, jnp.array(0)
    )
    return jax.lax.scan(advance, start, value_H)[1]


def _fit(prepared: Components, y_N, weight_N, count, fit_FH: c_path.Fit) -> c_path.Fit:
    del fit_FH
    return logistic.fit(_first(prepared, count), y_N, weight_N, C)


def _finish(prepared: Components, fit: c_path.Fit) -> LinearModel:
    return LinearModel(coef_D=prepared.vector_DK @ fit.coef_K, intercept=fit.intercept)


def _prepare(x_ND, weight_N, seed) -> Components:
    del seed
    return components(x_ND, weight_N)


PROBE = scaling.standardised(
    probe.Probe(
        prepare=_prepare, path=_path, fit=_fit, finish=_finish, values=values, default=default
    )
)
