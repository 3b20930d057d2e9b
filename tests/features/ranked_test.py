"""Ranked latents against a dense encode in NumPy: kept columns, controls, other architectures, measured L0."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprobe import base, regimes, saes, selection
from jaxprobe.base import Site
from jaxprobe.features import measured_l0, ranked, twins
from tests import fakes

SITE = Site(block=1, stream="resid_post")
MAX_LATENTS, RANDOM_LATENTS = 10, 12
RANKING = ranked.Ranking(max_latents=MAX_LATENTS, random_latents=RANDOM_LATENTS)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """96 latents in three blocks."""
    whole = functools.partial(selection.top_latents, block=40)
    monkeypatch.setattr(selection, "top_latents", whole)


@functools.cache
def activations(*sets):
    """Last-token activations of the datasets' rows, one after the other."""
    tokenizer = fakes.FakeTokenizer()
    texts = [text for dataset in sets for text in dataset.texts]
    return np.stack([fakes.activations([1, *tokenizer.encode(t)], SITE)[-1] for t in texts])


@functools.cache
def case(name="a"):
    """A dataset, every split of two regimes under both protocols, and the activations of its rows."""
    dataset = fakes.dataset(name, 160)
    splits = [
        split
        for regime in ("standard", "label_noise")
        for protocol in base.PROTOCOLS
        for split in regimes.splits(dataset, regime, protocol=protocol)
    ]
    assert len(splits) > 20
    return dataset, splits, activations(dataset)


def dense(sae, x_ND):
    """All latents, float64."""
    part = {name: np.asarray(value, np.float64) for name, value in vars(sae.sae).items()}
    pre_NS = x_ND.astype(np.float64) @ part["W_enc_DS"] + part["b_enc_S"]
    return np.maximum(pre_NS, 0) * (pre_NS > part["threshold_S"])


def kept(latents, columns=None):
    """The kept columns, or some of them, as one dense array."""
    if columns is None:
        columns = np.arange(len(latents.latent_U))
    return latents.rows.dense(columns)


def with_threshold(sae, at, value=1e9):
    changed = sae.sae.threshold_S.at[at].set(value)
    return dataclasses.replace(sae, sae=dataclasses.replace(sae.sae, threshold_S=changed))


def scores(z_MS, y_M, ranking="normalised"):
    score_S = np.abs(z_MS[y_M == 1].mean(0) - z_MS[y_M == 0].mean(0))
    if ranking == "normalised":
        score_S /= z_MS.sum(0) / ((z_MS != 0).sum(0) + 1e-6) + 1e-6
    return score_S


@pytest.mark.parametrize("ranking", ["normalised", "raw"])
def test_kept_columns_are_those_of_a_dense_selection(ranking):
    dataset, splits, x_ND = case()
    how = dataclasses.replace(RANKING, ranking=ranking)
    for sae in (fakes.loaded_sae(SITE), twins.draw(fakes.loaded_sae(SITE), x_ND, 42)):
        z_NS = dense(sae, x_ND)
        got = ranked.rank(how, sae, dataset.name, x_ND, splits)
        np.testing.assert_allclose(kept(got), z_NS[:, got.latent_U], rtol=1e-3, atol=1e-3)
        assert len(np.unique(got.latent_U)) == len(got.latent_U)
        for p, split in enumerate(splits):
            score_S = scores(z_NS[split.train_N], split.y_train_N, ranking)
            kept_K = got.latent_U[got.top_PK[p]]
            assert len(set(kept_K)) == MAX_LATENTS
            # By score, not by number: two latents may differ by less than float32 tells.
            best_K = np.sort(score_S)[::-1][:MAX_LATENTS]
            np.testing.assert_allclose(score_S[kept_K], best_K, rtol=1e-3, atol=1e-5)


def test_random_latents_are_alive_in_training_and_know_no_labels():
    dataset, splits, x_ND = case()
    sae = with_threshold(fakes.loaded_sae(SITE), np.s_[::2])  # half of the latents never fire
    z_NS = dense(sae, x_ND)
    got = ranked.rank(RANKING, sae, dataset.name, x_ND, splits)
    draws = []
    for p, split in enumerate(splits):
        drawn_K = got.latent_U[got.random_PK[p]]
        assert len(set(drawn_K)) == RANDOM_LATENTS
        assert (z_NS[split.train_N] > 0).any(0)[drawn_K].all()
        draws.append(tuple(drawn_K))
    assert len(set(draws)) == len(draws)  # each split draws its own
    # Other labels, the same draw: it depends on the split's address alone.
    flipped = [dataclasses.replace(s, y_train_N=1 - s.y_train_N) for s in splits]
    again = ranked.rank(RANKING, sae, dataset.name, x_ND, flipped)
    np.testing.assert_array_equal(again.latent_U[again.random_PK], np.array(draws))
    other = ranked.rank(dataclasses.replace(RANKING, seed=43), sae, dataset.name, x_ND, splits)
    assert not np.array_equal(other.latent_U[other.random_PK], np.array(draws))


def test_few_alive_latents_are_filled_up_with_silent_ones():
    dataset, splits, x_ND = case()
    sae = with_threshold(fakes.loaded_sae(SITE), np.s_[5:])
    got = ranked.rank(RANKING, sae, dataset.name, x_ND, splits)
    alive = np.isin(got.latent_U[got.random_PK], np.arange(5))
    assert got.random_PK.shape[1] == RANDOM_LATENTS
    assert (np.diff(alive.astype(int), axis=1) <= 0).all()  # alive ones stand first


