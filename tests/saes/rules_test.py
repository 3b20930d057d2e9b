"""Each architecture in training: against exact references, and on a planted dictionary."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprobe import saes
from jaxprobe.saes import rules, training

D_MODEL, D_SAE, TARGET = 24, 96, 6
RECIPE = training.Recipe(
    num_steps=250, target_l0=TARGET, learning_rate=1e-2, compute_dtype="float32"
)


@pytest.fixture(scope="module")
def planted():
    """Sparse sums of 64 directions, far from the origin: to train on, and to measure on."""
    rng = np.random.default_rng(0)
    directions_SD = rng.normal(size=(64, D_MODEL))
    directions_SD /= np.linalg.norm(directions_SD, axis=1, keepdims=True)
    active_NS = rng.random((6000, 64)) < 4 / 64
    x_ND = (active_NS * (50 + 20 * rng.random(active_NS.shape))) @ directions_SD
    x_ND = (x_ND + 100 * rng.normal(size=D_MODEL)).astype(np.float32)
    return x_ND[:4096], x_ND[4096:]


def train(x_ND, architecture, num_steps=250, devices=None):
    """A trained state, and its reports."""
    recipe = dataclasses.replace(RECIPE, architecture=architecture, num_steps=num_steps)
    scaling = training.fit_scaling(x_ND)
    state = training.initialise(
        training.normalise(scaling, x_ND), jax.random.key(0), recipe=recipe, d_sae=D_SAE
    )
    step = jax.jit(training.train_step, static_argnames="recipe")
    place = lambda batch: batch
    if devices is not None:
        mesh = jax.sharding.Mesh(np.array(devices), ("batch",))
        across = lambda *axes: jax.sharding.NamedSharding(mesh, jax.P(*axes))
        state, scaling = jax.device_put((state, scaling), across())
        place = lambda batch: jax.device_put(batch, across("batch", None))
    reports = []
    for number in range(num_steps):
        start = number * 128 % len(x_ND)
        state, report = step(state, place(x_ND[start : start + 128]), scaling, recipe=recipe)
        reports.append([float(value) for value in report])
    return training.fold(state, scaling, recipe), np.array(reports), (state, scaling, recipe)


@pytest.mark.parametrize("architecture", rules.RULES)
def test_training_explains_a_planted_dictionary_at_the_target_l0(planted, architecture):
    train_ND, valid_ND = planted
    sae, reports, _ = train(train_ND, architecture)
    assert saes.architecture(sae).name == architecture
    saes.check_sae(sae)
    loss, l0, _ = reports.T
    assert loss[-1] < 0.65 * loss[0]
    assert l0[20:].mean() == pytest.approx(TARGET, rel=0.06)
    # On rows that it never saw, in NumPy, the folded SAE does as well.
    z_NS = np.asarray(saes.encode(sae, valid_ND))
    error_ND = z_NS @ np.asarray(sae.W_dec_SD) + np.asarray(sae.b_dec_D) - valid_ND
    explained = 1 - (error_ND**2).sum() / ((valid_ND - valid_ND.mean(0)) ** 2).sum()
    assert (z_NS > 0).sum(1).mean() == pytest.approx(TARGET, rel=0.15)
    # Six principal components explain .55. A ReLU's threshold is taken off what it explains.
    assert explained > {"relu": 0.58, "gated": 0.7}.get(architecture, 0.78)
    np.testing.assert_allclose(np.linalg.norm(sae.W_dec_SD, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("architecture", rules.RULES)
def test_folding_keeps_latents(planted, architecture):
    x_ND, _ = planted
    sae, _, (state, scaling, recipe) = train(x_ND, architecture, num_steps=40)
    normal_ND = training.normalise(scaling, x_ND[:128])
    pre_NS = normal_ND @ state.parameters.W_enc_DS + state.parameters.b_enc_S[None, :]
    active = rules.RULES[architecture].activate(state.parameters, state.log_shift, pre_NS, recipe)
    z_NS = np.asarray(active.z_BS / scaling.scale)
    got_NS = np.asarray(saes.encode(sae, x_ND[:128]))
    if architecture == "batch_topk":  # a threshold of many batches, not of this one
        both_NS = (got_NS > 0) & (z_NS > 0)
        assert both_NS.sum() > 0.9 * (z_NS > 0).sum()
        z_NS, got_NS = z_NS * both_NS, got_NS * both_NS
    else:
        assert ((got_NS > 0) != (z_NS > 0)).mean() < 1e-4
    np.testing.assert_allclose(got_NS, z_NS, atol=2e-3 * z_NS.max())


@pytest.mark.parametrize("architecture", rules.RULES)
def test_devices_share_a_batch_and_agree(planted, architecture):
    if len(jax.devices()) < 2:
        pytest.skip("needs two devices")
    x_ND, _ = planted
    one, reports, _ = train(x_ND, architecture, num_steps=25)
    two, reports_2, (state, _, _) = train(
        x_ND, architecture, num_steps=25, devices=jax.devices()[:2]
    )
    assert len(state.parameters.W_enc_DS.sharding.device_set) == 2
    np.testing.assert_allclose(reports_2[:, 0], reports[:, 0], rtol=2e-3)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        difference = np.abs(np.asarray(a) - np.asarray(b)).max()
        assert difference <= 5e-3 * max(1.0, np.abs(np.asarray(a)).max())


@pytest.mark.parametrize("factor", [None, 0.0, 0.5, 0.99, 1.01, 3.0, 1e9])
@pytest.mark.parametrize("count", [1, 2, 50, 511, 5000])
def test_kth_largest_is_that_of_a_sort(count, factor):
    rng = np.random.default_rng(count)
    find = jax.jit(rules.kth_largest, static_argnums=1, static_argnames="axis")
    for x in (
        rng.normal(size=(64, 90)),
        rng.exponential(size=(64, 90)),
        rng.integers(0, 4, (64, 90)) / 4,  # ties
        np.exp(rng.normal(size=(64, 90)) * 20),
        -np.ones((64, 90)),
        np.zeros((64, 90)),
    ):
        x = x.astype(np.float32)
        wanted = max(float(np.sort(x.ravel())[-count]), 0.0)
        guess = None if factor is None else np.full((1, 1), min(wanted * factor, 3e38), np.float32)
        assert float(find(x, count, axis=(0, 1), guess=guess)[0, 0]) == wanted
        if count <= 90:
            wanted_N1 = np.maximum(np.sort(x, axis=1)[:, -count], 0)[:, None]
            np.testing.assert_array_equal(find(x, count, axis=1), wanted_N1)


def test_batch_topk_keeps_as_many_as_it_says(planted):
    x_ND, _ = planted
    _, reports, _ = train(x_ND, "batch_topk", num_steps=20)
    np.testing.assert_allclose(reports[:, 1], TARGET, rtol=1e-6)


def test_topk_keeps_the_k_largest_of_each_row():
    pre_BS = jnp.asarray(np.random.default_rng(0).normal(size=(40, 30)), jnp.float32)
    recipe = dataclasses.replace(RECIPE, architecture="topk")
    active = rules.RULES["topk"].activate(None, None, pre_BS, recipe)
    cut_B = np.sort(np.asarray(pre_BS), axis=1)[:, -TARGET]
    expected_BS = np.where(pre_BS >= cut_B[:, None], np.maximum(pre_BS, 0), 0)
    np.testing.assert_array_equal(active.z_BS, expected_BS)


def test_gates_are_trained_through_a_decoder_that_they_do_not_train(planted):
    x_ND, _ = planted
    _, _, (state, scaling, recipe) = train(x_ND, "gated", num_steps=10)
    normal_ND = training.normalise(scaling, x_ND[:300])
    p = {k: np.asarray(v, np.float64) for k, v in vars(state.parameters).items()}
    gradient = jax.grad(lambda q: training.objective(q, state.log_shift, normal_ND, recipe)[0])(
        state.parameters
    )
    x = np.asarray(normal_ND, np.float64)
    t_S = np.exp(p["log_threshold_S"] + float(state.log_shift))
    gate_NS = x @ p["W_enc_DS"] + p["b_enc_S"] > t_S
    frozen = dict(p)

    def smooth(**changed):
        q = {**p, **changed}
        xw_NS = x @ q["W_enc_DS"]
        magnitude_NS = np.maximum(np.exp(q["r_mag_S"]) * xw_NS + q["b_mag_S"], 0) * gate_NS
        loss = ((magnitude_NS @ q["W_dec_SD"] + q["b_dec_D"] - x) ** 2).mean()
        gates_NS = (xw_NS + q["b_enc_S"] - t_S) * gate_NS
        gate_loss = ((gates_NS @ frozen["W_dec_SD"] + frozen["b_dec_D"] - x) ** 2).mean()
        return loss + training.GATE_WEIGHT * gate_loss

    rng = np.random.default_rng(0)
    for name in ("W_enc_DS", "b_enc_S", "W_dec_SD", "b_dec_D", "r_mag_S", "b_mag_S"):
        direction = rng.normal(size=p[name].shape)
        slope = smooth(**{name: p[name] + 1e-6 * direction})
        slope = (slope - smooth(**{name: p[name] - 1e-6 * direction})) / 2e-6
        got = float((np.asarray(getattr(gradient, name)) * direction).sum())
        assert got == pytest.approx(slope, rel=5e-3), name
