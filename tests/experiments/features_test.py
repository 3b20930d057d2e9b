"""What jobs read, from config to results: pooled activations in the main grid, an experiment's own features."""

import dataclasses

import numpy as np
import pytest

from jaxprobe import checkpoints, regimes, results
from jaxprobe.base import Arrow, Site
from jaxprobe.experiments import EXPERIMENTS, experiment
from jaxprobe.experiments.config import sites_of
from jaxprobe.experiments.probing import jobs as probing
from jaxprobe.features.read import Features
from jaxprobe.jobs import Job
from jaxprobe.methods.probes import Engine
from jaxprobe.place import Place
from jaxprobe.stages import run as stage
from jaxprobe.workdir import Workdir
from jaxprobe.workspace import Workspace
from tests import fakes

POOLINGS = ("last", "mean", "max")


def job_of(tmp_path, **changes):
    """A config without SAEs, but for those that it names."""
    path = fakes.write_csv(tmp_path, fakes.dataset("a", 200, gap=0.4))
    fit = {
        "baselines": ("mean_difference",),
        "controls": False,
        "num_latents": (),
        "regime_num_latents": (),
    }
    return fakes.job([path], train_sae={}, fit=fit | changes.pop("fit", {}), **changes)


def rows_of(folder):
    """In the order of their objects' making: by features, then pooling."""
    place = Place.parse(folder) / "results"
    rows = [row for name in place.children() for row in results.read_job(place / name).rows]
    return sorted(rows, key=lambda row: (row.features, POOLINGS.index(row.pooling)))


def pooled(texts, site):
    """float64 {pooling: x_ND} of the fake model, without a look at the store."""
    ids = [[1, *fakes.FakeTokenizer().encode(text)] for text in texts]
    of_tokens = [fakes.activations(row, site)[1:].astype(np.float64) for row in ids]
    pools = {"last": lambda x: x[-1], "mean": lambda x: x.mean(0), "max": lambda x: x.max(0)}
    return {name: np.stack([pool(x_TD) for x_TD in of_tokens]) for name, pool in pools.items()}


def auroc(x_ND, split):
    """Of the difference of class means, by counting pairs."""
    means = [x_ND[split.train_N][split.y_train_N == y].mean(0) for y in (0, 1)]
    score_M = x_ND[split.test_N] @ (means[1] - means[0])
    positive_M, negative_M = (score_M[split.y_test_N == y] for y in (1, 0))
    return (positive_M[:, None] > negative_M[None]).mean()


def test_baselines_of_every_pooling(tmp_path, monkeypatch):
    fakes.stand_in(monkeypatch)
    config = stage.RunConfig.from_mapping(job_of(tmp_path, fit={"poolings": POOLINGS}))
    text = stage.run(config, tmp_path / "run", tell=lambda text: None)
    rows = rows_of(tmp_path / "run")
    assert [row.pooling for row in rows] == list(POOLINGS)
    assert {row.method for row in rows} == {"mean_difference"}
    workspace = Workspace(Workdir.parse(tmp_path / "run"))
    table, (split,) = probing.draws(config.job, workspace, config.job.datasets[0])
    wanted = pooled(table.texts, sites_of(config.job)[0])
    for row in rows:
        assert row.test_auroc == pytest.approx(auroc(wanted[row.pooling], split), abs=1e-6)
    assert len({row.test_auroc for row in rows}) == 3
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    for pooling in POOLINGS[1:]:
        assert f"mean_difference ({pooling} of tokens)" in page
    assert "mean_difference" in text


def test_unknown_poolings_are_refused(tmp_path):
    for poolings, words in (((), "at least one of last"), (("tokens",), "'tokens'")):
        content = job_of(tmp_path, fit={"poolings": poolings})
        with pytest.raises(ValueError, match=words):
            stage.run(stage.RunConfig.from_mapping(content), tmp_path / "run")


def jobs(config, workspace, name):
    """Two sites side by side, and what the SAE makes of the second."""
    table, splits = probing.draws(config, workspace, name)
    engine = Engine(dtype="float64")
    first, second = sites_of(config)
    (sae,) = workspace.sae_sites
    error = Features(site=second, part="error", sae=sae)
    for label, features in (
        ("both sites", (Features(site=first), Features(site=second))),
        (str(error), (error,)),
    ):
        arrow = Arrow(features=label, method="mean_difference")
        yield Job(
            dataset=table, site=second, arrows=(arrow,), splits=splits, predict=engine, features=features
        )  # fmt: skip


def test_the_best_k_of_what_is_not_ranked_is_refused(tmp_path):
    """Its rows would say k and its probe would read everything."""
    data, site = fakes.dataset("a", 200), Site.parse("blocks.1.resid_post")
    workspace = Workspace(Workdir.parse(tmp_path))
    workspace.features = lambda dataset, features: np.zeros((200, 4), np.float32)
    arrow = Arrow(features="error of s", method="mean_difference", k=16)
    job = Job(
        dataset=data, site=site, arrows=(arrow,), splits=tuple(regimes.splits(data)),
        predict=Engine(), features=(Features(site=site, part="error", sae="s"),),
    )  # fmt: skip
    with pytest.raises(ValueError, match="`k` of an arrow on error of s must be 0"):
        job.predict(job, workspace)


def test_an_experiments_own_features(tmp_path, monkeypatch):
    """Probed as any others, and their results are known by the SAE's weights, not by its name."""
    fakes.stand_in(monkeypatch)
    own = EXPERIMENTS["probing"]._replace(jobs=jobs, needs=experiment.last_tokens)
    monkeypatch.setitem(EXPERIMENTS, "probing", own)
    sites = ("blocks.0.resid_post", "blocks.1.resid_post")
    found = {}
    for seed in (0, 1):
        loaded = fakes.loaded_sae(Site.parse(sites[1]), seed=seed)
        folder = tmp_path / f"sae{seed}"
        checkpoints.save_sae(folder, loaded.sae, {"id": "s", "site": sites[1]})
        content = job_of(tmp_path, sites=sites, saes=(str(folder),))
        del content["site"]
        config = stage.RunConfig.from_mapping(content)
        stage.run(config, tmp_path / "run", ("extract", "encode", "fit"), tell=lambda text: None)
        found[seed] = rows_of(tmp_path / "run")
    assert [row.features for row in found[0]] == ["both sites", "error of s"]
    workspace = Workspace(Workdir.parse(tmp_path / "run"))
    table, (split,) = probing.draws(config.job, workspace, config.job.datasets[0])
    x_ND = [pooled(table.texts, site)["last"] for site in sites_of(config.job)]
    assert found[0][0].test_auroc == pytest.approx(auroc(np.hstack(x_ND), split), abs=1e-6)
    # Both SAEs' errors are there, and the sites were fitted once.
    errors = [row for row in found[1] if row.features == "error of s"]
    assert len(found[1]) == 3 and len({row.fingerprint for row in errors}) == 2
    assert dataclasses.replace(errors[0], fingerprint="") != dataclasses.replace(
        errors[1], fingerprint=""
    )