def test_the_control_fires_as_often_as_the_sae():
    *_, x_ND = case()
    sae = fakes.loaded_sae(SITE)
    twin, again = twins.draw(sae, x_ND, 42), twins.draw(sae, x_ND, 42)
    assert twin.id == base.RANDOM_SAE
    assert twin.digest == again.digest != sae.digest
    assert twins.draw(sae, x_ND, 43).digest != twin.digest
    often_S = (dense(sae, x_ND) > 0).sum(0)
    np.testing.assert_array_equal((dense(twin, x_ND) > 0).sum(0), often_S)


@pytest.mark.parametrize("kind", ["topk", "framed gated"])
def test_other_architectures_give_the_latents_of_a_whole_encode(kind):
    dataset, splits, x_ND = case()
    weights = fakes.loaded_sae(SITE).sae
    linear = {name: getattr(weights, name) for name in ("W_enc_DS", "W_dec_SD", "b_dec_D")}
    if kind == "topk":
        sae = saes.TopKSae(**linear, b_enc_S=weights.b_enc_S, k=7)
    else:
        biases = {"b_gate_S": -weights.threshold_S, "b_mag_S": weights.b_enc_S}
        core = saes.GatedSae(**linear, **biases, r_mag_S=weights.b_enc_S / 9)
        sae = saes.frame(core, shift_D=weights.b_enc_S[:32], normalisation="constant_norm_rescale")
    loaded = dataclasses.replace(fakes.loaded_sae(SITE), sae=sae)
    often = []
    for encoded in (loaded, twins.draw(loaded, x_ND, 42)):
        got = ranked.rank(RANKING, encoded, dataset.name, x_ND, splits)
        z_NS = np.asarray(saes.encode(encoded.sae, x_ND))
        np.testing.assert_allclose(kept(got), z_NS[:, got.latent_U], rtol=1e-4, atol=1e-4)
        often.append((z_NS > 0).mean())
    assert often[0] == pytest.approx(often[1], rel=0.15)
    # Other settings with the same arrays are another SAE.
    if kind == "topk":
        other = dataclasses.replace(loaded, sae=dataclasses.replace(sae, k=8))
        assert other.digest != loaded.digest


@pytest.mark.parametrize(("factor", "far"), [(1.0, False), (1.7, False), (2.5, True), (0.3, True)])
def test_an_l0_far_from_the_published_one_warns(monkeypatch, factor, far):
    dataset, splits, x_ND = case()
    sae = fakes.loaded_sae(SITE)
    l0 = (dense(sae, x_ND) > 0).sum(1).mean()
    sae = dataclasses.replace(sae, expected_l0=float(l0 * factor))
    lines = {"info": [], "warning": []}
    for level, found in lines.items():
        say = lambda text, *values, found=found: found.append(text % values)
        monkeypatch.setattr(measured_l0.logging, level, say)
    ranked.rank(RANKING, sae, dataset.name, x_ND, splits[:1])
    said = [line for line in lines["warning" if far else "info"] if "published" in line]
    assert any(f"on a: L0 {l0:.1f}, published {l0 * factor:.1f}" in line for line in said)
    assert bool(lines["warning"]) == far


def test_a_shifted_set_is_encoded_at_the_columns_that_training_rows_chose():
    own, shifted = fakes.dataset("b", 200), fakes.dataset("b", 60, seed=1)
    table = base.joined(own, shifted)
    x_ND = activations(own, shifted)
    splits = [
        *regimes.splits(own),
        *regimes.splits(own, "covariate_shift", shifted=shifted),
    ]
    assert len(splits) == 2 and len(table.texts) == 260
    sae = fakes.loaded_sae(SITE)
    got = ranked.rank(RANKING, sae, "b", x_ND, splits)
    z_NS = dense(sae, x_ND)
    for p, split in enumerate(splits):
        latent_K = got.latent_U[got.top_PK[p]]
        for rows in (split.train_N, split.test_N):
            found = kept(got, got.top_PK[p])[rows]
            np.testing.assert_allclose(found, z_NS[rows][:, latent_K], rtol=1e-3, atol=1e-3)
        # Only training rows of the dataset itself rank.
        assert (split.train_N < 200).all()
        assert ((split.test_N >= 200) == (split.regime == "covariate_shift")).all()
        score_S = scores(z_NS[split.train_N], split.y_train_N)
        best_K = np.sort(score_S)[::-1][:MAX_LATENTS]
        np.testing.assert_allclose(score_S[latent_K], best_K, rtol=1e-3, atol=1e-5)


def test_narrow_weights_are_widened_block_by_block():
    *_, x_ND = case()
    sae = fakes.loaded_sae(SITE)
    narrow = jax.tree.map(lambda array: array.astype(jnp.bfloat16), sae.sae)
    wide = jax.tree.map(lambda array: array.astype(jnp.float32), narrow)
    wanted_NS = dense(dataclasses.replace(sae, sae=wide), x_ND)
    encoder = ranked.prepare(narrow, x_ND)
    got_NS = np.concatenate([encoder(0, 40), encoder(40, 96)], axis=1)
    assert got_NS.dtype == np.float32
    np.testing.assert_allclose(got_NS, wanted_NS, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(encoder.columns([7, 3]), got_NS[:, [7, 3]], rtol=1e-5, atol=1e-4)
