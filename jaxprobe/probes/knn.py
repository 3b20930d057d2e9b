"""k nearest neighbours: the share of positives among the k training rows nearest to an example.

Euclidean distance between features standardised on all training rows. Distances come from a matrix product,
whose rounding would break ties (duplicate rows, integer features) at random. So they are rounded to a grid of
2^-30 (float32: 2^-15) of their size, on which equal distances coincide; ties go to the row that comes first in
the training order. Distance and order are combined into one integer per row, and bisection finds the k-th
smallest: nothing is sorted.

The score is log(p / (1 - p)) of the share p, with p kept `LEAST` away from 0 and 1; p = 1/2 gives exactly 0.

Axes: M queried examples, S whole numbers from 0 to `MAX_NEIGHBOURS`.

References:
    Cover and Hart, Nearest Neighbor Pattern Classification, 1967.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprobe.probes import candidates, probe, scaling
from jaxprobe.probes.probe import Array

MAX_NEIGHBOURS = 100
NUM_VALUES = 10
VALIDATED_AT_ONCE = 32  # rows: a hold-out has up to 100, six folds of few rows have a handful
LEAST = 1e-6  # probability; a neighbourhood that is wholly wrong costs 14 nats
DIGITS = {"float32": 15, "float64": 30}  # of distances, in bits


class _Rows(NamedTuple):
    x_ND: jax.Array
    weight_N: jax.Array


class _Fit(NamedTuple):
    y_N: Array
    count: Array
    residual: Array
    converged: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class NeighboursModel:
    """The training rows, and how many of the nearest are counted.

    Attributes:
        x_ND: Training features, minus `mean_D`, divided by `scale_D`.
        y_N: Their labels.
        weight_N: 0 for rows that are never neighbours.
        count: Number of neighbours.
        mean_D, scale_D: What is subtracted from an example's features, and then divided by.
    """

    x_ND: Array
    y_N: Array
    weight_N: Array
    count: Array
    mean_D: Array
    scale_D: Array

    def __call__(self, x_MD: Array) -> Array:
        """Log-odds of rows, in the precision of the training rows."""
        x_ND = jnp.asarray(self.x_ND)
        query_MD = (x_MD.astype(x_ND.dtype) - self.mean_D[None, :]) / self.scale_D[None, :]
        count = jnp.asarray(self.count)
        pos_M = positives(query_MD, x_ND, self.y_N, jnp.asarray(self.weight_N), count[None])[0]
        return _log_odds(pos_M, count)

    def after_scaling(self, mean_D: Array, scale_D: Array) -> "NeighboursModel":
        """The model of features of which this one reads `(x - mean) / scale`."""
        mean_D, scale_D = scaling.composed((mean_D, scale_D), (self.mean_D, self.scale_D))
        return dataclasses.replace(self, mean_D=mean_D, scale_D=scale_D)

    def trimmed(self, num_rows: int, num_columns: int) -> "NeighboursModel":
        """Without the padding of training rows and of features."""
        return NeighboursModel(
            x_ND=self.x_ND[:num_rows, :num_columns],
            y_N=self.y_N[:num_rows],
            weight_N=self.weight_N[:num_rows],
            count=self.count,
            mean_D=self.mean_D[:num_columns],
            scale_D=self.scale_D[:num_columns],
        )


def values(num_train: int, num_features: int, smallest_fold: int) -> np.ndarray:
    """Candidate numbers of neighbours: the published grid, up to the smallest fold's training rows."""
    del num_features
    most = max(min(num_train - 1, MAX_NEIGHBOURS, smallest_fold), 1)
    return np.array(candidates.whole_powers(most, NUM_VALUES))


def positives(
    query_MD: Array, x_ND: Array, y_N: Array, weight_N: Array, count_H: Array
) -> jax.Array:
    """Positives among the nearest training rows [H, M], ties in training order.

    Args:
        query_MD: Examples.
        x_ND: Training rows.
        y_N: Their labels in {0, 1}.
        weight_N: 0 for rows that are never neighbours.
        count_H: Numbers of neighbours, at most the number of rows of weight 1.
    """
    key_MN, digits = _keys(query_MD, x_ND, weight_N)
    pos_N = (y_N > 0) & (weight_N > 0)

    def counted(count):
        # Bisects for the smallest key at or below which there are `count` keys.
        def halve(_, bounds):
            low_M, high_M = bounds
            middle_M = (low_M + high_M) // 2
            enough_M = jnp.sum(key_MN <= middle_M[:, None], axis=1, dtype=jnp.int32) >= count
            return jnp.where(enough_M, low_M, middle_M + 1), jnp.where(enough_M, middle_M, high_M)

        edge_M = jnp.full(key_MN.shape[0], 2 ** (digits - 1), key_MN.dtype)
        key_M = jax.lax.fori_loop(0, digits + 1, halve, (-edge_M, edge_M))[0]
        within_MN = (key_MN <= key_M[:, None]) & pos_N[None, :]
        return jnp.sum(within_MN.astype(y_N.dtype), axis=1)

    return jax.lax.map(counted, count_H.astype(jnp.int32))


