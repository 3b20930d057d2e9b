"""What probes read of prompts: activations, an SAE's parts of them, pooled and side by side."""

import dataclasses

import numpy as np
import pytest

from jaxprobe.base import RANDOM_SAE, Site
from jaxprobe.features import read
from jaxprobe.features.read import Features
from jaxprobe.store import Segment, StoreError, StoreWriter
from jaxprobe.workdir import Workdir
from jaxprobe.workspace import Workspace
from tests import fakes

SITE, OTHER = Site(block=1, stream="resid_post"), Site(block=2, stream="resid_post")
DATA = fakes.dataset("a", 30)
TOKENS = [[1, *fakes.FakeTokenizer().encode(text)] for text in DATA.texts]
TAPS = ((SITE, "last"), (SITE, "max"), (SITE, "mean"), (SITE, "tokens"), (OTHER, "last"))
SAE = fakes.loaded_sae(SITE, d_sae=48)


def of_tokens(n, site=SITE):
    """[T, 32], without BOS."""
    return fakes.activations(TOKENS[n], site)[1:]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Over a store whose prompts lie in another order than the dataset's."""
    folder = tmp_path_factory.mktemp("work")
    order = np.random.default_rng(0).permutation(len(DATA.texts))
    segment = Segment(
        taps=TAPS,
        sha256_N=np.stack([np.frombuffer(DATA.sha256_N[n], np.uint8) for n in order]),
        tokens_N=np.array([len(TOKENS[n]) - 1 for n in order], np.int32),
        batch_N=np.zeros(len(order), np.int32),
    )
    rows = {
        (SITE, "last"): np.stack([of_tokens(n)[-1] for n in order]),
        (SITE, "mean"): np.stack([of_tokens(n).mean(0) for n in order]),
        (SITE, "max"): np.stack([of_tokens(n).max(0) for n in order]),
        (SITE, "tokens"): np.concatenate([of_tokens(n) for n in order]),
        (OTHER, "last"): np.stack([of_tokens(n, OTHER)[-1] for n in order]),
    }
    about = {"model": "m", "d_model": 32, "token_dtype": "float32", "buckets": [64]}
    work = Workdir.parse(folder)
    with StoreWriter(work.activations, about) as writer:
        assert writer.begin(segment) == 0
        writer.append(rows)
        writer.finish()
    return Workspace(work, load_saes=lambda: (SAE,))


def test_activations_and_what_an_sae_makes_of_them(workspace):
    x_ND = np.stack([of_tokens(n)[-1] for n in range(len(DATA.texts))])
    got_ND = workspace.features(DATA, Features(site=SITE))
    np.testing.assert_allclose(got_ND, x_ND, rtol=1e-6)
    weights = SAE.sae  # its formula, written out once more
    pre_NS = x_ND @ np.asarray(weights.W_enc_DS) + np.asarray(weights.b_enc_S)
    z_NS = np.where(pre_NS > np.asarray(weights.threshold_S), pre_NS, 0)
    decoded_ND = z_NS @ np.asarray(weights.W_dec_SD) + np.asarray(weights.b_dec_D)
    for part, wanted in (
        ("latents", z_NS),
        ("reconstruction", decoded_ND),
        ("error", x_ND - decoded_ND),
    ):
        got = workspace.features(DATA, Features(site=SITE, part=part, sae="sae"))
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-3)
        assert got.dtype == np.float32


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("rows_at_once", [7, read.ROWS_AT_ONCE])
def test_what_an_sae_makes_of_every_token_is_pooled(workspace, pooling, rows_at_once, monkeypatch):
    """Not what it makes of the pooled token; a prompt longer than a block is one prompt still."""
    monkeypatch.setattr(read, "ROWS_AT_ONCE", rows_at_once)
    got = workspace.features(DATA, Features(site=SITE, part="latents", sae="sae", pooling=pooling))
    for n in range(len(DATA.texts)):
        z_TS = np.asarray(read.encode(SAE, of_tokens(n)))
        np.testing.assert_allclose(got[n], getattr(z_TS, pooling)(axis=0), rtol=1e-4, atol=1e-3)
    plain = workspace.features(DATA, Features(site=SITE, pooling=pooling))
    wanted = [getattr(of_tokens(n), pooling)(axis=0) for n in range(len(DATA.texts))]
    np.testing.assert_allclose(plain, wanted, rtol=1e-5, atol=1e-5)


def test_features_side_by_side_and_single_tokens(workspace):
    several = (Features(site=OTHER), Features(site=SITE, pooling="max"))
    got = workspace.features(DATA, several)
    assert got.shape == (30, 64)
    np.testing.assert_array_equal(got[:, :32], workspace.activations(DATA, OTHER))
    np.testing.assert_array_equal(got[:, 32:], workspace.activations(DATA, SITE, "max"))
    x_TD, start_N1 = workspace.tokens(DATA, SITE, np.array([4, 2, 4]))
    np.testing.assert_array_equal(x_TD, np.concatenate([of_tokens(n) for n in (4, 2, 4)]))
    assert np.diff(start_N1).tolist() == [len(of_tokens(n)) for n in (4, 2, 4)]


def test_names_and_what_must_be_extracted():
    error = Features(site=SITE, part="error", sae="a/b", pooling="mean")
    assert (str(error), error.tap) == ("error of a/b", (SITE, "tokens"))
    assert Features(site=SITE, pooling="mean").tap == (SITE, "mean")
    latents = Features(site=SITE, part="latents", sae="a/b")
    assert (str(latents), latents.tap) == ("a/b", (SITE, "last"))
    assert str(Features(site=SITE)) == "activations"


def test_what_means_nothing_or_is_not_there_is_refused(workspace, monkeypatch):
    with pytest.raises(ValueError, match="`sae` must be an SAE's id"):
        Features(site=SITE, part="error")
    with pytest.raises(ValueError, match="empty for activations, got 'x'"):
        Features(site=SITE, sae="x")
    with pytest.raises(ValueError, match="pooling"):
        Features(site=SITE, pooling="tokens")
    with pytest.raises(StoreError, match=r"blocks\.2\.resid_post \(mean\)"):
        workspace.features(DATA, Features(site=OTHER, pooling="mean"))
    with pytest.raises(StoreError, match=r"blocks\.2\.resid_post \(tokens\)"):
        workspace.tokens(DATA, OTHER)
    with pytest.raises(
        ValueError, match=r"SAE sae must be read at its site blocks\.1\..*got blocks\.2"
    ):
        workspace.features(DATA, Features(site=OTHER, part="error", sae="sae"))
    with pytest.raises(ValueError, match=r"no SAE of the run reads blocks\.2"):
        workspace.sae(RANDOM_SAE, OTHER)
    with pytest.raises(ValueError, match="unknown SAE 'sea'; known: sae"):
        workspace.sae("sea", SITE)
    monkeypatch.setattr(read, "MOST_BYTES", 30 * 48 * 4 - 1)
    with pytest.raises(ValueError, match="give the job `latents` and `ranking`"):
        workspace.features(DATA, Features(site=SITE, part="latents", sae="sae"))
    transcoder = dataclasses.replace(SAE, metadata={"output_site": None})
    with pytest.raises(ValueError, match="must be latents for the transcoder"):
        read.part_of(transcoder, of_tokens(0), "error")
