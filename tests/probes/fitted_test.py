"""A fitted probe: it scores as it was tested, is saved and read back, and gives its coefficients away."""

import functools

import jax
import numpy as np
import pytest

import jaxprobe as jp
from jaxprobe.probes import PROBES, fit_grid, fit_probe, load_probe
from jaxprobe.sealed import FileError
from tests.probes import drawn

pytest.importorskip("sklearn", reason="scikit-learn is the reference")
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

LINEAR = (
    *("logistic", "logistic_standardised", "logistic_l1", "pca", "mean_difference", "lda", "ridge"),
    *("lat", "best_latents", "logistic_l1_saga"),
)
OTHERS = ("knn", "mlp")
X_ND, Y_N = drawn.normal(num_rows=240, shift=0.1)
SPLIT = drawn.split(40, Y_N)
LATENTS = np.array([7, 0, 3, 9, 2])


def kept(method: str, **others):
    scores = fit_grid(
        method, X_ND, [SPLIT], metrics=("auroc",), keep_scores=True, keep_probes=True, **others
    )
    return scores


@pytest.mark.parametrize("method", (*LINEAR, *OTHERS))
def test_a_kept_probe_scores_as_it_was_tested(method, tmp_path):
    scores = kept(method, columns=[LATENTS], num_latents=(3,))
    ((probe,),), ((prediction,),) = scores.probes, scores.predictions
    x_MD = X_ND[SPLIT.test_N]
    found_M = probe(x_MD)
    # On the same rows in another batch: a sum's last digits may differ, and do for networks in float32.
    # scikit-learn's saga, too, scores in float32.
    atol = 1e-4 if method in ("mlp", "logistic_l1_saga") else 1e-9
    np.testing.assert_allclose(found_M, prediction.score_M["test"], rtol=1e-6, atol=atol)
    auroc = roc_auc_score(SPLIT.y_test_N, found_M)
    np.testing.assert_allclose(auroc, scores.test_auroc[0, 0], rtol=0, atol=1e-12)
    assert probe.latents.tolist() == LATENTS[:3].tolist() and probe.num_features == 12
    if method in LINEAR:
        by_hand_M = x_MD.astype(float) @ probe.coef_D + probe.intercept
        np.testing.assert_allclose(by_hand_M, found_M, rtol=1e-9, atol=1e-9)
        np.testing.assert_array_equal(probe.coef_D[probe.latents], probe.weights)
        assert np.count_nonzero(probe.coef_D) <= 3
    else:
        with pytest.raises(AttributeError, match=f"{method} is not a linear probe"):
            _ = probe.coef_D
        with pytest.raises(AttributeError, match="not a linear probe"):
            _ = probe.intercept
    # Round trip, and the same inside somebody's program, as an argument and as a constant.
    path = tmp_path / "probe.safetensors"
    probe.save(path)
    again = load_probe(path)
    np.testing.assert_array_equal(again(x_MD), found_M)
    assert repr(again) == repr(probe) == f"FittedProbe({method!r}, 12 features, 3 latents)"
    jitted_M = jax.jit(lambda probe, x_ND: probe(x_ND))(again, x_MD)
    if method != "knn":  # whose ties are decided in float64
        np.testing.assert_allclose(jitted_M, found_M, rtol=1e-3, atol=1e-3)
    assert jitted_M.shape == found_M.shape


