"""Streamed ranking against a dense computation in NumPy: the same latents, ties by index."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxprobe import selection


def dense(z_NS, rows, y_N, ranking):
    """By the published package's formulas, row by row, in float64."""
    z_NS = z_NS[rows].astype(np.float64)
    gap_S = np.abs(z_NS[y_N == 1].mean(0) - z_NS[y_N == 0].mean(0))
    if ranking == "normalised":
        gap_S = gap_S / (np.abs(z_NS).sum(0) / ((z_NS != 0).sum(0) + 1e-6) + 1e-6)
    return gap_S


def streamed(z_NS, splits, num_latents, ranking, block):
    weights = selection.class_weights(len(z_NS), splits)
    return selection.top_latents(
        lambda start, stop: jnp.asarray(z_NS[:, start:stop]),
        z_NS.shape[1],
        weights,
        num_latents,
        ranking,
        block,
    )


def draw_splits(num_rows, sizes, seed=1):
    rng = np.random.default_rng(seed)
    splits = []
    for size in sizes:
        rows = rng.permutation(num_rows)[:size]
        y_N = rng.integers(0, 2, size)
        y_N[:2] = (0, 1)
        splits.append((rows, y_N))
    return splits


def wide(rng, num_rows, d_sae):
    """Sparse latents of all sizes, no two alike."""
    z_NS = rng.lognormal(size=(num_rows, d_sae)) * (rng.random((num_rows, d_sae)) < 0.3)
    return z_NS * rng.lognormal(sigma=2, size=d_sae)


def tied(rng, num_rows, d_sae):
    """Small whole numbers in few distinct columns, most of them many times, some silent."""
    kinds = rng.integers(0, 4, (num_rows, 40)) * (rng.random((num_rows, 40)) < 0.2)
    return kinds[:, rng.integers(0, 40, d_sae)]


def signed(rng, num_rows, d_sae):
    """Latents that may be negative, as AbsTopK's, with many equal sizes."""
    return tied(rng, num_rows, d_sae) * rng.choice([-1, 0.5, 1], (num_rows, d_sae))


def permuted(rng, num_rows, d_sae):
    """Each column holds the same awkward values, in another order inside each half of the rows."""
    half = num_rows // 2
    values = [rng.lognormal(size=half) for _ in range(2)]
    return np.stack([np.concatenate([rng.permutation(v) for v in values]) for _ in range(d_sae)], 1)


def silent(rng, num_rows, d_sae):
    """Hardly any latent fires: the kept ones are mostly ties at zero."""
    z_NS = np.zeros((num_rows, d_sae))
    z_NS[rng.integers(0, num_rows, 30), rng.integers(0, d_sae, 30)] = rng.random(30)
    return z_NS


