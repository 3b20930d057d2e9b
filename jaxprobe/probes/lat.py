"""Linear artificial tomography: the main direction in which paired positives and negatives differ.

Positives and negatives are paired in training order, the first with the first, until one class runs
out. The first right singular vector of the pairs' differences (not centred) is the direction; training
labels say which end of it is class 1. Threshold and scale are `closed_form.midpoint`'s.

References:
    Zou et al., Representation Engineering: A Top-Down Approach to AI Transparency, arXiv 2310.01405.
"""

import jax
import jax.numpy as jnp

from jaxprobe.probes import closed_form, mean_difference
from jaxprobe.probes.probe import Array


def direction(x_ND: Array, y_N: Array, weight_N: Array) -> jax.Array:
    """Unit vector [D] that explains most of the paired differences, towards class 1.

    Args:
        x_ND: Features.
        y_N: Labels in {0, 1}.
        weight_N: 1 for rows to train on, else 0.
    """
    difference_PD = _pairs(x_ND, y_N, weight_N)
    num_pairs, d_model = difference_PD.shape
    # The smaller of the two Gram matrices has the same spectrum.
    if num_pairs < d_model:
        _, vector_PP = jnp.linalg.eigh(difference_PD @ difference_PD.T)
        w_D = vector_PP[:, -1] @ difference_PD
    else:
        _, vector_DD = jnp.linalg.eigh(difference_PD.T @ difference_PD)
        w_D = vector_DD[:, -1]
    forward = w_D @ mean_difference.direction(x_ND, y_N, weight_N) >= 0
    return jnp.where(forward, w_D, -w_D)


def _pairs(x_ND, y_N, weight_N):
    """Differences positive - negative of the pairs [P, D]; zero beyond the last pair."""
    pos_N, neg_N = (weight_N * y_N) > 0, (weight_N * (1 - y_N)) > 0
    # Stable sorting keeps each class in training order. No class pairs more than half of all rows.
    most = max(x_ND.shape[0] // 2, 1)
    first_P, second_P = jnp.argsort(~pos_N)[:most], jnp.argsort(~neg_N)[:most]
    paired_P = jnp.arange(most) < jnp.minimum(jnp.sum(pos_N), jnp.sum(neg_N))
    return jnp.where(paired_P[:, None], x_ND[first_P] - x_ND[second_P], 0)


PROBE = closed_form.make(direction)._replace(weighted=False)  # it pairs rows one to one
