"""The perceptron against scikit-learn's: step for step from one start, and in the mean."""

import functools
import warnings

import jax
import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is the reference")
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from jaxprobe.probes import grid, mlp, network
from tests.probes import drawn


def reference(recipe, epochs, seed=42, layers=None):
    model = MLPClassifier(
        hidden_layer_sizes=recipe.hidden,
        learning_rate_init=recipe.learning_rate,
        alpha=recipe.alpha,
        max_iter=epochs,
        random_state=seed,
    )
    if layers is not None:
        waiting = iter(layers)
        model._init_coef = lambda fan_in, fan_out, dtype: next(waiting)
    return model


def fit(model, x_ND, y_N):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        return model.fit(x_ND, y_N)


def layers_of(params):
    layers = params["params"]
    return [
        tuple(np.array(layers[f"Dense_{i}"][name], np.float64) for name in ("kernel", "bias"))
        for i in range(len(layers))
    ]


@pytest.mark.parametrize("recipe", [network.PUBLISHED, network.TINY])
def test_every_step_is_scikit_learns(recipe, monkeypatch):
    x_ND, y_N = drawn.normal(num_rows=60)
    x_ND = StandardScaler().fit_transform(np.delete(x_ND, 1, axis=1))
    # optax adds epsilon after the bias correction, scikit-learn before it. Weights that only the L2
    # term moves show that, so here it is next to nothing on both sides.
    monkeypatch.setattr(network.optax, "adam", functools.partial(network.optax.adam, eps=1e-12))
    key = jax.random.key(0)
    start = network.Network(recipe.hidden).init(jax.random.split(key)[0], x_ND[:1])
    padded = np.pad(x_ND, ((0, 4), (0, 0))), np.pad(y_N, (0, 4)), np.arange(64) < 60
    for epochs in (1, 40, network.MAX_EPOCHS):
        monkeypatch.setattr(network, "MAX_EPOCHS", epochs)
        trained = network.train(*padded, key, recipe)
        model = reference(recipe, epochs, layers=layers_of(start)).set_params(epsilon=1e-12)
        model = fit(model, x_ND.astype(float), y_N)
        assert abs(int(trained.epochs) - model.n_iter_) <= 2
        assert bool(trained.converged) == (model.n_iter_ < epochs)
        assert (float(trained.residual) > 0) == (not trained.converged)
        atol = 1e-4 if epochs <= 40 else 1e-2  # a thousand steps in float32 here, in float64 there
        for (kernel, bias), w, b in zip(
            layers_of(trained.params), model.coefs_, model.intercepts_, strict=True
        ):
            np.testing.assert_allclose(kernel, w, atol=atol)
            np.testing.assert_allclose(bias, b, atol=atol)


def test_start_is_glorots():
    layers = layers_of(
        network.Network((16, 16)).init(jax.random.key(1), np.zeros((1, 500), np.float32))
    )
    for (kernel, bias), fan_in in zip(layers, (500, 16, 16), strict=True):
        bound = np.sqrt(6 / (fan_in + kernel.shape[1]))
        both = np.concatenate([kernel.ravel(), bias])
        assert 0.7 * bound < np.abs(both).max() <= bound
        assert np.all(bias != 0)


def test_minibatches_hold_every_row_once_and_differ_by_epoch():
    weight_N = (np.arange(512) % 9 > 0).astype(np.float32)
    epochs = [network._shuffled(weight_N, jax.random.key(i)) for i in range(2)]
    for row_BN, weight_BN in epochs:
        assert row_BN.shape == (3, network.BATCH)
        real_N = np.asarray(row_BN).ravel()[np.asarray(weight_BN).ravel() > 0]
        np.testing.assert_array_equal(np.sort(real_N), np.flatnonzero(weight_N))
        # Full minibatches first, as generators of batches deal them.
        np.testing.assert_array_equal(np.sum(weight_BN, axis=1), [200, 200, weight_N.sum() - 400])
    assert np.any(epochs[0][0] != epochs[1][0])


def test_aurocs_are_no_worse_than_scikit_learns():
    found, wanted = [], []
    for num_train, seeds in ((3, range(2)), (40, range(3)), (250, range(2))):
        for seed in seeds:
            x_ND, y_N = drawn.normal(seed=seed, shift=0.3)
            x_ND[:, 0] = np.abs(x_ND[:, 0]) * (2 * y_N - 1) * np.sign(x_ND[:, 2])  # not linear
            split = drawn.split(num_train, y_N)
            scores = grid.fit_grid(mlp.PROBE, x_ND, [split])
            scaler = StandardScaler().fit(x_ND[split.train_N])
            recipe = network.PUBLISHED if split.folds else network.TINY
            model = fit(
                reference(recipe, 1000), scaler.transform(x_ND[split.train_N]), split.y_train_N
            )
            probability = model.predict_proba(scaler.transform(x_ND[split.test_N]))[:, 1]
            found.append(scores.test_auroc[0])
            wanted.append(roc_auc_score(split.y_test_N, probability))
            assert 0 <= scores.valid_auroc[0] <= 1
    assert np.mean(found) > np.mean(wanted) - 0.02
    assert np.mean(found) > 0.7


def test_keys_depend_on_content_and_not_on_padding():
    y_N, weight_N = np.array([0.0, 1, 1, 0]), np.ones(4)
    padded = np.pad(y_N, (0, 12)), np.pad(weight_N, (0, 12))
    bits = [
        jax.random.key_data(mlp._key(np.uint32(seed), *rows)).tolist()
        for seed, rows in (
            (42, (y_N, weight_N)),
            (42, padded),
            (43, (y_N, weight_N)),
            (42, (1 - y_N, weight_N)),
            (42, (y_N, np.array([1.0, 1, 1, 0]))),
        )
    ]
    assert bits[0] == bits[1]
    assert len({tuple(row) for row in bits}) == 4
