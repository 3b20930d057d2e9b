"""The encode stage against a dense encode in NumPy: kept columns, controls, skipping, redoing."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprobe import datasets, saes, selection
from jaxprobe.base import Site
from jaxprobe.stages import encode as stage
from jaxprobe.stages import extract, sparsity
from tests import fakes

SITE = Site(block=1, stream="resid_post")
MAX_LATENTS, RANDOM_LATENTS = 10, 12


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """A store with two datasets, their paths, and a config that keeps few latents."""
    folder = tmp_path_factory.mktemp("encode")
    paths = tuple(fakes.write_csv(folder, fakes.dataset(name, 160)) for name in ("a", "b"))
    store = extract.extract(
        extract.ExtractConfig(datasets=paths, sites=(str(SITE),), batch_tokens=256),
        folder,
        model=fakes.FakeModel(),
        make_forward=fakes.make_forward,
    )
    config = stage.EncodeConfig(
        datasets=paths,
        regimes=("standard", "label_noise"),
        max_latents=MAX_LATENTS,
        random_latents=RANDOM_LATENTS,
    )
    return store, config


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """96 latents in three blocks."""
    whole = functools.partial(selection.top_latents, block=40)
    monkeypatch.setattr(selection, "top_latents", whole)


def dense(sae, x_ND):
    """All latents, float64."""
    part = {name: np.asarray(value, np.float64) for name, value in vars(sae.sae).items()}
    pre_NS = x_ND.astype(np.float64) @ part["W_enc_DS"] + part["b_enc_S"]
    return np.maximum(pre_NS, 0) * (pre_NS > part["threshold_S"])


def read(config, store, sae, name, workdir):
    dataset = datasets.load(name)
    identity = stage.latents_identity(config, store, sae, dataset)
    return stage.read(stage.latents_path(workdir, sae.id, name), identity)


def modified(workdir):
    return {path: path.stat().st_mtime_ns for path in sorted(workdir.rglob("*.safetensors"))}


@pytest.mark.parametrize("ranking", ["normalised", "raw"])
def test_kept_columns_are_those_of_a_dense_selection(setting, tmp_path, ranking):
    store, config = setting
    config = dataclasses.replace(config, ranking=ranking)
    sae = fakes.loaded_sae(SITE)
    by_id = stage.encode(config, store, [sae], tmp_path)
    assert list(by_id) == ["sae", stage.RANDOM_SAE]
    for name in config.datasets:
        dataset = datasets.load(name)
        splits = stage.dataset_splits(config, dataset)
        assert len(splits) > 20
        x_ND = store.read(SITE, dataset.texts)
        for encoded in by_id.values():
            z_NS = dense(encoded, x_ND)
            got = read(config, store, encoded, name, tmp_path)
            np.testing.assert_allclose(got.z_NU, z_NS[:, got.latent_U], rtol=1e-3, atol=1e-3)
            assert len(np.unique(got.latent_U)) == len(got.latent_U)
            for p, split in enumerate(splits):
                z_MS, y_M = z_NS[split.train_N], split.y_train_N
                score_S = np.abs(z_MS[y_M == 1].mean(0) - z_MS[y_M == 0].mean(0))
                if ranking == "normalised":
                    score_S /= z_MS.sum(0) / ((z_MS != 0).sum(0) + 1e-6) + 1e-6
                kept_K = got.latent_U[got.top_PK[p]]
                assert len(set(kept_K)) == MAX_LATENTS
                # By score, not by number: two latents may differ by less than float32 tells.
                best_K = np.sort(score_S)[::-1][:MAX_LATENTS]
                np.testing.assert_allclose(score_S[kept_K], best_K, rtol=1e-3, atol=1e-5)


def test_random_latents_are_alive_in_training_and_know_no_labels(setting, tmp_path):
    store, config = setting
    sae = fakes.loaded_sae(SITE)
    # Half of the latents never fire.
    threshold_S = sae.sae.threshold_S.at[::2].set(1e9)
    sae = dataclasses.replace(sae, sae=dataclasses.replace(sae.sae, threshold_S=threshold_S))
    config = dataclasses.replace(config, random_sae=False)
    stage.encode(config, store, [sae], tmp_path)
    name = config.datasets[0]
    dataset = datasets.load(name)
    z_NS = dense(sae, store.read(SITE, dataset.texts))
    got = read(config, store, sae, name, tmp_path)
    draws = []
    for p, split in enumerate(stage.dataset_splits(config, dataset)):
        drawn_K = got.latent_U[got.random_PK[p]]
        assert len(set(drawn_K)) == RANDOM_LATENTS
        alive_S = (z_NS[split.train_N] > 0).any(0)
        assert alive_S[drawn_K].all()
        draws.append(tuple(drawn_K))
    assert len(set(draws)) == len(draws)  # each split draws its own


def test_few_alive_latents_are_filled_up_with_silent_ones(setting, tmp_path):
    store, config = setting
    sae = fakes.loaded_sae(SITE)
    threshold_S = sae.sae.threshold_S.at[5:].set(1e9)
    sae = dataclasses.replace(sae, sae=dataclasses.replace(sae.sae, threshold_S=threshold_S))
    config = dataclasses.replace(config, random_sae=False)
    stage.encode(config, store, [sae], tmp_path)
    got = read(config, store, sae, config.datasets[0], tmp_path)
    alive = np.isin(got.latent_U[got.random_PK], np.arange(5))
    assert got.random_PK.shape[1] == RANDOM_LATENTS
    assert (np.diff(alive.astype(int), axis=1) <= 0).all()  # alive ones stand first


def test_finished_files_are_kept_and_only_what_changed_is_redone(setting, tmp_path):
    store, config = setting
    sae = fakes.loaded_sae(SITE)
    stage.encode(config, store, [sae], tmp_path)
    first = modified(tmp_path)
    assert len(first) == 4  # two datasets, the SAE and its control
    stage.encode(config, store, [sae], tmp_path)
    assert modified(tmp_path) == first
    # A killed run: one file is missing.
    lost = next(iter(first))
    content = lost.read_bytes()
    lost.unlink()
    stage.encode(config, store, [sae], tmp_path)
    second = modified(tmp_path)
    assert {path for path in first if second[path] != first[path]} == {lost}
    assert lost.read_bytes() == content
    # Another SAE under the same id: everything of it, and of its control, is made again.
    other = fakes.loaded_sae(SITE, seed=1)
    with pytest.raises(ValueError, match="run the encode stage again"):
        read(config, store, other, config.datasets[0], tmp_path)
    stage.encode(config, store, [other], tmp_path)
    third = modified(tmp_path)
    assert all(third[path] != second[path] for path in second)
    x_ND = store.read(SITE, datasets.load(config.datasets[0]).texts)
    got = read(config, store, other, config.datasets[0], tmp_path)
    np.testing.assert_allclose(got.z_NU, dense(other, x_ND)[:, got.latent_U], rtol=1e-3, atol=1e-3)
    # More latents kept is another file too.
    wider = dataclasses.replace(config, max_latents=MAX_LATENTS + 1)
    with pytest.raises(ValueError, match="run the encode stage again"):
        read(wider, store, other, config.datasets[0], tmp_path)


def test_the_control_fires_as_often_as_the_sae(setting, tmp_path):
    store, config = setting
    sae = fakes.loaded_sae(SITE)
    twin = stage.with_control(config, store, [sae])[stage.RANDOM_SAE]
    again = stage.with_control(config, store, [sae])[stage.RANDOM_SAE]
    assert stage.weights_digest(twin) == stage.weights_digest(again)
    assert stage.weights_digest(twin) != stage.weights_digest(sae)
    texts = sorted({text for name in config.datasets for text in datasets.load(name).texts})
    x_ND = store.read(SITE, texts)
    often_S = (dense(sae, x_ND) > 0).sum(0)
    np.testing.assert_array_equal((dense(twin, x_ND) > 0).sum(0), often_S)


def test_a_dataset_too_small_for_any_split_is_left_out(setting, tmp_path):
    _, config = setting
    path = fakes.write_csv(tmp_path, fakes.dataset("small", 40))
    store = extract.extract(
        extract.ExtractConfig(datasets=(path,), sites=(str(SITE),)),
        tmp_path,
        model=fakes.FakeModel(),
        make_forward=fakes.make_forward,
    )
    config = dataclasses.replace(config, datasets=(path,))
    stage.encode(config, store, [fakes.loaded_sae(SITE)], tmp_path)
    assert not modified(tmp_path)


@pytest.mark.parametrize("kind", ["topk", "framed gated"])
def test_other_architectures_give_the_latents_of_a_whole_encode(setting, tmp_path, kind):
    store, config = setting
    weights = fakes.loaded_sae(SITE).sae
    linear = {name: getattr(weights, name) for name in ("W_enc_DS", "W_dec_SD", "b_dec_D")}
    if kind == "topk":
        sae = saes.TopKSae(**linear, b_enc_S=weights.b_enc_S, k=7)
    else:
        biases = {"b_gate_S": -weights.threshold_S, "b_mag_S": weights.b_enc_S}
        core = saes.GatedSae(**linear, **biases, r_mag_S=weights.b_enc_S / 9)
        sae = saes.frame(core, shift_D=weights.b_enc_S[:32], normalisation="constant_norm_rescale")
    loaded = dataclasses.replace(fakes.loaded_sae(SITE), sae=sae)
    by_id = stage.encode(config, store, [loaded], tmp_path)
    for name in config.datasets:
        x_ND = store.read(SITE, datasets.load(name).texts)
        often_S = {}
        for key, encoded in by_id.items():
            got = read(config, store, encoded, name, tmp_path)
            z_NS = np.asarray(saes.encode(encoded.sae, x_ND))
            np.testing.assert_allclose(got.z_NU, z_NS[:, got.latent_U], rtol=1e-4, atol=1e-4)
            often_S[key] = (z_NS > 0).mean()
        assert often_S["sae"] == pytest.approx(often_S[stage.RANDOM_SAE], rel=0.15)
    # Other settings with the same arrays are another SAE.
    if kind == "topk":
        other = dataclasses.replace(loaded, sae=dataclasses.replace(sae, k=8))
        assert stage.weights_digest(other) != stage.weights_digest(loaded)


@pytest.mark.parametrize(("factor", "far"), [(1.0, False), (1.7, False), (2.5, True), (0.3, True)])
def test_an_l0_far_from_the_published_one_warns(setting, tmp_path, monkeypatch, factor, far):
    store, config = setting
    config = dataclasses.replace(config, random_sae=False)
    sae = fakes.loaded_sae(SITE)
    name = config.datasets[0]
    l0 = (dense(sae, store.read(SITE, datasets.load(name).texts)) > 0).sum(1).mean()
    sae = dataclasses.replace(sae, expected_l0=float(l0 * factor))
    lines = {"info": [], "warning": []}
    for level, found in lines.items():
        say = lambda text, *values, found=found: found.append(text % values)
        monkeypatch.setattr(sparsity.logging, level, say)
    stage.encode(config, store, [sae], tmp_path)
    said = [line for line in lines["warning" if far else "info"] if "published" in line]
    assert any(f"L0 {l0:.1f}, published {l0 * factor:.1f}" in line for line in said)
    assert bool(lines["warning"]) == far


def test_saes_without_a_site_or_with_one_id_are_refused(setting, tmp_path):
    store, config = setting
    sae = fakes.loaded_sae(SITE)
    with pytest.raises(ValueError, match="does not say which site"):
        stage.encode(config, store, [dataclasses.replace(sae, site=None)], tmp_path)
    with pytest.raises(
        ValueError, match="must differ in their ids, got 'sae' from fake 0 and fake 1"
    ):
        stage.encode(config, store, [sae, fakes.loaded_sae(SITE, seed=1)], tmp_path)
    with pytest.raises(FileNotFoundError, match="run the encode stage first"):
        read(config, store, sae, config.datasets[0], tmp_path)


@pytest.fixture(scope="module")
def shifting(tmp_path_factory):
    """A source of two datasets of which one has a shifted set, and a store of them all."""
    folder = tmp_path_factory.mktemp("shift")
    sets = [fakes.dataset(name, 200) for name in ("a", "b")]
    source = fakes.write_source(folder / "source", sets, [fakes.dataset("b", 60, seed=1)])
    config = stage.EncodeConfig(
        source=source,
        regimes=("standard", "covariate_shift"),
        max_latents=MAX_LATENTS,
        random_latents=RANDOM_LATENTS,
    )
    store = extract.extract(
        extract.ExtractConfig(source=source, shifted=("b",), sites=(str(SITE),), batch_tokens=256),
        folder,
        model=fakes.FakeModel(),
        make_forward=fakes.make_forward,
    )
    return store, config


def test_a_shifted_set_is_encoded_at_the_columns_that_training_rows_chose(shifting, tmp_path):
    store, config = shifting
    sae = fakes.loaded_sae(SITE)
    stage.encode(config, store, [sae], tmp_path)
    shifted = datasets.load_shifted("b", config.source)
    assert (
        len(shifted.texts) == 60 and shifted.texts[0] != datasets.load("b", config.source).texts[0]
    )
    z_MS = dense(sae, store.read(SITE, shifted.texts))
    for name, num_splits in (("a", 2), ("b", 4)):
        dataset = datasets.load(name, config.source)
        splits = stage.dataset_splits(config, dataset)
        assert len(splits) == num_splits
        identity = stage.latents_identity(config, store, sae, dataset)
        got = stage.read(stage.latents_path(tmp_path, sae.id, name), identity)
        assert got.z_MU.shape[0] == (60 if name == "b" else 0)
        z_NS = dense(sae, store.read(SITE, dataset.texts))
        for p, split in enumerate(splits):
            column_K = got.top_PK[p]
            z_NK, z_MK = got.of_split(split, column_K)
            latent_K = got.latent_U[column_K]
            tested_MS = np.concatenate([z_NS, z_MS])[split.test_N]
            np.testing.assert_allclose(z_NK, z_NS[split.train_N][:, latent_K], rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(z_MK, tested_MS[:, latent_K], rtol=1e-3, atol=1e-3)
            texts = (*dataset.texts, *(shifted.texts if split.regime == "covariate_shift" else ()))
            assert stage.test_texts(config, dataset, split) == texts
            # Only training rows of the dataset itself rank.
            z_TS, y_T = z_NS[split.train_N], split.y_train_N
            score_S = np.abs(z_TS[y_T == 1].mean(0) - z_TS[y_T == 0].mean(0))
            score_S /= z_TS.sum(0) / ((z_TS != 0).sum(0) + 1e-6) + 1e-6
            best_K = np.sort(score_S)[::-1][:MAX_LATENTS]
            np.testing.assert_allclose(
                score_S[got.latent_U[column_K]], best_K, rtol=1e-3, atol=1e-5
            )


def test_latents_of_another_shifted_set_are_made_again(shifting, tmp_path):
    store, config = shifting
    sae, dataset = fakes.loaded_sae(SITE), datasets.load("b", config.source)
    with_shift = stage.latents_identity(config, store, sae, dataset)
    fakes.write_source(
        tmp_path,
        [fakes.dataset(name, 200) for name in ("a", "b")],
        [fakes.dataset("b", 60, seed=2)],
    )
    moved = dataclasses.replace(config, source=str(tmp_path))
    other = stage.latents_identity(moved, store, sae, datasets.load("b", moved.source))
    assert {key for key in other if other[key] != with_shift[key]} == {"shifted"}


def test_a_users_file_of_a_published_name_has_no_shifted_set(shifting, tmp_path):
    _, config = shifting
    path = fakes.write_csv(tmp_path, fakes.dataset("b", 200))
    splits = stage.dataset_splits(config, datasets.load(path, config.source))
    assert {split.regime for split in splits} == {"standard"}


def test_levels_that_a_dataset_is_too_small_for_are_counted(setting, tmp_path, caplog):
    store, config = setting
    config = dataclasses.replace(config, regimes=("scarcity",), random_sae=False)
    with caplog.at_level("INFO", logger="absl"):
        stage.encode(config, store, [fakes.loaded_sae(SITE)], tmp_path)
    # 160 rows leave 60 for training: 2 3 4 5 7 10 14 20 28 38 53, eleven of twenty levels.
    shown = [record.getMessage() for record in caplog.records]
    assert "scarcity, paper: 22 splits; 18 levels skipped, their datasets are too small" in shown


def test_narrow_weights_are_widened_block_by_block(setting):
    store, config = setting
    x_ND = store.read(SITE, datasets.load(config.datasets[0]).texts)
    sae = fakes.loaded_sae(SITE)
    narrow = jax.tree.map(lambda array: array.astype(jnp.bfloat16), sae.sae)
    wide = jax.tree.map(lambda array: array.astype(jnp.float32), narrow)
    wanted_NS = dense(dataclasses.replace(sae, sae=wide), x_ND)
    encoder = stage.prepare(narrow, x_ND)
    got_NS = np.concatenate([encoder(0, 40), encoder(40, 96)], axis=1)
    assert got_NS.dtype == np.float32
    np.testing.assert_allclose(got_NS, wanted_NS, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(encoder.columns([7, 3]), got_NS[:, [7, 3]], rtol=1e-5, atol=1e-4)
