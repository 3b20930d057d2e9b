"""Converged solvers against scikit-learn's, on ordinary and on awkward problems."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprobe.probes import gram, logistic, logistic_l1, scaling

linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is the reference")

C_R = logistic.C_GRID
FIT = {solver: jax.jit(solver.fit) for solver in (logistic, logistic_l1)}
PATH = {solver: jax.jit(solver.fit_path) for solver in (logistic, logistic_l1)}


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def activations(num_rows=150, d_model=40, seed=0):
    """Correlated columns of very different sizes, far from the origin, like a residual stream."""
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(d_model, d_model)))[0]
    x_ND = rng.normal(size=(num_rows, d_model)) * np.logspace(2, -1, d_model) @ rotation + 300
    score_N = x_ND @ rng.normal(size=d_model) + 200 * rng.normal(size=num_rows)
    return x_ND, (score_N > np.median(score_N)).astype(float)


def latents(num_rows=150, num_latents=30, seed=0):
    rng = np.random.default_rng(seed)
    z_NK = np.maximum(rng.normal(size=(num_rows, num_latents)) - 0.5, 0)
    z_NK = z_NK * rng.lognormal(size=num_latents) * 20
    score_N = z_NK @ rng.normal(size=num_latents) + 30 * rng.normal(size=num_rows)
    return z_NK, (score_N > np.median(score_N)).astype(float)


def objective(z_NK, y_N, coef_K, intercept, c, penalty):
    margin_N = (2 * y_N - 1) * (z_NK @ coef_K + intercept)
    size = np.abs(coef_K).sum() if penalty == "l1" else coef_K @ coef_K / 2
    return size + c * np.logaddexp(0, -margin_N).sum()


@pytest.mark.parametrize("shape", [(150, 40), (60, 90)])
def test_l2_path_reaches_scikit_learns_optimum_at_every_c(shape):
    x_ND, y_N = activations(*shape)
    path = PATH[logistic](x_ND - x_ND.mean(0), y_N, np.ones(len(y_N)), C_R)
    assert np.asarray(path.converged).all()
    for r, c in enumerate(C_R):
        model = linear_model.LogisticRegression(
            C=c, solver="newton-cholesky", tol=1e-10, max_iter=1000
        ).fit(x_ND - x_ND.mean(0), y_N)
        wanted = objective(x_ND - x_ND.mean(0), y_N, model.coef_[0], model.intercept_[0], c, "l2")
        assert path.objective[r] <= wanted * (1 + 1e-7)
        got = objective(x_ND - x_ND.mean(0), y_N, path.coef_K[r], path.intercept[r], c, "l2")
        np.testing.assert_allclose(path.objective[r], got, rtol=1e-9)


@pytest.mark.filterwarnings("ignore:Liblinear failed")  # it is the one that stops early
@pytest.mark.parametrize("num_latents", [1, 8, 30, 200])
def test_l1_path_is_no_worse_than_liblinear_at_any_c(num_latents):
    z_NK, y_N = latents(num_latents=num_latents)
    path = PATH[logistic_l1](z_NK, y_N, np.ones(len(y_N)), C_R)
    assert np.asarray(path.converged).all()
    for r, c in enumerate(C_R):
        # liblinear penalises the intercept; scaled up, that is next to nothing.
        model = linear_model.LogisticRegression(
            C=c, l1_ratio=1, solver="liblinear", intercept_scaling=1e3, tol=1e-9, max_iter=20000
        ).fit(z_NK, y_N)
        wanted = objective(z_NK, y_N, model.coef_[0], model.intercept_[0], c, "l1")
        assert path.objective[r] <= wanted * (1 + 1e-5)
        got = objective(z_NK, y_N, path.coef_K[r], path.intercept[r], c, "l1")
        np.testing.assert_allclose(path.objective[r], got, rtol=1e-9)


def test_l1_satisfies_the_optimality_conditions_itself():
    z_NK, y_N = latents()
    c = 0.3
    fit = FIT[logistic_l1](z_NK, y_N, np.ones(len(y_N)), c)
    p_N = 1 / (1 + np.exp(-(z_NK @ np.asarray(fit.coef_K) + float(fit.intercept))))
    slope_K = c * z_NK.T @ (p_N - y_N)
    coef_K = np.asarray(fit.coef_K)
    active = coef_K != 0
    assert 0 < active.sum() < len(coef_K)
    np.testing.assert_allclose(slope_K[active], -np.sign(coef_K[active]), atol=1e-3)
    assert np.abs(slope_K[~active]).max() <= 1 + 1e-3
    np.testing.assert_allclose(np.sum(p_N - y_N) * c, 0, atol=1e-3)


@pytest.mark.parametrize("solver", [logistic, logistic_l1])
def test_weight_zero_is_leaving_out(solver):
    x_ND, y_N = activations()
    x_ND = (x_ND - x_ND.mean(0)) / 100
    keep_N = np.arange(len(y_N)) % 3 > 0
    masked = FIT[solver](x_ND, y_N, keep_N.astype(float), 1.0)
    alone = FIT[solver](x_ND[keep_N], y_N[keep_N], np.ones(keep_N.sum()), 1.0)
    np.testing.assert_allclose(masked.objective, alone.objective, rtol=1e-7)
    np.testing.assert_allclose(masked.coef_K, alone.coef_K, atol=1e-4)


AWKWARD = {
    "separable": lambda x, y: (x + 1e4 * (2 * y[:, None] - 1), y),
    "constant columns": lambda x, y: (np.c_[x, np.full((len(y), 3), 7.0)], y),
    "zero columns": lambda x, y: (np.c_[x, np.zeros((len(y), 3))], y),
    "duplicate rows": lambda x, y: (np.r_[x, x], np.r_[y, 1 - y]),
    "duplicate columns": lambda x, y: (np.c_[x, x], y),
    "two rows": lambda x, y: (x[:2], np.array([0.0, 1.0])),
    "large": lambda x, y: (x * 1e4, y),
    "all the same": lambda x, y: (np.ones_like(x), y),
}


@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("solver", [logistic, logistic_l1])
def test_awkward_data_is_solved_or_flagged_never_nan(name, solver):
    x_ND, y_N = AWKWARD[name](*activations())
    x_ND = x_ND - x_ND.mean(0)
    path = PATH[solver](x_ND, y_N, np.ones(len(y_N)), C_R)
    for field in path:
        assert np.isfinite(np.asarray(field)).all()
    penalty = "l1" if solver is logistic_l1 else "l2"
    for r, c in enumerate(C_R):
        wanted = objective(
            x_ND, y_N, np.zeros(x_ND.shape[1]), np.log(y_N.mean() / (1 - y_N.mean())), c, penalty
        )
        assert path.objective[r] <= wanted * (1 + 1e-9)
        if path.converged[r]:
            got = objective(x_ND, y_N, path.coef_K[r], path.intercept[r], c, penalty)
            np.testing.assert_allclose(path.objective[r], got, rtol=1e-6)
    assert np.asarray(path.converged).mean() >= 0.9


@pytest.mark.parametrize("shape", [(60, 90), (150, 40)])
def test_reduction_keeps_inner_products_and_scores(shape):
    x_ND, y_N = activations(*shape)
    test_MD = activations(33, shape[1], seed=0)[0]
    weight_N = np.ones(shape[0])
    weight_N[-5:] = 0
    reduced = gram.reduce(jnp.asarray(x_ND), jnp.asarray(weight_N))
    z_NK = reduced.z_NK
    assert z_NK.shape[1] == min(shape)
    mean_D = x_ND[:-5].mean(0)
    wanted = (x_ND[:-5] - mean_D) @ (x_ND[:-5] - mean_D).T
    np.testing.assert_allclose(z_NK[:-5] @ z_NK[:-5].T, wanted, atol=1e-7 * np.abs(wanted).max())
    fit = FIT[logistic](z_NK, y_N, weight_N, 0.01)
    model = linear_model.LogisticRegression(
        C=0.01, solver="newton-cholesky", tol=1e-10, max_iter=1000
    ).fit(x_ND[:-5], y_N[:-5])
    got_M = gram.lift(reduced, fit.coef_K, fit.intercept)(test_MD)
    np.testing.assert_allclose(got_M, model.decision_function(test_MD), rtol=1e-3, atol=1e-3)


def test_standardising_is_scikit_learns():
    preprocessing = pytest.importorskip("sklearn.preprocessing", reason="the reference")
    x_ND = np.c_[activations(50, 4)[0], np.full(50, 7.3), np.zeros(50)]
    weight_N = (np.arange(50) < 40).astype(float)
    got_ND, mean_D, scale_D = scaling.centre(
        jnp.asarray(x_ND), jnp.asarray(weight_N), standardise=True
    )
    scaler = preprocessing.StandardScaler().fit(x_ND[:40])
    np.testing.assert_allclose(got_ND[:40], scaler.transform(x_ND[:40]), atol=1e-9)
    assert not np.asarray(got_ND[40:]).any()
    np.testing.assert_allclose(mean_D, scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(scale_D, scaler.scale_, rtol=1e-9)


def test_solvers_vmap_over_labels():
    x_ND, y_N = activations(80, 10)
    x_ND = (x_ND - x_ND.mean(0)) / 50
    y_PN = np.stack([y_N, 1 - y_N, np.roll(y_N, 7)])
    together = jax.vmap(logistic.fit, (None, 0, None, None))(x_ND, y_PN, np.ones(80), 1.0)
    for p in range(3):
        alone = FIT[logistic](x_ND, y_PN[p], np.ones(80), 1.0)
        np.testing.assert_allclose(together.objective[p], alone.objective, rtol=1e-7)
