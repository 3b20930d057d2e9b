"""The encode stage: finished files are kept, what changed lies beside them, each SAE is read at its site."""

import dataclasses

import numpy as np
import pytest

from jaxprobe import base, regimes
from jaxprobe.base import Arrow, Site
from jaxprobe.experiments import EXPERIMENTS, config
from jaxprobe.extraction.request import Request
from jaxprobe.features.ranked import Ranking
from jaxprobe.jobs import Job, Need
from jaxprobe.place import Place
from jaxprobe.stages import encode as stage
from jaxprobe.stages import extract
from jaxprobe.workdir import Workdir
from jaxprobe.workspace import Workspace
from tests import fakes

SITE, OTHER = Site(block=1, stream="resid_post"), Site(block=2, stream="resid_post")
RANKING = Ranking(max_latents=10, random_latents=12)
NAMES = ("a", "b")
SETS = {name: fakes.dataset(name, 160) for name in NAMES}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Activations of two datasets at two sites."""
    taps = ((SITE, "last"), (OTHER, "last"))
    needs = [Need(texts=dataset.texts, taps=taps) for dataset in SETS.values()]
    place = Place.parse(tmp_path_factory.mktemp("store") / "activations")
    common = config.Common(model="fake", dtype="float32", extract=config.Extract(batch_tokens=256))
    model = {"model": fakes.FakeModel(), "make_forward": fakes.make_forward}
    extract.run(common, Request.of(needs), place, **model)
    return place


def workspace(store, folder, *saes, seed=42):
    """A workspace of the fakes, whose datasets lie in no file."""
    found = Workspace(
        Workdir.parse(folder),
        activations=store,
        load_saes=lambda: saes,
        control_datasets=NAMES,
        seed=seed,
    )
    found._datasets.update(SETS)
    return found


def experiment(*read, ranking=RANKING):
    """One whose jobs read these SAEs' latents at these sites, for two splits of each dataset."""

    def jobs(_, workspace, name):
        dataset = workspace.dataset(name)
        splits = regimes.splits(dataset) + regimes.splits(dataset, protocol="dedup")
        yield job(dataset, base.ACTIVATIONS, SITE, splits[:1])
        for features, site in read:
            for k in (2, 4):  # two jobs that read one file
                yield job(dataset, features, site, splits[:1], k, splits, ranking)

    return EXPERIMENTS["probing"]._replace(jobs=jobs)


def job(dataset, features, site, splits, k=0, latents=(), ranking=None):
    arrow = Arrow(features=features, method="logistic_l1", k=k)
    more = {"latents": latents, "ranking": ranking}
    return Job(
        dataset=dataset, site=site, arrows=(arrow,), splits=splits, predict=lambda *_: [], **more
    )


BOTH = (("sae", SITE), (base.RANDOM_SAE, SITE))


def latents_of(workspace, asked, name):
    """What the jobs of a dataset read, by features and site."""
    return {
        (one.arrow.features, one.site): workspace.latents(
            one.dataset, one.arrow.features, one.site, one.latents, one.ranking
        )
        for one in asked.jobs(None, workspace, name)
        if one.ranking is not None
    }


def modified(folder):
    """When each file of latents was last written."""
    paths = [path for path in sorted((folder / "latents").rglob("*")) if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in paths}


def dense(sae, x_ND):
    part = {name: np.asarray(value, np.float64) for name, value in vars(sae.sae).items()}
    pre_NS = x_ND.astype(np.float64) @ part["W_enc_DS"] + part["b_enc_S"]
    return np.maximum(pre_NS, 0) * (pre_NS > part["threshold_S"])


def test_finished_files_are_kept_and_what_changes_lies_beside_them(store, tmp_path):
    sae, asked = fakes.loaded_sae(SITE), experiment(*BOTH)
    here = workspace(store, tmp_path, sae)
    for name in NAMES:
        left = list(stage.left(asked, None, here, name, settled=True))
        assert left == [(160, "sae"), (160, base.RANDOM_SAE)]
    stage.run(asked, None, here, NAMES)
    first = modified(tmp_path)
    assert len(first) == 4  # two datasets, the SAE and its control; two jobs share a file
    assert not [*stage.left(asked, None, here, "a", settled=True)]
    stage.run(asked, None, workspace(store, tmp_path, sae), NAMES)
    assert modified(tmp_path) == first
    # A killed run: one file is missing. A damaged file is as good as missing.
    lost, damaged = list(first)[:2]
    content = {path: path.read_bytes() for path in (lost, damaged)}
    lost.unlink()
    damaged.write_bytes(content[damaged][:-9])
    stage.run(asked, None, workspace(store, tmp_path, sae), NAMES)
    second = modified(tmp_path)
    assert {path for path in first if second[path] != first[path]} == {lost, damaged}
    assert {path: path.read_bytes() for path in (lost, damaged)} == content
    # Another SAE under the same id, another number of latents, another site, other splits: files of their
    # own beside these.
    other = fakes.loaded_sae(SITE, seed=1)
    wider = dataclasses.replace(RANKING, max_latents=11)
    for changed, its in (
        (workspace(store, tmp_path, other), asked),
        (here, experiment(*BOTH, ranking=wider)),
        (
            workspace(store, tmp_path, dataclasses.replace(sae, site=OTHER)),
            experiment(("sae", OTHER)),
        ),
    ):
        with pytest.raises(FileNotFoundError, match="run the encode stage first"):
            latents_of(changed, its, "a")
        before = modified(tmp_path)
        stage.run(its, None, changed, NAMES)
        after = modified(tmp_path)
        assert {path: after[path] for path in before} == before
        assert len(after) - len(before) == 2 * len(latents_of(changed, its, "a"))
    # And each is read back as itself.
    x_ND = here.store.read(SITE, SETS["a"].texts)
    for sae_now, its in ((sae, here), (other, workspace(store, tmp_path, other))):
        got = latents_of(its, asked, "a")["sae", SITE]
        found = got.rows.dense(np.arange(len(got.latent_U)))
        wanted = dense(sae_now, x_ND)[:, got.latent_U]
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)


def test_each_sae_is_read_at_its_own_site_with_a_control_beside_it(store, tmp_path):
    one, two = fakes.loaded_sae(SITE, name="one"), fakes.loaded_sae(OTHER, name="two", seed=1)
    here = workspace(store, tmp_path, one, two)
    assert dict(here.sae_sites) == {"one": SITE, "two": OTHER}
    read = (("one", SITE), ("two", OTHER), (base.RANDOM_SAE, SITE), (base.RANDOM_SAE, OTHER))
    stage.run(experiment(*read), None, here, ("a",))
    got = latents_of(here, experiment(*read), "a")
    assert len(got) == len(modified(tmp_path)) == 4
    for name, site in read:
        sae = here.sae(name, site)
        assert sae.site == site
        found = got[name, site]
        z_NS = dense(sae, here.store.read(site, SETS["a"].texts))
        columns = found.rows.dense(np.arange(len(found.latent_U)))
        np.testing.assert_allclose(columns, z_NS[:, found.latent_U], rtol=1e-3, atol=1e-3)
    assert here.twin(SITE).digest != here.twin(OTHER).digest


def test_a_dataset_without_splits_has_no_file(store, tmp_path):
    here = workspace(store, tmp_path, fakes.loaded_sae(SITE))
    none = experiment()._replace(jobs=lambda *_: iter(()))
    stage.run(none, None, here, NAMES)
    assert not modified(tmp_path)