def _keys(query_MD, x_ND, weight_N):
    """Integers [M, N], ordered by distance, then by training order; and how many bits they take."""
    # The query's own squared norm is left out: it changes no order and would only make numbers larger.
    norm_N = jnp.sum(x_ND * x_ND, axis=1)
    away_MN = norm_N[None, :] - 2 * (query_MD @ x_ND.T)
    longest = jnp.sqrt(jnp.max(norm_N))
    size_M = longest**2 + 2 * longest * jnp.sqrt(jnp.sum(query_MD * query_MD, axis=1))
    # The next power of two, from the bits and not by a logarithm, so that scaling to the grid is exact.
    power_M = jnp.frexp(jnp.where(size_M > 0, size_M, 0.5))[1]
    whole = jnp.int64 if x_ND.dtype == jnp.float64 else jnp.int32
    order_bits = max(x_ND.shape[0] - 1, 1).bit_length()
    # Two bits more than distance and order need: the sign, and rounding up past the power of two. In an
    # int32, very many rows leave fewer bits for distances.
    digits = min(DIGITS[x_ND.dtype.name] + order_bits + 2, jnp.iinfo(whole).bits - 1)
    grid_M = jnp.ldexp(jnp.ones_like(size_M), digits - order_bits - 2 - power_M)
    order_N = jnp.arange(x_ND.shape[0], dtype=whole)
    key_MN = jnp.round(away_MN * grid_M[:, None]).astype(whole) * 2**order_bits + order_N[None, :]
    return jnp.where(weight_N[None, :] > 0, key_MN, 2 ** (digits - 1)), digits


def _prepare(x_ND, weight_N, seed) -> _Rows:
    del seed
    return _Rows(x_ND, weight_N)


def _log_odds(pos, count):
    """Log-odds of `pos` positives among `count` neighbours.

    Logarithms are looked up in a table of integers: computed per row, they may round differently in SIMD
    vectors and in the remainder after the last full one, and so break ties by a row's position.
    """
    least = LEAST * jnp.maximum(count, 1)
    log_S = jnp.log(jnp.maximum(jnp.arange(MAX_NEIGHBOURS + 1, dtype=pos.dtype), least))
    pos, neg = pos.astype(jnp.int32), (count - pos).astype(jnp.int32)
    return log_S[pos] - log_S[neg]


def _path(prepared: _Rows, y_N, weight_N, value_H):
    """Scores of the rows that this fold leaves out; 0 for the others, whose scores are never read."""
    left_out_N = (prepared.weight_N > 0) & (weight_N == 0)
    row_N = jnp.argsort(~left_out_N)  # stable; rows that are left out come first
    count_H = jnp.minimum(value_H, jnp.sum(weight_N))

    def scored(row_B):
        return positives(prepared.x_ND[row_B], prepared.x_ND, y_N, weight_N, count_H).T

    pos_NH = probe.map_rows(scored, row_N, jnp.sum(left_out_N), VALIDATED_AT_ONCE)
    logit_NH = jnp.zeros_like(pos_NH).at[row_N].set(jax.vmap(_log_odds, (1, 0), 1)(pos_NH, count_H))
    return probe.exact(value_H.shape, value_H.dtype), logit_NH.T


def _fit(prepared: _Rows, y_N, weight_N, count, models_FH) -> _Fit:
    del prepared, models_FH
    count = jnp.minimum(count, jnp.sum(weight_N))
    certificate = probe.exact((), y_N.dtype)
    return _Fit(y_N, count, certificate.residual, certificate.converged)


def _finish(prepared: _Rows, fit: _Fit) -> NeighboursModel:
    x_ND = prepared.x_ND
    return NeighboursModel(
        x_ND=x_ND,
        y_N=fit.y_N,
        weight_N=prepared.weight_N,
        count=fit.count,
        mean_D=jnp.zeros_like(x_ND[0]),
        scale_D=jnp.ones_like(x_ND[0]),
    )


PROBE = scaling.standardised(
    probe.Probe(
        prepare=_prepare,
        path=_path,
        fit=_fit,
        finish=_finish,
        values=values,
        default=lambda num_train, num_features: 1.0,
        weighted=False,  # it counts neighbours
    )
)
