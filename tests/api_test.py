"""The public names, as DESIGN's examples use them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxprobe as jp
from jaxprobe.checkpoints import LoadedSae


def make_sae(d_model=6, d_sae=20, seed=0):
    rng = np.random.default_rng(seed)
    w_SD = rng.normal(size=(d_sae, d_model)).astype(np.float32)
    return jp.JumpReluSae(
        W_enc_DS=jnp.asarray(w_SD.T),
        b_enc_S=jnp.zeros(d_sae, jnp.float32),
        W_dec_SD=jnp.asarray(w_SD),
        b_dec_D=jnp.zeros(d_model, jnp.float32),
        threshold_S=jnp.full(d_sae, 0.5, jnp.float32),
    )


def test_public_names_are_few_and_all_there():
    names = [name for name in jp.__all__ if not name.startswith("_")]
    assert 25 <= len(names) <= 60
    for name in ("load_model", "extract", "load_sae", "encode", "decode", "fit_probe", "auroc"):
        assert callable(getattr(jp, name))


def test_encode_and_decode_take_a_loaded_sae_through_jit_vmap_and_grad():
    sae = make_sae()
    loaded = LoadedSae(sae=sae, id="a", site=None, expected_l0=None, source="memory")
    x_ND = np.random.default_rng(1).normal(size=(9, 6)).astype(np.float32)
    z_NS = np.asarray(jp.encode(loaded, x_ND))
    pre_NS = x_ND @ np.asarray(sae.W_enc_DS)
    np.testing.assert_allclose(z_NS, np.where(pre_NS > 0.5, pre_NS, 0), rtol=1e-5)
    np.testing.assert_allclose(jax.jit(jp.encode)(loaded, x_ND), z_NS, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(jp.encode, (None, 0))(loaded, x_ND), z_NS, rtol=1e-5)
    np.testing.assert_allclose(jp.decode(loaded, z_NS), z_NS @ np.asarray(sae.W_dec_SD), rtol=1e-4)
    slope_D = jax.grad(lambda x_D: jp.encode(sae, x_D).sum())(x_ND[0])
    np.testing.assert_allclose(slope_D, np.asarray(sae.W_enc_DS) @ (z_NS[0] > 0), rtol=1e-5)


def example(num_train=200, num_test=150, d_model=10, seed=0):
    rng = np.random.default_rng(seed)
    y_N = rng.integers(0, 2, num_train + num_test)
    x_ND = rng.normal(size=(len(y_N), d_model)) + 0.8 * y_N[:, None] * (np.arange(d_model) < 3)
    return x_ND[:num_train], y_N[:num_train], x_ND[num_train:], y_N[num_train:]


def test_fit_probe_finds_a_concept_and_says_how_sure_it_is():
    pytest.importorskip("sklearn", reason="scikit-learn is the reference")
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    x_train, y_train, x_test, y_test = example()
    result = jp.fit_probe("logistic", x_train, y_train, x_test, y_test, seed=42)
    model = LogisticRegression(C=result.best_c, solver="newton-cholesky", tol=1e-9)
    wanted = roc_auc_score(y_test, model.fit(x_train, y_train).decision_function(x_test))
    assert result.converged and result.test_auroc == pytest.approx(wanted, abs=1e-3)
    assert result.valid_auroc > 0.8 and result.test_accuracy > 0.7


def test_fit_probe_on_latents_reads_the_k_best():
    x_train, y_train, x_test, y_test = example(d_model=40)
    few = jp.fit_probe(
        *("logistic", x_train, y_train, x_test, y_test),
        **{"features": "latents", "num_latents": 3, "ranking": "raw"},
    )
    alone = jp.fit_probe(
        *("logistic", x_train[:, :3], y_train, x_test[:, :3], y_test), penalty="l1"
    )
    assert few.test_auroc == pytest.approx(alone.test_auroc, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "logistics"}, "unknown method 'logistics'; known: logistic"),
        (
            {"y_train": np.full(200, 2)},
            "`y_train` must hold labels 0 and 1, or two others, got 1: 2",
        ),
        ({"y_train": np.ones(200, int)}, "`y_train` must hold both classes"),
        ({"y_test": np.ones(3, int)}, r"`y_test` must have shape \(150\), got \(3,\)"),
        ({"x_test": np.ones((150, 11))}, r"`x_test` must have shape \(\*, 10\)"),
        ({"x_train": np.full((200, 10), np.nan)}, "`x_train` must be finite"),
        ({"penalty": "l3"}, "unknown penalty 'l3'"),
        ({"features": "latent"}, "unknown features 'latent'; known: latents"),
    ],
)
def test_fit_probe_refuses_bad_input_by_name(change, message):
    names = ("x_train", "y_train", "x_test", "y_test")
    arguments = {"method": "logistic", **dict(zip(names, example(), strict=True)), **change}
    method = arguments.pop("method")
    options = {name: arguments.pop(name) for name in list(arguments) if name not in names}
    with pytest.raises(ValueError, match=message):
        jp.fit_probe(method, **arguments, **options)


@pytest.mark.parametrize(
    ("z_NS", "x_ND", "said"),
    [
        (np.ones((2, 19)), None, "`z_NS` must have d_sae = 20 as its last axis"),
        (np.full((2, 20), np.nan), None, "`z_NS` must be finite"),
        (np.ones((2, 20)), np.ones((3, 6)), r"`x_ND` must be .* of shape \(2, 6\)"),
        (np.ones((2, 20)), [["a"] * 6] * 2, "`x_ND` must hold real numbers, got text"),
    ],
)
def test_decode_refuses_what_is_not_the_saes(z_NS, x_ND, said):
    with pytest.raises(ValueError, match=said):
        jp.decode(make_sae(), z_NS, x_ND)


def test_encode_refuses_what_is_no_activation():
    for bad, said in (
        ([np.nan] * 6, "finite"),
        ([1e39] * 6, "float32"),
        ([1j] * 6, "real numbers"),
    ):
        with pytest.raises(ValueError, match=f"`x_ND` must .*{said}"):
            jp.encode(make_sae(), [bad])
