"""`fit_probe` under JAX's transformations gives what it gives on plain arrays."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxprobe import regimes
from jaxprobe.probes import PROBES, fit_grid, fit_probe, traced
from jaxprobe.probes.fit_probe import table_of


def rows(num_train: int, seed: int = 0, num_test: int = 60, d_model: int = 6):
    rng = np.random.default_rng(seed)
    y_N = rng.permutation(np.arange(num_train + num_test) % 2)
    y_N[:2] = [0, 1]
    x_ND = rng.normal(size=(len(y_N), d_model)).astype(np.float32)
    x_ND[:, 0] += 0.8 * (2 * y_N - 1)
    return x_ND[:num_train], y_N[:num_train], x_ND[num_train:], y_N[num_train:]


@pytest.mark.parametrize("num_train", [3, 8, 30, 140])
def test_jit_gives_the_same(num_train):
    arrays = rows(num_train)
    plain = fit_probe("logistic", *arrays, dtype="float32")
    jitted = jax.jit(functools.partial(fit_probe, "logistic"))(*arrays)
    for field in ("valid_auroc", "test_auroc", "test_f1", "test_accuracy", "best_value"):
        # In float32 and at C = 1e5 a few of the 900 pairs of tested rows may change places.
        np.testing.assert_allclose(getattr(jitted, field), getattr(plain, field), atol=4e-3)
    assert bool(jitted.converged) == plain.converged


@pytest.mark.parametrize("num_train", [4, 12, 13, 64, 127, 128, 700])
def test_traced_folds_are_those_of_the_protocol(num_train):
    y_N = rows(num_train)[1]
    valid_FN, fold_F, smallest = jax.jit(
        functools.partial(traced.folds, seed=42), static_argnames=()
    )(jnp.asarray(y_N))
    folds = regimes.validation_folds(y_N, 42)
    found = [set(np.flatnonzero(valid_N)) for valid_N in np.asarray(valid_FN)[fold_F > 0]]
    assert sorted(map(sorted, found)) == sorted(sorted(fold.valid) for fold in folds)
    assert int(smallest) <= min(len(fold.train) for fold in folds)


def test_vmap_over_label_vectors():
    x_train, y_train, x_test, y_test = rows(40)
    y_PN = np.stack([y_train, 1 - y_train, np.roll(y_train, 3)])

    def fit(y_N):
        return fit_probe("logistic", x_train, y_N, x_test, y_test, dtype="float32")

    together = jax.jit(jax.vmap(fit))(y_PN)
    for p in range(3):
        alone = fit(y_PN[p])
        np.testing.assert_allclose(together.test_auroc[p], alone.test_auroc, atol=1e-3)
        np.testing.assert_allclose(together.valid_auroc[p], alone.valid_auroc, atol=1e-3)


def test_shard_map_over_datasets():
    together = [np.stack(part) for part in zip(*(rows(40, seed) for seed in range(2)), strict=True)]
    mesh = jax.make_mesh((2,), ("datasets",))
    spec = PartitionSpec("datasets")

    def fit(*arrays):
        return jax.tree.map(
            lambda field: field[None], fit_probe("logistic", *(array[0] for array in arrays))
        )

    sharded = jax.jit(jax.shard_map(fit, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))
    placed = jax.device_put(together, jax.sharding.NamedSharding(mesh, spec))
    found = jax.device_get(sharded(*placed))
    for seed in range(2):
        alone = fit_probe("logistic", *rows(40, seed))
        np.testing.assert_allclose(found.test_auroc[seed], alone.test_auroc, atol=1e-3)


def test_latents_are_ranked_the_same_under_jit():
    arrays = rows(140, d_model=30)
    arrays = (np.maximum(arrays[0], 0), arrays[1], np.maximum(arrays[2], 0), arrays[3])
    fit = functools.partial(fit_probe, "ridge", features="latents", num_latents=4)
    plain, traced = fit(*arrays), jax.jit(fit)(*arrays)
    np.testing.assert_allclose(traced.test_auroc, plain.test_auroc, atol=1e-3)
    np.testing.assert_allclose(traced.best_value, plain.best_value, atol=1e-3)


def test_a_host_method_says_that_it_cannot_be_traced():
    with pytest.raises(ValueError, match="xgboost runs on the host"):
        jax.jit(functools.partial(fit_probe, "xgboost"))(*rows(20))


def test_float64_inside_a_float32_program_is_refused():
    with pytest.raises(ValueError, match="set jax_enable_x64, or call from outside of jit"):
        jax.jit(functools.partial(fit_probe, "logistic", dtype="float64"))(*rows(20))


def test_fit_grid_is_traceable_in_its_features():
    x_train, y_train, x_test, y_test = rows(140)
    x_ND = np.concatenate([x_train, x_test])
    split = table_of(x_train, y_train, x_test, y_test, 42)[1]
    fit = functools.partial(fit_grid, PROBES["ridge"], splits=[split, split], metrics=("auroc",))
    plain, traced = fit(x_ND, dtype="float32"), jax.jit(lambda x_ND: fit(x_ND))(x_ND)
    assert traced.test_auroc.shape == (2,)
    np.testing.assert_allclose(traced.test_auroc, plain.test_auroc, atol=1e-3)
