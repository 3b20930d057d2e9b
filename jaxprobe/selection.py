"""Ranking an SAE's latents for many splits at once, one block of latents at a time.

Row p of a weight matrix A holds a split's normalised class weights, so `A @ z` gives the class
means of all splits in one product. A block is ranked, its best columns are kept, and it is
dropped: the dense [N, d_sae] array never exists.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprobe import checks

RANKINGS = ("normalised", "raw")
BLOCK = 4096


class Weights(NamedTuple):
    """Row weights of P splits over N examples; each row of `pos_PN` and `neg_PN` sums to 1."""

    pos_PN: jax.Array
    neg_PN: jax.Array
    train_PN: jax.Array


def class_weights(num_rows: int, splits: list[tuple[np.ndarray, np.ndarray]]) -> Weights:
    """Class weights of training rows.

    Args:
        num_rows: N, the dataset's rows.
        splits: Training row numbers and their labels in {0, 1}, per split.

    Raises:
        ValueError: A split without both classes, for which a mean difference has no meaning.
    """
    pos_PN, neg_PN = np.zeros((2, len(splits), num_rows), np.float32)
    for p, (rows, y_N) in enumerate(splits):
        checks.check_binary("y_train_N", y_N, both=True)
        np.add.at(pos_PN[p], rows[y_N == 1], 1 / np.sum(y_N == 1))
        np.add.at(neg_PN[p], rows[y_N == 0], 1 / np.sum(y_N == 0))
    train_PN = ((pos_PN > 0) | (neg_PN > 0)).astype(np.float32)
    return Weights(jnp.asarray(pos_PN), jnp.asarray(neg_PN), jnp.asarray(train_PN))


def score(z_NS, weights: Weights, ranking: str = "normalised"):
    """How far apart the classes' mean latents are: `|mean over pos - mean over neg|`.

    Args:
        z_NS: Latents of all rows.
        weights: Splits to score for.
        ranking: `raw`, or `normalised`: divided by the mean of the latent's nonzero absolute
            values over the training rows, `sum|z| / (count + 1e-6) + 1e-6`.

    Returns:
        score_PS, non-negative.

    References:
        Kantamneni et al., arXiv 2502.16681; normalisation as in sae-probes 0.4.2.
    """
    checks.check_choice("ranking", ranking, RANKINGS)
    gap_PS = jnp.abs(weights.pos_PN @ z_NS - weights.neg_PN @ z_NS)
    if ranking == "raw":
        return gap_PS
    size_PS = weights.train_PN @ jnp.abs(z_NS)
    count_PS = weights.train_PN @ (z_NS != 0).astype(z_NS.dtype)
    return gap_PS / (size_PS / (count_PS + 1e-6) + 1e-6)


class Top(NamedTuple):
    """The best latents of each split, best first, ties by index."""

    score_PK: jax.Array
    index_PK: jax.Array


def top_latents(
    encode_block: Callable[[int, int], jax.Array],
    d_sae: int,
    weights: Weights,
    num_latents: int,
    ranking: str = "normalised",
    block: int = BLOCK,
) -> Top:
    """Ranks all latents for all splits in one pass over blocks of latents.

    Args:
        encode_block: `(start, stop) -> z_NB`, the latents of all rows in that range.
        d_sae: Number of latents.
        weights: Splits to rank for.
        num_latents: How many to keep; all of them where the SAE has fewer.
        ranking: See `score`.
        block: Latents encoded at once.
    """
    num_splits = weights.pos_PN.shape[0]
    top = Top(jnp.zeros((num_splits, 0)), jnp.zeros((num_splits, 0), jnp.int32))
    for start in range(0, d_sae, block):
        stop = min(start + block, d_sae)
        top = _merge(top, encode_block(start, stop), weights, start, num_latents, ranking)
    return top


def _merge(top: Top, z_NB, weights: Weights, start: int, num_latents: int, ranking: str) -> Top:
    # top_k keeps the first of equals, and earlier blocks stand first: ties go to the lower index.
    score_PB = score(z_NB, weights, ranking)
    index_B = start + jnp.arange(z_NB.shape[1], dtype=jnp.int32)
    index_PB = jnp.broadcast_to(index_B, score_PB.shape)
    score_PC = jnp.concatenate([top.score_PK, score_PB], axis=1)
    index_PC = jnp.concatenate([top.index_PK, index_PB], axis=1)
    best_PK, where_PK = jax.lax.top_k(score_PC, min(num_latents, score_PC.shape[1]))
    return Top(best_PK, jnp.take_along_axis(index_PC, where_PK, axis=1))
