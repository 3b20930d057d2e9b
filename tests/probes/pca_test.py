"""PCA and logistic regression against scikit-learn's, through the whole protocol."""

import jax
import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is the reference")
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from jaxprobe.probes import pca
from tests.probes import drawn


def components(value, x_ND, y_N, rows):
    scaler = StandardScaler().fit(x_ND)
    basis = PCA(min(x_ND.shape), svd_solver="full").fit(scaler.transform(x_ND))
    z_NK = basis.transform(scaler.transform(x_ND))[rows, : int(value)]
    model = LogisticRegression(solver="newton-cholesky", tol=1e-10, max_iter=10000)
    model.fit(z_NK, y_N[rows])
    return lambda x_MD: model.decision_function(
        basis.transform(scaler.transform(x_MD))[:, : int(value)]
    )


def grid_of(most: int):
    return drawn.whole_powers(most)


@pytest.mark.usefixtures("one_program")
@pytest.mark.parametrize("num_train", [2, 3, 5, 12, 40, 150])
def test_agrees_with_scikit_learn(num_train):
    x_ND, y_N = drawn.normal()
    split = drawn.split(num_train, y_N)
    most = min(num_train, x_ND.shape[1])
    wanted = drawn.protocol(x_ND, split, grid_of(most), most, components)
    drawn.check(drawn.fit(pca.PROBE, x_ND, split), wanted, atol=2e-4)


def test_both_gram_matrices_give_the_same_components():
    rng = np.random.default_rng(0)
    for shape in ((9, 30), (30, 9), (20, 20)):
        x_ND = rng.normal(size=shape).astype(np.float32) * np.float32(3) + np.float32(1)
        scaled_ND = StandardScaler().fit_transform(x_ND)
        weight_N = np.r_[np.ones(shape[0]), 0, 0].astype(np.float32)
        found = pca.components(np.pad(scaled_ND, ((0, 2), (0, 0))), weight_N)
        length_K = np.linalg.svd(scaled_ND)[1]
        rank = min(shape[0] - 1, shape[1])
        np.testing.assert_allclose(
            np.linalg.norm(found.z_NK, axis=0)[:rank], length_K[:rank], rtol=1e-3
        )
        products_NN = np.asarray(found.z_NK @ found.z_NK.T)[: shape[0], : shape[0]]
        np.testing.assert_allclose(products_NN, scaled_ND @ scaled_ND.T, atol=1e-3)


@pytest.mark.parametrize("shape", [(600, 300), (300, 600)])
@pytest.mark.parametrize("rank", [40, 300])
def test_large_matrices_are_decomposed_as_exactly_as_small_ones(shape, rank):
    rng = np.random.default_rng(0)
    # Eigenvalues over six decades, which float32 alone would blur.
    widths_K = np.logspace(2, -1, rank)
    x_ND = (rng.normal(size=(shape[0], rank)) * widths_K) @ rng.normal(size=(rank, shape[1]))
    with jax.enable_x64(True):
        scaled_ND = StandardScaler().fit_transform(x_ND)
        found = pca.Components(*map(np.asarray, pca.components(scaled_ND, np.ones(shape[0]))))
    left_NK, length_K, right_KD = np.linalg.svd(scaled_ND, full_matrices=False)
    real = min(rank, pca.MAX_COMPONENTS)
    np.testing.assert_allclose(
        np.linalg.norm(found.z_NK, axis=0)[:real], length_K[:real], rtol=1e-8
    )
    cosine_K = np.abs(np.sum(found.vector_DK[:, :real] * right_KD[:real].T, axis=0))
    np.testing.assert_allclose(cosine_K, 1, atol=1e-8)
    assert not found.vector_DK[:, real:].any()  # no direction out of rounding
    np.testing.assert_allclose(
        found.z_NK[:, :real], x_of(found, left_NK, length_K, real), atol=1e-3
    )


def x_of(found, left_NK, length_K, real: int):
    """The same components by the singular value decomposition, with the signs that were found."""
    z_NK = left_NK[:, :real] * length_K[:real]
    return z_NK * np.sign(np.sum(z_NK * found.z_NK[:, :real], axis=0))


def test_numbers_of_components_are_the_published_ones():
    assert pca.values(1024, 2304, 924).tolist() == grid_of(100).tolist()
    assert pca.values(5, 2304, 3).tolist() == [1, 2, 3, 4]  # 2^log2(5) rounds below 5
    assert pca.values(1024, 1, 924).tolist() == [1]
    assert pca.default(3, 2304) == 3