@pytest.mark.parametrize("ranking", selection.RANKINGS)
@pytest.mark.parametrize("block", [7, 64, 1000])
@pytest.mark.parametrize("make", [wide, tied, signed, permuted, silent])
def test_streamed_ranking_is_the_dense_one(make, block, ranking):
    z_NS = make(np.random.default_rng(0), 120, 300).astype(np.float32)
    splits = draw_splits(120, (2, 2, 3, 10, 40, 120))
    splits.append((np.arange(120), np.arange(120) // 60))  # the halves that `permuted` permutes in
    splits.append((splits[4][0], 1 - splits[4][1]))  # the same rows under other labels
    top = streamed(z_NS, splits, 50, ranking, block)
    for p, (rows, y_N) in enumerate(splits):
        score_S = dense(z_NS, rows, y_N, ranking)
        # Rows are summed here in another order: scores that differ by less are equal.
        score_S = np.round(score_S, 12)
        wanted = np.argsort(-score_S, kind="stable")[:50]
        np.testing.assert_array_equal(top.index_PK[p], wanted)
        np.testing.assert_allclose(top.score_PK[p], score_S[wanted], rtol=1e-9, atol=1e-11)
        assert top.score_PK[p].dtype == np.float64


@pytest.mark.parametrize("ranking", selection.RANKINGS)
def test_latents_that_float32_cannot_tell_apart_are_ranked(ranking):
    # Gaps between the classes of 1e-7 of the mean, below the rounding of a sum of 1,000 terms.
    rng = np.random.default_rng(2)
    z_NS = np.full((1000, 400), 1.0, np.float32)
    z_NS[::2] += (rng.integers(0, 3, (500, 400)) * 2.0**-20).astype(np.float32)
    rows, y_N = np.arange(1000), np.arange(1000) % 2
    top = streamed(z_NS, [(rows, y_N)], 60, ranking, 64)
    score_S = dense(z_NS, rows, y_N, ranking)
    np.testing.assert_array_equal(top.index_PK[0], np.argsort(-score_S, kind="stable")[:60])


def test_few_latents_are_scored_in_float64(monkeypatch):
    scored = []

    def counting(z_NS, *rest, score=selection.score):
        scored.append(z_NS.shape[1])
        return score(z_NS, *rest)

    monkeypatch.setattr(selection, "score", counting)
    z_NS = wide(np.random.default_rng(0), 100, 20_000).astype(np.float32)
    streamed(z_NS, draw_splits(100, (60, 80)), 10, "normalised", 250)
    assert sum(scored) < 2000


@pytest.mark.parametrize("block", [4, 50])
def test_ties_go_to_the_lower_index(block):
    z_NS = np.ones((4, 50), np.float32) * np.array([1, 1, 0, 0], np.float32)[:, None]
    splits = [(np.arange(4), np.array([1, 1, 0, 0]))]
    top = streamed(z_NS, splits, 9, "raw", block)
    np.testing.assert_array_equal(top.index_PK[0], np.arange(9))


def test_fires_says_which_latents_are_active_in_training():
    z_NS = silent(np.random.default_rng(3), 60, 200).astype(np.float32)
    splits = draw_splits(60, (10, 30))
    splits.append((splits[0][0], 1 - splits[0][1]))
    weights = selection.class_weights(60, splits)
    assert weights.set_P.tolist() == [0, 1, 0]
    top = streamed(z_NS, splits, 5, "raw", 64)
    for p, (rows, _) in enumerate(splits):
        wanted = (z_NS[rows] != 0).any(0)
        assert wanted.any()
        np.testing.assert_array_equal(top.fires_TS[weights.set_P[p]], wanted)


def test_a_row_that_is_drawn_twice_counts_twice():
    z_NS = wide(np.random.default_rng(4), 8, 30).astype(np.float32)
    rows, y_N = np.array([0, 0, 1, 2, 3]), np.array([1, 1, 1, 0, 0])
    top = streamed(z_NS, [(rows, y_N)], 30, "normalised", 30)
    score_S = dense(z_NS, rows, y_N, "normalised")
    np.testing.assert_array_equal(top.index_PK[0], np.argsort(-score_S, kind="stable"))


def test_fewer_latents_than_asked_gives_all():
    z_NS = wide(np.random.default_rng(5), 120, 20).astype(np.float32)
    top = streamed(z_NS, [(np.arange(120), np.arange(120) % 2)], 512, "raw", 8)
    assert sorted(top.index_PK[0].tolist()) == list(range(20))


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="both classes"):
        selection.class_weights(4, [(np.arange(4), np.ones(4, int))])
    with pytest.raises(ValueError, match="unknown ranking 'norm'; known: normalised"):
        streamed(np.zeros((2, 3), np.float32), [(np.arange(2), np.arange(2))], 1, "norm", 8)


def test_blocks_of_any_library_are_ranked_alike():
    torch = pytest.importorskip("torch")
    z_NS = np.random.default_rng(0).integers(-3, 4, (6, 5)).astype(np.float32)
    pair = (np.arange(6), np.array([0, 1, 0, 1, 1, 0]))
    weights = selection.class_weights(6, (split for split in [pair]))
    wanted = selection.top_latents(lambda a, b: z_NS[:, a:b], 5, weights, 3)
    makes = (
        lambda z: torch.tensor(z).bfloat16(),
        lambda z: torch.tensor(z, requires_grad=True),
        lambda z: jnp.asarray(z, jnp.bfloat16),
        lambda z: z.tolist(),
    )
    for make in makes:
        got = selection.top_latents(lambda a, b, make=make: make(z_NS[:, a:b]), 5, weights, 3)
        np.testing.assert_array_equal(got.index_PK, wanted.index_PK)
        np.testing.assert_array_equal(got.score_PK, wanted.score_PK)


def test_what_cannot_be_ranked_is_refused():
    pair = (np.arange(4), np.array([0, 1, 0, 1]))
    for splits, said in (
        ([], "a list of pairs .*got none"),
        (None, "a list of pairs .*got NoneType"),
        (pair, r"write \[\(train_N, y_train_N\)\]"),
        ([3], r"got int of shape \(\)"),
    ):
        with pytest.raises(ValueError, match=said):
            selection.class_weights(4, splits)
    weights, z_NS = selection.class_weights(4, [pair]), np.eye(4, dtype=np.float32)
    with pytest.raises(ValueError, match="must hold real numbers, got complex"):
        selection.top_latents(lambda a, b: z_NS[:, a:b] + 0j, 4, weights, 2)
    with pytest.raises(ValueError, match=r"`encode_block` must be a function .*got ndarray"):
        selection.top_latents(z_NS, 4, weights, 2)  # type: ignore[arg-type]
