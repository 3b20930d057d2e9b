"""Nearest neighbours against scikit-learn, with and without ties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is the reference")
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from jaxprobe.probes import knn
from tests.probes import drawn


def neighbours(value, x_ND, y_N, rows):
    scaler = StandardScaler().fit(x_ND)
    model = KNeighborsClassifier(int(value), algorithm="brute")
    model.fit(scaler.transform(x_ND[rows]), y_N[rows])
    return lambda x_MD: model.predict_proba(scaler.transform(x_MD))[:, 1] - 0.5


def exact_neighbours(value, x_ND, y_N, rows):
    """Whole-number distances in exact arithmetic, ties in training order."""
    scale_D = x_ND.std(axis=0)

    def predict(x_MD):
        away_MN = ((x_MD[:, None, :] - x_ND[rows][None]) ** 2 / scale_D**2).sum(axis=2)
        order_MN = np.argsort(np.round(away_MN, 9), axis=1, kind="stable")[:, : int(value)]
        return y_N[rows][order_MN].mean(axis=1) - 0.5

    return predict


def grid_of(split):
    smallest = min((len(fold.train) for fold in split.folds), default=1)
    most = min(len(split.train_N) - 1, 100, smallest)
    return drawn.whole_powers(most)


@pytest.mark.usefixtures("one_program")
@pytest.mark.parametrize("num_train", [2, 3, 5, 12, 40, 150])
def test_agrees_with_scikit_learn(num_train):
    x_ND, y_N = drawn.normal()
    split = drawn.split(num_train, y_N)
    wanted = drawn.protocol(x_ND, split, grid_of(split), 1, neighbours)
    drawn.check(drawn.fit(knn.PROBE, x_ND, split), wanted)


@pytest.mark.usefixtures("one_program")
@pytest.mark.parametrize("num_train", [5, 12, 40, 150])
def test_equal_distances_tie_and_the_earlier_row_wins(num_train):
    x_ND, y_N = drawn.coarse(d_model=12)
    split = drawn.split(num_train, y_N)
    wanted = drawn.protocol(x_ND, split, grid_of(split), 1, exact_neighbours)
    drawn.check(drawn.fit(knn.PROBE, x_ND, split), wanted)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_order_of_duplicates_survives_rounding(dtype):
    # 37 copies of one row, the nearest of all: the earliest k of them are its neighbours.
    rng = np.random.default_rng(0)
    row_D = rng.normal(size=700) * 1e3
    far_ND = rng.normal(size=(5, 700)) * 1e4
    x_ND = np.concatenate([far_ND[:2], np.tile(row_D, (37, 1)), far_ND[2:]])
    query_MD = rng.normal(size=(33, 700)) * 1e3
    y_N = np.zeros(len(x_ND))
    y_N[[2, 5, 6, 20, 38]] = 1
    count_H = np.array([1, 3, 5, 18, 19, 37])
    with jax.enable_x64(dtype == "float64"):
        arrays = (jnp.asarray(array, dtype) for array in (query_MD, x_ND, y_N, np.ones(len(x_ND))))
        pos_HM = knn.positives(*arrays, jnp.asarray(count_H, dtype))
    wanted_H = [y_N[2 : 2 + count].sum() for count in count_H]
    np.testing.assert_array_equal(pos_HM, np.tile(wanted_H, (33, 1)).T)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_many_training_rows_leave_room_for_their_order(dtype):
    # Whole coordinates: distances are exact, and most are tied many times over.
    rng = np.random.default_rng(0)
    x_ND, query_MD = rng.integers(0, 8, (20_000, 4)), rng.integers(0, 8, (5, 4))
    y_N = rng.integers(0, 2, 20_000)
    count_H = np.array([1, 9, 100, 15_000])
    away_MN = ((query_MD[:, None, :] - x_ND[None]) ** 2).sum(axis=2)
    label_MN = y_N[np.argsort(away_MN, axis=1, kind="stable")]
    with jax.enable_x64(dtype == "float64"):
        arrays = (query_MD, x_ND, y_N, np.ones(len(y_N)), count_H)
        pos_HM = knn.positives(*(jnp.asarray(array, dtype) for array in arrays))
    np.testing.assert_array_equal(pos_HM, [label_MN[:, :k].sum(axis=1) for k in count_H])


def test_log_odds_are_clipped_monotone_and_zero_at_half():
    logit_K = np.asarray(knn._log_odds(jnp.arange(9.0), 8.0))
    assert logit_K[4] == 0
    assert np.all(np.diff(logit_K) > 0) and np.all(np.isfinite(logit_K))
    np.testing.assert_allclose(1 / (1 + np.exp(-logit_K)), np.arange(9) / 8, atol=2e-6)


def test_candidates_are_the_published_ones():
    # Ten powers of two up to the limit, truncated: rounding leaves some limits just out of reach.
    assert knn.values(1024, 5, 924).tolist() == [1, 2, 4, 7, 12, 21, 35, 59, 99]
    assert knn.values(40, 5, 33).tolist() == [1, 2, 3, 4, 6, 10, 15, 22, 33]
    assert knn.values(5, 5, 3).tolist() == [1, 2, 3]  # 2^log2(3) is 3, and 2^log2(5) below 5
    assert knn.values(7, 5, 5).tolist() == [1, 2, 3, 4]
    assert knn.values(2, 5, 2).tolist() == [1]
