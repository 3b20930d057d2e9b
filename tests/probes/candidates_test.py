"""Candidates and ties: the same on every processor, the published ones."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprobe import base, regimes
from jaxprobe.probes import best_latents, candidates, exact, host_probe, knn, pca, running
from tests.probes import drawn


def test_whole_powers_are_numpys_where_its_power_is_rounded_to_the_nearest():
    # Fixed by hand: NumPy's own answer is the processor's.
    assert candidates.whole_powers(3, 10) == (1, 2, 3)
    assert candidates.whole_powers(5, 10) == (1, 2, 3, 4)
    assert candidates.whole_powers(8, 10) == (1, 2, 3, 4, 5, 6, 8)
    assert candidates.whole_powers(100, 10) == (1, 2, 4, 7, 12, 21, 35, 59, 99)
    for most in range(1, 101):
        assert candidates.whole_powers(most, 10) == tuple(drawn.whole_powers(most))


def test_candidates_do_not_ask_the_processor(monkeypatch):
    wanted = knn.values(5, 5, 3), pca.values(64, 9, 50), candidates.powers(10, -5, 5, 10)
    candidates.whole_powers.cache_clear()
    for name in ("logspace", "log2", "power", "exp2"):
        monkeypatch.setattr(np, name, lambda *args, **kwargs: 1 / 0)
    found = knn.values(5, 5, 3), pca.values(64, 9, 50), candidates.powers(10, -5, 5, 10)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert best_latents.values(1, 511, 1)[-1] == 256 and best_latents.values(1, 512, 1)[-1] == 512


def test_powers_are_the_nearest_doubles():
    found = candidates.powers(10, -5, 5, 10)
    np.testing.assert_allclose(found, np.logspace(-5, 5, 10), rtol=4e-15)
    assert found[0] == 1e-5 and found[-1] == 1e5


def test_scarcity_sizes_are_the_rounded_powers():
    sizes = {round(2 ** (1 + 9 * i / 19)) for i in range(20)}
    assert regimes.SCARCITY_SIZES == tuple(sorted(sizes))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("larger_wins", [False, True])
def test_the_order_of_sums_does_not_choose(dtype, larger_wins):
    # Six folds' AUROCs, in every candidate the same ones in another order, then a really worse one.
    rng = np.random.default_rng(0)
    fold_F = np.array([11 / 18, 7 / 9, 5 / 6, 17 / 18, 1 / 3, 13 / 15])
    with jax.enable_x64(dtype == "float64"):
        choose = jax.jit(running.choose, static_argnums=(1, 2))
        for _ in range(50):
            sums_H = [jnp.sum(jnp.array(rng.permutation(fold_F), dtype)) / 6 for _ in range(4)]
            noise_H = rng.choice([-1, 0, 1], 4) * 4 * np.finfo(dtype).eps
            valid_H = jnp.array([*(np.array(sums_H) + noise_H), float(sums_H[0]) - 7e-6], dtype)
            assert choose(valid_H, 5, larger_wins) == (3 if larger_wins else 0)
        better_H = valid_H.at[2].add(7e-6)
        assert choose(better_H, 5, larger_wins) == 2


def test_means_over_folds_differ_by_more_than_a_tie():
    worst = 1.0
    for num in (*range(4, 128, 7), 126, 127, 128, 700):
        for pos in range(1, num, 1 + num // 9):
            y_N = np.random.default_rng(num).permutation(np.arange(num) < pos).astype(int)
            folds = regimes.validation_folds(y_N, 42)
            worst = min(worst, 1 / exact.parts(_split(y_N, folds))) if folds else worst
    assert 3 * regimes.SAME_AUROC < worst


def _split(y_N, folds):
    rows = np.arange(len(y_N))
    return base.Split(
        **{
            "dataset": "d",
            "regime": "standard",
            "level": math.nan,
            "protocol": "paper",
            "seed": 42,
        },
        **{"train_N": rows, "y_train_N": y_N, "test_N": rows, "y_test_N": y_N, "folds": folds},
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_validation_scores_are_equal_numbers(dtype):
    y_N = np.arange(50) % 2
    split = _split(y_N, regimes.validation_folds(y_N, 42))
    rng = np.random.default_rng(1)
    score_N = rng.integers(0, 6, 50)
    fold_F = [host_probe.auroc(y_N[fold.valid], score_N[fold.valid]) for fold in split.folds]
    wanted = exact.valid_auroc(dtype(np.mean(fold_F)), split)
    for _ in range(20):
        rough = dtype(np.mean(rng.permutation(fold_F)) + rng.normal() * np.finfo(dtype).eps)
        assert exact.valid_auroc(rough, split) == wanted
    assert np.isnan(exact.valid_auroc(dtype(np.nan), split))
    np.testing.assert_allclose(wanted, np.mean(fold_F), rtol=1e-6)


def test_equal_shares_score_the_same_wherever_a_row_stands():
    pos_M = jnp.asarray(np.arange(1031) % 8, jnp.float32)
    logit_M = np.asarray(jax.jit(knn._log_odds)(pos_M, jnp.float32(7)))
    assert len(np.unique(logit_M)) == 8
    np.testing.assert_array_equal(logit_M[np.asarray(pos_M) == 3], -logit_M[4])
