"""Streamed ranking against a dense computation in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxprobe import selection


def latents(num_rows=120, d_sae=50, seed=0):
    rng = np.random.default_rng(seed)
    z_NS = np.maximum(rng.normal(size=(num_rows, d_sae)) - 0.8, 0).astype(np.float32)
    z_NS[:, 7] = z_NS[:, 3]  # a tie
    z_NS[:, 11] = 0  # silent
    return z_NS


def dense(z_NS, rows, y_N, ranking):
    """By the published package's formulas, in float64."""
    z_NS = z_NS[rows].astype(np.float64)
    if ranking == "normalised":
        z_NS = z_NS / (np.abs(z_NS).sum(0) / ((z_NS != 0).sum(0) + 1e-6) + 1e-6)
    gap_S = np.abs(z_NS[y_N == 1].mean(0) - z_NS[y_N == 0].mean(0))
    return gap_S


@pytest.mark.parametrize("ranking", selection.RANKINGS)
@pytest.mark.parametrize("block", [7, 16, 64])
def test_streamed_ranking_is_the_dense_one(ranking, block):
    z_NS = latents()
    rng = np.random.default_rng(1)
    splits = []
    for size in (10, 40, 100):
        rows = rng.permutation(120)[:size]
        y_N = rng.integers(0, 2, size)
        y_N[:2] = (0, 1)
        splits.append((rows, y_N))
    weights = selection.class_weights(120, splits)
    top = selection.top_latents(
        lambda start, stop: jnp.asarray(z_NS[:, start:stop]), 50, weights, 20, ranking, block
    )
    for p, (rows, y_N) in enumerate(splits):
        gap_S = dense(z_NS, rows, y_N, ranking)
        wanted = np.argsort(-gap_S.astype(np.float32), kind="stable")[:20]
        got = np.asarray(top.index_PK[p])
        np.testing.assert_allclose(gap_S[got], gap_S[wanted], rtol=1e-5)
        np.testing.assert_allclose(top.score_PK[p], gap_S[got], rtol=1e-4, atol=1e-7)
        assert len(set(got.tolist())) == 20


@pytest.mark.parametrize("block", [4, 50])
def test_ties_go_to_the_lower_index(block):
    z_NS = np.ones((4, 50), np.float32) * np.array([1, 1, 0, 0], np.float32)[:, None]
    weights = selection.class_weights(4, [(np.arange(4), np.array([1, 1, 0, 0]))])
    top = selection.top_latents(
        lambda start, stop: jnp.asarray(z_NS[:, start:stop]), 50, weights, 9, "raw", block
    )
    np.testing.assert_array_equal(top.index_PK[0], np.arange(9))


def test_fewer_latents_than_asked_gives_all():
    z_NS = latents(d_sae=5 + 15)
    weights = selection.class_weights(120, [(np.arange(120), np.arange(120) % 2)])
    top = selection.top_latents(
        lambda start, stop: jnp.asarray(z_NS[:, start:stop]), 20, weights, 512, "raw", 8
    )
    assert sorted(np.asarray(top.index_PK[0]).tolist()) == list(range(20))


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="both classes"):
        selection.class_weights(4, [(np.arange(4), np.ones(4, int))])