def test_coefficients_are_those_of_scikit_learn():
    probe = kept("logistic").probes[0]
    value = kept("logistic").best_value[0]
    x_ND, y_N = X_ND[SPLIT.train_N].astype(float), SPLIT.y_train_N
    model = LogisticRegression(C=value, solver="newton-cholesky", tol=1e-12, max_iter=10000)
    model.fit(x_ND, y_N)
    # To the square root of the certificate of the objective.
    np.testing.assert_allclose(probe.coef_D, model.coef_[0], rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(probe.intercept, model.intercept_[0], rtol=1e-2, atol=1e-2)
    assert probe.latents is None and probe.weights is probe.coef_D


def test_fit_probe_gives_what_it_fitted():
    train, test = SPLIT.train_N, SPLIT.test_N
    arrays = X_ND[train], SPLIT.y_train_N, X_ND[test], SPLIT.y_test_N
    result = fit_probe("mean_difference", *arrays)
    auroc = roc_auc_score(SPLIT.y_test_N, result.probe(X_ND[test]))
    assert auroc == pytest.approx(result.test_auroc, abs=1e-12) and result.no_probe == ""
    latents = fit_probe("ridge", *arrays, features="latents", num_latents=2).probe
    assert len(latents.latents) == 2 and latents(X_ND).shape == (240,)
    # Wide features are narrowed as they were before the fit.
    np.testing.assert_array_equal(result.probe(X_ND.astype(float)), result.probe(X_ND))


def test_traced_probes_are_kept_where_they_are_small():
    train, test = SPLIT.train_N[:8], SPLIT.test_N[:20]
    arrays = X_ND[train], SPLIT.y_train_N[:8], X_ND[test], Y_N[test]
    y_PN = np.stack([arrays[1], 1 - arrays[1]])
    fit = functools.partial(fit_probe, "mean_difference")

    @jax.jit
    def together(y_PN):
        results = jax.vmap(lambda y_N: fit(arrays[0], y_N, arrays[2], arrays[3]))(y_PN)
        return results, jax.vmap(lambda probe: probe(arrays[2]))(results.probe)

    results, score_PM = together(y_PN)
    assert results.probe.coef_D.shape == (2, 12)
    alone = fit(*arrays).probe
    np.testing.assert_allclose(score_PM[0], alone(arrays[2]), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(score_PM[1], -score_PM[0], rtol=1e-4, atol=1e-4)


def test_a_method_that_keeps_its_model_says_so():
    pytest.importorskip("xgboost", reason="an optional extra")
    arrays = X_ND[:4], np.array([0, 1, 0, 1]), X_ND[4:20], Y_N[4:20]
    result = fit_probe("xgboost", *arrays)
    assert result.probe is None and "stays inside its library" in result.no_probe


def test_standardised_is_a_probe_of_any_method():
    wide_ND = X_ND * np.logspace(-3, 3, 12).astype(np.float32) + np.float32(5)
    probe = jp.probes.standardised(PROBES["ridge"])
    one, other = (fit_grid(probe, x_ND, [SPLIT], metrics=("auroc",)) for x_ND in (X_ND, wide_ND))
    np.testing.assert_allclose(one.test_auroc, other.test_auroc, atol=1e-3)
    with pytest.raises(ValueError, match=r"`x_ND` must have shape \(\*, 12\), got \(3, 5\)"):
        kept("mean_difference").probes[0](np.zeros((3, 5)))


def test_a_damaged_or_foreign_file_is_refused(tmp_path):
    probe = kept("mean_difference").probes[0]
    path = tmp_path / "probe.safetensors"
    probe.save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    whole = path.read_bytes()
    for at in (9, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(FileError):
            load_probe(path)
    path.write_bytes(whole[:-8])
    with pytest.raises(FileError):
        load_probe(path)
    with pytest.raises(FileNotFoundError):
        load_probe(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 2}, "its version is 2, this program's is 1"),
        ({"kind": "forest"}, "unknown kind 'forest'"),
        ({"number_format": "object"}, "unknown number_format 'object'"),
        ({"num_features": 0}, "`num_features` must be a whole number"),
        ({"num_features": 7}, "must hold a probe that jaxprobe saved"),
        ({"kind": "neighbours"}, "must hold a probe that jaxprobe saved"),
        ({"kind": "network"}, "must hold a probe that jaxprobe saved"),
    ],
)
def test_a_sealed_file_that_is_no_probe_is_refused(changes, said, tmp_path):
    from jaxprobe import sealed

    record = {"version": 1, "kind": "linear", "method": "m", "num_features": 3}
    arrays = {"coef_D": np.ones(3), "intercept": np.zeros(())}
    path = tmp_path / "probe"
    parts = sealed.to_safetensors(
        arrays, "probe", {**record, "number_format": "float32", **changes}
    )
    path.write_bytes(b"".join(map(bytes, parts)))
    with pytest.raises(FileError, match=said):
        load_probe(path)
