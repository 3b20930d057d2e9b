"""JumpReLU against NumPy in float64, and the random control against what it promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprobe.saes import jump_relu
from jaxprobe.saes.jump_relu import JumpReluSae


def make_sae(d_model=12, d_sae=40, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    return JumpReluSae(
        W_enc_DS=draw(d_model, d_sae),
        b_enc_S=draw(d_sae),
        W_dec_SD=draw(d_sae, d_model),
        b_dec_D=draw(d_model),
        threshold_S=jnp.abs(draw(d_sae)) * 3,
    )


def make_x(num_rows=50, d_model=12, seed=1):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(num_rows, d_model)) * 2 + 1).astype(np.float32)


def encode_numpy(sae, x_ND):
    w = {name: np.asarray(value, np.float64) for name, value in vars(sae).items()}
    pre_NS = np.einsum("nd,ds->ns", x_ND.astype(np.float64), w["W_enc_DS"]) + w["b_enc_S"]
    return np.maximum(pre_NS, 0) * (pre_NS > w["threshold_S"])


def test_encode_and_decode_agree_with_numpy():
    sae, x_ND = make_sae(), make_x()
    z_NS = np.asarray(jump_relu.encode(sae, x_ND))
    np.testing.assert_allclose(z_NS, encode_numpy(sae, x_ND), rtol=1e-5, atol=1e-5)
    assert 0.05 < (z_NS > 0).mean() < 0.6
    expected = z_NS.astype(np.float64) @ np.asarray(sae.W_dec_SD) + np.asarray(sae.b_dec_D)
    np.testing.assert_allclose(jump_relu.decode(sae, z_NS), expected, rtol=1e-5, atol=1e-4)


def test_threshold_is_strict_and_the_decoder_bias_is_not_subtracted():
    one = jnp.ones((1,), jnp.float32)
    sae = JumpReluSae(
        W_enc_DS=one[None], b_enc_S=0 * one, W_dec_SD=one[None], b_dec_D=100 * one, threshold_S=one
    )
    x_ND = jnp.array([[1.0], [1.0000001], [0.5], [-3.0]], jnp.float32)
    np.testing.assert_array_equal(
        jump_relu.encode(sae, x_ND)[:, 0], np.array([0.0, 1.0000001, 0.0, 0.0], np.float32)
    )
    below_zero = JumpReluSae(**{**vars(sae), "threshold_S": -one})
    np.testing.assert_array_equal(jump_relu.encode(below_zero, x_ND)[2:, 0], [0.5, 0.0])


def test_traceable_under_jit_vmap_and_grad():
    sae, x_ND = make_sae(), make_x()
    expected = np.asarray(jump_relu.encode(sae, x_ND))
    by_row = jax.jit(jax.vmap(lambda x_D: jump_relu.encode(sae, x_D)))(x_ND)
    np.testing.assert_allclose(by_row, expected, rtol=1e-5, atol=1e-5)
    stacked = jax.tree.map(lambda a, b: jnp.stack([a, b]), sae, make_sae(seed=5))
    both = jax.vmap(jump_relu.encode, in_axes=(0, None))(stacked, jnp.asarray(x_ND))
    np.testing.assert_allclose(both[0], expected, rtol=1e-5, atol=1e-5)
    gradient_D = jax.grad(lambda x_D: jump_relu.encode(sae, x_D).sum())(jnp.asarray(x_ND[0]))
    active_S = expected[0] > 0
    np.testing.assert_allclose(
        gradient_D, np.asarray(sae.W_enc_DS)[:, active_S].sum(1), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("index", [np.array([3, 0, 17]), slice(8, 21)])
def test_take_gives_columns(index):
    sae, x_ND = make_sae(), make_x()
    part = jump_relu.encode(jump_relu.take(sae, index), x_ND)
    np.testing.assert_allclose(part, jump_relu.encode(sae, x_ND)[:, index], rtol=1e-5, atol=1e-5)


def test_check_sae_names_the_array():
    sae = make_sae()
    with pytest.raises(ValueError, match=r"`W_dec_SD` must have shape \(40, 12\).*transposed"):
        jump_relu.check_sae(JumpReluSae(**{**vars(sae), "W_dec_SD": sae.W_dec_SD.T}), "transposed?")
    half = sae.b_enc_S.astype(jnp.bfloat16)
    with pytest.raises(ValueError, match="`b_enc_S` must be float32, got bfloat16"):
        jump_relu.check_sae(JumpReluSae(**{**vars(sae), "b_enc_S": half}))


def test_random_control_matches_each_latents_frequency(monkeypatch):
    monkeypatch.setattr(jump_relu, "CONTROL_BLOCK", 16)  # 40 latents: two whole blocks and a part
    x_ND = make_x(num_rows=301)
    sae = make_sae()
    # One latent that is never active, one that always is.
    threshold_S = sae.threshold_S.at[0].set(1e6).at[1].set(-1.0)
    sae = JumpReluSae(
        **{**vars(sae), "threshold_S": threshold_S, "b_enc_S": sae.b_enc_S.at[1].set(99)}
    )
    control = jump_relu.random_like(sae, jnp.asarray(x_ND), jax.random.key(7))
    wanted_S = (np.asarray(jump_relu.encode(sae, x_ND)) > 0).sum(0)
    got_S = (encode_numpy(control, x_ND) > 0).sum(0)
    np.testing.assert_array_equal(got_S, wanted_S)
    assert wanted_S[0] == 0
    assert wanted_S[1] == len(x_ND)
    np.testing.assert_allclose(np.linalg.norm(control.W_dec_SD, axis=1), 1, rtol=1e-5)
    cosine_SS = np.asarray(control.W_dec_SD @ control.W_dec_SD.T) - np.eye(40)
    assert np.abs(cosine_SS).max() < 0.95  # no direction is drawn twice, across blocks either
    again = jump_relu.random_like(sae, jnp.asarray(x_ND), jax.random.key(7))
    other = jump_relu.random_like(sae, jnp.asarray(x_ND), jax.random.key(8))
    np.testing.assert_array_equal(again.W_enc_DS, control.W_enc_DS)
    assert not np.allclose(other.W_enc_DS, control.W_enc_DS)
