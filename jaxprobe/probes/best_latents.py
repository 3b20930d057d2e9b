"""The sum of the h best single columns: what a few latents say without any fitted weights.

A column's AUROC over the training rows says how well it separates the classes alone; whether it is above or
below 1/2 says in which direction. The h columns farthest from 1/2, standardised on all training rows and signed,
are summed. h is a power of two, chosen by validation; h = 1 is the best single latent. Threshold and scale of the
sum are `closed_form.midpoint`'s. Ties go to the earlier column.

References:
    Gurnee et al., Finding Neurons in a Haystack, arXiv 2305.01610 (probes of few neurons).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprobe import metrics
from jaxprobe.probes import closed_form, probe, scaling

MAX_COLUMNS = 512
BLOCK = 256  # columns that are ranked at once


class _Ranked(NamedTuple):
    """The best columns, best first, and the sign of each: 0 where the AUROC is 1/2."""

    index_K: jax.Array
    sign_K: jax.Array


def values(num_train: int, num_features: int, smallest_fold: int) -> np.ndarray:
    """Powers of two up to the number of columns, ten at most."""
    del num_train, smallest_fold
    return 2.0 ** np.arange(min(max(num_features, 1), MAX_COLUMNS).bit_length())


def _rank(x_ND, y_N, weight_N) -> _Ranked:
    def edge(column_N):
        won, pairs = metrics.pair_counts(y_N, column_N, weight_N)
        return won - pairs

    # Integers, so that columns that rank equally well tie, whichever direction they have.
    edge_D = jax.lax.map(edge, x_ND.T, batch_size=BLOCK)
    _, index_K = jax.lax.top_k(jnp.abs(edge_D), min(x_ND.shape[1], MAX_COLUMNS))
    return _Ranked(index_K, jnp.sign(edge_D[index_K]))


def _signed_sums(x_ND, ranked: _Ranked, value_H):
    signed_NK = x_ND[:, ranked.index_K] * ranked.sign_K[None, :]
    last_H = jnp.clip(value_H.astype(jnp.int32) - 1, 0, signed_NK.shape[1] - 1)
    return jnp.cumsum(signed_NK, axis=1).T[last_H]


def _prepare(x_ND, weight_N, seed):
    del weight_N, seed
    return x_ND


def _path(x_ND, y_N, weight_N, value_H):
    sums_HN = _signed_sums(x_ND, _rank(x_ND, y_N, weight_N), value_H)
    return probe.exact(value_H.shape, value_H.dtype), sums_HN


def _fit(x_ND, y_N, weight_N, value, models_FH) -> closed_form.LinearFit:
    del models_FH
    ranked = _rank(x_ND, y_N, weight_N)
    chosen_K = jnp.arange(ranked.index_K.shape[0], dtype=value.dtype) < value
    w_D = jnp.zeros_like(x_ND[0]).at[ranked.index_K].set(jnp.where(chosen_K, ranked.sign_K, 0))
    return closed_form.midpoint(x_ND, y_N, weight_N, w_D)


PROBE = scaling.standardised(
    probe.Probe(
        prepare=_prepare,
        path=_path,
        fit=_fit,
        finish=closed_form.finish,
        values=values,
        default=lambda num_train, num_features: 1.0,
        log_odds=closed_form.along,
    )
)
