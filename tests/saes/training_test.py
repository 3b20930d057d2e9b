"""Training mathematics against finite differences and NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprobe.saes import jump_relu, straight_through, training

D_MODEL, D_SAE = 10, 30
RECIPE = training.Recipe(num_steps=100, target_l0=5, bandwidth=0.4, compute_dtype="float32")


def make_x(num_rows=600, seed=0):
    rng = np.random.default_rng(seed)
    mixing_DD = rng.normal(size=(D_MODEL, D_MODEL)) * np.linspace(0.1, 3, D_MODEL)
    return (rng.normal(size=(num_rows, D_MODEL)) @ mixing_DD * 40 + 500).astype(np.float32)


@pytest.fixture(scope="module")
def problem():
    x_ND = make_x()
    scaling = training.fit_scaling(x_ND)
    normal_ND = training.normalise(scaling, jnp.asarray(x_ND))
    state = training.initialise(normal_ND, jax.random.key(0), recipe=RECIPE, d_sae=D_SAE)
    return x_ND, scaling, normal_ND, state


def test_normalised_activations(problem):
    _, _, normal_ND, _ = problem
    np.testing.assert_allclose(normal_ND.mean(0), 0, atol=1e-4)
    assert float((normal_ND**2).sum(1).mean()) == pytest.approx(D_MODEL, rel=1e-4)
    with pytest.raises(ValueError, match="`x_ND` must vary"):
        training.fit_scaling(np.ones((5, 3), np.float32))


def test_first_state_meets_the_target_and_explains_something(problem):
    _, _, normal_ND, state = problem
    mse, (l0, _, _) = training.loss(state.parameters, state.log_shift, normal_ND, RECIPE)
    assert float(l0) == pytest.approx(RECIPE.target_l0, rel=0.02)
    assert float(mse) < 0.9  # 1 is what the mean alone achieves
    np.testing.assert_allclose(np.linalg.norm(state.parameters.W_dec_SD, axis=1), 1, rtol=1e-5)


def test_weight_gradients_agree_with_finite_differences(problem):
    *_, normal_ND, state = problem
    objective = lambda p: training.loss(p, state.log_shift, normal_ND, RECIPE)[0]
    gradient = jax.grad(objective)(state.parameters)
    # Frozen gates, float64: between jumps the loss is smooth, and this is its exact derivative.
    p = {k: np.asarray(v, np.float64) for k, v in vars(state.parameters).items()}
    x_ND = np.asarray(normal_ND, np.float64)
    gate_NS = x_ND @ p["W_enc_DS"] + p["b_enc_S"] > np.exp(p["log_threshold_S"])

    def smooth(**changed):
        q = {**p, **changed}
        z_NS = (x_ND @ q["W_enc_DS"] + q["b_enc_S"]) * gate_NS
        return ((z_NS @ q["W_dec_SD"] + q["b_dec_D"] - x_ND) ** 2).mean()

    rng = np.random.default_rng(0)
    for name in ("W_enc_DS", "b_enc_S", "W_dec_SD", "b_dec_D"):
        direction = rng.normal(size=p[name].shape)
        step = 1e-5
        slope = smooth(**{name: p[name] + step * direction})
        slope = (slope - smooth(**{name: p[name] - step * direction})) / (2 * step)
        got = float((np.asarray(getattr(gradient, name)) * direction).sum())
        assert got == pytest.approx(slope, rel=2e-3), name


def test_price_is_the_change_of_l0_across_the_kernel(problem):
    *_, normal_ND, state = problem
    _, (_, price_S, fired_S) = training.loss(state.parameters, state.log_shift, normal_ND, RECIPE)
    pre_NS = np.asarray(normal_ND @ state.parameters.W_enc_DS)
    threshold_S = np.exp(np.asarray(state.parameters.log_threshold_S))
    rate = lambda factor: (pre_NS > factor * threshold_S).mean(0)
    expected_S = (
        rate(1 + RECIPE.bandwidth / 2) - rate(1 - RECIPE.bandwidth / 2)
    ) / RECIPE.bandwidth
    np.testing.assert_allclose(price_S, expected_S, atol=1e-2)
    np.testing.assert_allclose(np.asarray(price_S).sum(), expected_S.sum(), rtol=1e-2)
    np.testing.assert_array_equal(fired_S, rate(1) > 0)


def test_threshold_gradient_agrees_with_moving_the_threshold():
    # One latent, many rows: the loss as a function of the threshold is nearly smooth.
    rng = np.random.default_rng(0)
    pre_N1 = jnp.asarray(rng.exponential(size=(400_000, 1)), jnp.float32)
    slope_N1 = jnp.asarray(1.0 + rng.random((400_000, 1)), jnp.float32) / 400_000
    objective = lambda t: (straight_through.jump(0.2, pre_N1, t) * slope_N1).sum()
    got = float(jax.grad(objective)(jnp.array([1.3], jnp.float32))[0])
    # d/dt E[slope * pre; pre > t] = -E[slope] t exp(-t)
    assert got == pytest.approx(-1.5 * 1.3 * np.exp(-1.3), rel=0.02)


def test_steps_lower_the_loss_hold_l0_and_keep_unit_norms(problem):
    x_ND, scaling, normal_ND, state = problem
    step = jax.jit(training.train_step, static_argnames="recipe")
    recipe = dataclasses.replace(RECIPE, learning_rate=1e-2)
    state = training.initialise(normal_ND, jax.random.key(0), recipe=recipe, d_sae=D_SAE)
    reports = []
    for _ in range(recipe.num_steps):
        state, report = step(state, jnp.asarray(x_ND), scaling, recipe=recipe)
        reports.append([float(value) for value in report])
    loss, l0, _ = np.array(reports).T
    assert loss[-1] < 0.6 * loss[0]
    assert l0[10:].mean() == pytest.approx(recipe.target_l0, rel=0.05)
    assert int(state.step) == recipe.num_steps
    assert np.ptp(np.asarray(state.parameters.log_threshold_S)) > 0.05
    np.testing.assert_allclose(np.linalg.norm(state.parameters.W_dec_SD, axis=1), 1, rtol=1e-5)


def test_dead_latents_are_those_idle_for_long(problem):
    x_ND, scaling, _, state = problem
    # Two latents that can never fire; one has been idle almost long enough.
    log_threshold_S = state.parameters.log_threshold_S.at[:2].set(20.0)
    idle_S = state.idle_S.at[0].set(training.IDLE_TOKENS)
    state = dataclasses.replace(
        state,
        parameters=dataclasses.replace(state.parameters, log_threshold_S=log_threshold_S),
        idle_S=idle_S,
    )
    after, report = training.train_step(state, jnp.asarray(x_ND), scaling, RECIPE)
    assert float(report.dead) == pytest.approx(1 / D_SAE)
    assert np.asarray(after.idle_S)[:2].tolist() == [training.IDLE_TOKENS + 600, 600]


def test_folded_sae_agrees_with_training_on_raw_activations(problem):
    x_ND, scaling, normal_ND, state = problem
    state = dataclasses.replace(state, log_shift=jnp.float32(0.2))
    parameters = dataclasses.replace(
        state.parameters,
        b_enc_S=jnp.linspace(-0.1, 0.1, D_SAE, dtype=jnp.float32),
        b_dec_D=jnp.linspace(-1, 1, D_MODEL, dtype=jnp.float32),
    )
    state = dataclasses.replace(state, parameters=parameters)
    sae = training.fold(state, scaling)
    jump_relu.check_sae(sae)
    mse, (l0, _, _) = training.loss(parameters, state.log_shift, normal_ND, RECIPE)
    z_NS = jump_relu.encode(sae, x_ND)
    error_ND = np.asarray(jump_relu.decode(sae, z_NS)) - x_ND
    variance = ((x_ND - x_ND.mean(0)) ** 2).sum()
    assert (error_ND**2).sum() / variance == pytest.approx(float(mse), rel=1e-3)
    assert float((z_NS > 0).sum(1).mean()) == pytest.approx(float(l0), rel=2e-3)


def test_bfloat16_products_stay_near_float32(problem):
    *_, normal_ND, state = problem
    half = dataclasses.replace(RECIPE, compute_dtype="bfloat16")
    objective = lambda p, recipe: training.loss(p, state.log_shift, normal_ND, recipe)[0]
    exact = jax.grad(objective)(state.parameters, RECIPE)
    rounded = jax.grad(objective)(state.parameters, half)
    for name in ("W_enc_DS", "W_dec_SD"):
        a, b = (np.asarray(getattr(g, name)).ravel() for g in (exact, rounded))
        assert rounded.W_enc_DS.dtype == jnp.float32
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.99
