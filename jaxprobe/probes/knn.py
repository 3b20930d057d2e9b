"""k nearest neighbours: the share of positives among the k training rows nearest to an example.

Euclidean distance between features standardised on all training rows. Distances come from a matrix
product, whose rounding would break ties (duplicate rows, integer features) at random, so they are
rounded to a grid a billionth (float32: a 2^-15th) as fine as they are large, where equal ones meet; among
equal distances the row that stands first in the training order is the nearer. Neighbours are sorted once,
without folds; a fold skips the rows that it left out, and running sums of labels serve every k.

The score is log(p / (1 - p)) of the share p, with p kept `LEAST` away from 0 and 1; p = 1/2 is exactly 0.

References:
    Cover and Hart, Nearest Neighbor Pattern Classification, 1967.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprobe.probes import closed_form, probe, reduction

MAX_NEIGHBOURS = 100
NUM_VALUES = 10
SPARE = 28  # candidates beyond those kept: so many may differ in float64 and agree in float32
NEAREST = 256  # of the training rows: 100 neighbours, and 100 that validate
LEAST = 1e-6  # probability; an ever-wrong neighbourhood costs 14 nats
DIGITS = {"float32": 15, "float64": 30}  # of distances, in bits


class _Prepared(NamedTuple):
    x_ND: jax.Array
    mean_D: jax.Array
    scale_D: jax.Array
    nearest_NK: jax.Array  # the nearest training rows of each training row, by distance
    weight_N: jax.Array


class _Model(NamedTuple):
    y_N: jax.Array
    count: jax.Array
    residual: jax.Array
    converged: jax.Array


def values(num_train: int, num_features: int, smallest_fold: int) -> np.ndarray:
    """Numbers of neighbours: the published grid, up to the smallest fold's training rows."""
    del num_features
    most = max(min(num_train - 1, MAX_NEIGHBOURS, smallest_fold), 1)
    return np.unique(np.logspace(0, np.log2(most), num=NUM_VALUES, base=2, dtype=int))


def nearest(query_MD, x_ND, weight_N, kept: int):
    """Training rows by distance, nearest first, ties in training order [M, kept].

    Args:
        query_MD: Examples.
        x_ND: Training rows.
        weight_N: 0 for rows that only pad; they come last.
        kept: How many neighbours.
    """
    # The example's own squared norm would only make the numbers larger: it ranks nothing.
    norm_N = jnp.sum(x_ND * x_ND, axis=1)
    away_MN = norm_N[None, :] - 2 * (query_MD @ x_ND.T)
    longest = jnp.sqrt(jnp.max(norm_N))
    size_M = longest**2 + 2 * longest * jnp.sqrt(jnp.sum(query_MD * query_MD, axis=1))
    # A power of two, so that scaling to the grid is exact.
    power_M = jnp.ceil(jnp.log2(jnp.where(size_M > 0, size_M, 1)))
    grid_M = jnp.exp2(DIGITS[x_ND.dtype.name] - power_M)
    rounded_MN = jnp.round(away_MN * grid_M[:, None])
    rounded_MN = jnp.where(weight_N[None, :] > 0, rounded_MN, jnp.inf)
    # Float32 keys are ranked seven times faster than float64 ones, and equal distances stay equal in
    # them; some more than are kept are then ranked in full.
    some = min(kept + SPARE, x_ND.shape[0])
    index_MC = jax.lax.top_k(-rounded_MN.astype(jnp.float32), some)[1]
    exact_MC = jnp.take_along_axis(rounded_MN, index_MC, axis=1)
    place_MK = jax.lax.top_k(-exact_MC, kept)[1]
    return jnp.take_along_axis(index_MC, place_MK, axis=1)


def _prepare(x_ND, weight_N, seed) -> _Prepared:
    del seed
    x_ND, mean_D, scale_D = reduction.centre(x_ND, weight_N, standardise=True)
    # A hold-out takes at most 100 rows away, six folds are of few rows: so many hold all that count.
    nearest_NK = nearest(x_ND, x_ND, weight_N, min(x_ND.shape[0], NEAREST))
    return _Prepared(x_ND, mean_D, scale_D, nearest_NK, weight_N)


def _log_odds(pos, count):
    """Of `pos` positives among `count` neighbours."""
    least = LEAST * jnp.maximum(count, 1)
    return jnp.log(jnp.maximum(pos, least)) - jnp.log(jnp.maximum(count - pos, least))


def _path(prepared: _Prepared, y_N, weight_N, value_H):
    counted_NK = weight_N[prepared.nearest_NK]
    rank_NK = jnp.cumsum(counted_NK, axis=1)
    pos_NK = jnp.cumsum(counted_NK * y_N[prepared.nearest_NK], axis=1)

    def scored(k):
        # The place of the k-th row that counts: after it the running sum stands still.
        place_N = jnp.sum((rank_NK < k).astype(jnp.int32), axis=1)
        place_N = jnp.minimum(place_N, rank_NK.shape[1] - 1)
        pos_N = jnp.take_along_axis(pos_NK, place_N[:, None], axis=1)[:, 0]
        return _log_odds(pos_N, jnp.minimum(k, rank_NK[:, -1]))

    return closed_form.certain(value_H.shape, value_H.dtype), jax.vmap(scored)(value_H)


def _fit(prepared: _Prepared, y_N, weight_N, count, models_FH) -> _Model:
    del prepared, models_FH
    count = jnp.minimum(count, jnp.sum(weight_N))
    return _Model(y_N, count, *closed_form.certain((), y_N.dtype))


def _score(prepared: _Prepared, model: _Model, x_MD):
    query_MD = (x_MD - prepared.mean_D[None, :]) / prepared.scale_D[None, :]
    kept = min(prepared.x_ND.shape[0], MAX_NEIGHBOURS)
    nearest_MK = nearest(query_MD, prepared.x_ND, prepared.weight_N, kept)
    read_K = jnp.arange(kept, dtype=model.count.dtype) < model.count
    pos_MK = jnp.where(read_K[None, :], model.y_N[nearest_MK], 0)
    return _log_odds(jnp.sum(pos_MK, axis=1), model.count)


PROBE = probe.Probe(
    prepare=_prepare,
    path=_path,
    fit=_fit,
    score=_score,
    values=values,
    default=lambda num_train, num_features: 1.0,
)
