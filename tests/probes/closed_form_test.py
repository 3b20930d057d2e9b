"""The probes in closed form against NumPy and scikit-learn, through the whole protocol."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is the reference")
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from jaxprobe.probes import (
    best_latents,
    closed_form,
    lat,
    lda,
    mean_difference,
    ridge,
)
from tests.probes import drawn

SIZES = (2, 3, 5, 12, 40, 150)
pytestmark = pytest.mark.usefixtures("one_program")
X_ND, Y_N = drawn.normal()


def means(x_ND, y_N, rows):
    return [x_ND[rows][y_N[rows] == label].mean(axis=0) for label in (0, 1)]


def halfway(x_ND, y_N, rows, w_D):
    neg_D, pos_D = means(x_ND, y_N, rows)
    return lambda x_MD: (x_MD - (neg_D + pos_D) / 2) @ w_D


def nearest_mean(value, x_ND, y_N, rows):
    neg_D, pos_D = means(x_ND, y_N, rows)
    return lambda x_MD: ((x_MD - neg_D) ** 2).sum(axis=1) - ((x_MD - pos_D) ** 2).sum(axis=1)


def paired_direction(value, x_ND, y_N, rows):
    pairs = zip(*(x_ND[rows][y_N[rows] == label] for label in (1, 0)), strict=False)
    w_D = np.linalg.svd(np.array([pos - neg for pos, neg in pairs]))[2][0]
    neg_D, pos_D = means(x_ND, y_N, rows)
    return halfway(x_ND, y_N, rows, w_D * np.sign(w_D @ (pos_D - neg_D)))


def regression(value, x_ND, y_N, rows):
    unit = ((x_ND[rows] - x_ND[rows].mean(axis=0)) ** 2).sum(axis=1).mean()
    return Ridge(alpha=value * unit).fit(x_ND[rows], 2.0 * y_N[rows] - 1).predict


def discriminant(value, x_ND, y_N, rows):
    varies_D = np.ptp(x_ND, axis=0) > 0
    scaler = StandardScaler().fit(x_ND[:, varies_D])
    z_ND, y_N = scaler.transform(x_ND[:, varies_D])[rows], y_N[rows]
    centred_ND = z_ND - np.array([z_ND[y_N == label].mean(axis=0) for label in (0, 1)])[y_N]
    shrinkage = ledoit_wolf(centred_ND, assume_centered=True)[1]
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(z_ND, y_N)
    return lambda x_MD: model.decision_function(scaler.transform(x_MD[:, varies_D]))


def best_columns(value, x_ND, y_N, rows):
    z_ND = StandardScaler().fit(x_ND).transform
    edge_D = np.round(drawn.auroc(y_N[rows], x_ND[rows]) - 0.5, 6)
    best_D = np.argsort(-np.abs(edge_D), kind="stable")[: int(value)]
    w_D = np.zeros(x_ND.shape[1])
    w_D[best_D] = np.sign(edge_D)[best_D]
    along = halfway(z_ND(x_ND), y_N, rows, w_D)
    return lambda x_MD: along(z_ND(x_MD))


@pytest.mark.parametrize("num_train", SIZES)
def test_mean_difference_is_the_nearer_class_mean(num_train):
    split = drawn.split(num_train, Y_N)
    wanted = drawn.protocol(X_ND, split, [0], 0, nearest_mean)
    drawn.check(drawn.fit(mean_difference.PROBE, X_ND, split), wanted)


@pytest.mark.parametrize("num_train", SIZES)
def test_lat_is_the_first_singular_vector_of_paired_differences(num_train):
    split = drawn.split(num_train, Y_N)
    wanted = drawn.protocol(X_ND, split, [0], 0, paired_direction)
    drawn.check(drawn.fit(lat.PROBE, X_ND, split), wanted)


@pytest.mark.parametrize("num_train", SIZES)
def test_ridge_agrees_with_scikit_learn(num_train):
    split = drawn.split(num_train, Y_N)
    wanted = drawn.protocol(X_ND, split, ridge.STRENGTHS, 1.0, regression, larger_wins=True)
    drawn.check(drawn.fit(ridge.PROBE, X_ND, split), wanted, atol=1e-5)


@pytest.mark.parametrize("num_train", [12, 40, 150])
def test_discriminant_agrees_with_scikit_learn(num_train):
    split = drawn.split(num_train, Y_N)
    wanted = drawn.protocol(X_ND, split, [0], 0, discriminant)
    drawn.check(drawn.fit(lda.PROBE, X_ND, split), wanted)


@pytest.mark.parametrize("num_train", SIZES)
def test_best_latents_agree_with_a_loop(num_train):
    x_ND, y_N = drawn.coarse(d_model=12)
    split = drawn.split(num_train, y_N)
    wanted = drawn.protocol(x_ND, split, [1, 2, 4, 8], 1, best_columns)
    del wanted["test_accuracy"]  # whole numbers often lie exactly halfway
    drawn.check(drawn.fit(best_latents.PROBE, x_ND, split), wanted, atol=1e-6)


def test_shrinkage_is_ledoit_and_wolfs_in_any_basis():
    rng = np.random.default_rng(0)
    for shape in ((5, 40), (40, 5), (30, 30), (2, 9)):
        r_ND = (rng.normal(size=shape) * np.logspace(0, 1, shape[1])).astype(np.float32)
        padded_ND = np.pad(r_ND, ((0, 3), (0, 0)))
        weight_N = np.pad(np.ones(len(r_ND), np.float32), (0, 3))
        shrunk = jax.jit(lda.ledoit_wolf)
        found = shrunk(padded_ND, weight_N, shape[1])
        wanted_DD, wanted = ledoit_wolf(r_ND, assume_centered=True)
        np.testing.assert_allclose(found.shrinkage, wanted, atol=2e-5)
        shrunk_DD = (1 - found.shrinkage) * found.matrix_KK
        shrunk_DD += found.shrinkage * found.variance * np.eye(shape[1], dtype=np.float32)
        np.testing.assert_allclose(shrunk_DD, wanted_DD, atol=1e-3)
        basis = np.linalg.qr(rng.normal(size=(shape[1], shape[1])))[0].astype(np.float32)
        rotated = shrunk(padded_ND @ basis, weight_N, shape[1])
        np.testing.assert_allclose(rotated.shrinkage, wanted, atol=2e-5)


def test_discriminant_with_more_features_than_rows_is_the_dense_solution():
    rng = np.random.default_rng(1)
    y_N = np.arange(20) % 2
    x_ND = (rng.normal(size=(20, 60)) + 0.5 * y_N[:, None]).astype(np.float32)
    weight_N, labels_N = np.ones(20, np.float32), y_N.astype(np.float32)

    @jax.jit
    def logits(x_ND):
        prepared = lda.PROBE.prepare(x_ND, weight_N, 0)
        model = lda.PROBE.fit(prepared, labels_N, weight_N, jnp.float32(0), None)
        return lda.PROBE.finish(prepared, model)(x_ND)

    logit_N = logits(x_ND)
    wanted_N = discriminant(0, x_ND, y_N, np.arange(20))(x_ND)
    np.testing.assert_allclose(logit_N, wanted_N, rtol=2e-3, atol=2e-3)


def test_midpoint_gives_log_odds():
    rng = np.random.default_rng(2)
    y_N = (np.arange(20000) % 2).astype(np.float32)
    x_ND = (rng.normal(size=(20000, 1)) + 1.5 * y_N[:, None] + 1).astype(np.float32)
    model = closed_form.midpoint(x_ND, y_N, np.ones_like(y_N), jnp.array([3.0]))
    # Two unit normals 1.5 apart: slope 1.5, zero at 1.75.
    np.testing.assert_allclose(model.coef_D, [1.5], atol=0.05)
    np.testing.assert_allclose(model.intercept, -1.5 * 1.75, atol=0.05)
    few = closed_form.midpoint(x_ND[:2], y_N[:2], np.ones(2, np.float32), jnp.array([3.0]))
    mean_logits = x_ND[:2] @ few.coef_D + few.intercept
    np.testing.assert_allclose(np.abs(mean_logits), closed_form.MAX_LOGIT, rtol=1e-4)


def test_padded_columns_change_nothing():
    split = drawn.split(40, Y_N)
    columns = np.arange(12)
    for module in (lda, best_latents):
        alone = drawn.fit(module.PROBE, X_ND, split)
        padded = drawn.fit(module.PROBE, X_ND, split, columns=[columns], num_latents=(12,))
        for name in ("valid_auroc", "test_auroc", "test_log_loss", "best_value"):
            got, wanted = getattr(padded, name), getattr(alone, name)
            np.testing.assert_allclose(np.ravel(got), wanted, rtol=1e-6, err_msg=name)
