"""What a job keeps beside its results: log-odds, fitted probes, and the latents that probes chose."""

import numpy as np
import pytest

from jaxprobe import checkpoints, datasets, predictions, probes, regimes, results, sealed
from jaxprobe.base import Site
from jaxprobe.place import Place
from jaxprobe.stages import run as stage
from jaxprobe.store import ActivationStore
from tests import fakes

sklearn_metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the reference")
SITE = Site.parse("blocks.1.resid_post")


@pytest.fixture(scope="module", params=["path", "memory"])
def kept(request, tmp_path_factory):
    """A finished job with real fits; activations and all latents of its rows, by other ways."""
    folder = tmp_path_factory.mktemp("kept")
    path = fakes.write_csv(folder, fakes.dataset("a", 240, gap=0.6))
    checkpoints.save_sae(
        folder / "sae", fakes.loaded_sae(SITE).sae, {"id": "own", "site": str(SITE)}
    )
    content = fakes.job(
        [path],
        train_sae=None,
        saes=(str(folder / "sae"),),
        fit={
            **{"num_latents": (2, 4), "regime_num_latents": (4,), "controls": False},
            "keep": ("scores", "probes"),
        },
    )
    root = folder / "work" if request.param == "path" else f"memory://kept/{folder.name}"
    with pytest.MonkeyPatch.context() as patch:
        fakes.stand_in(patch)
        stage.run(stage.RunConfig.from_mapping(content), root)
    work = Place.parse(root)
    data = datasets.load(path)
    x_ND = ActivationStore.open(work / "activations").read(SITE, data.texts)
    z_NS = np.asarray(checkpoints.encode(fakes.loaded_sae(SITE), x_ND))
    return work, data, {"activations": x_ND, "own": z_NS}


def jobs(work):
    """Each job's object, its results, the log-odds that it kept and its probes' folder."""
    for name in (work / "results").children():
        stem = name.removesuffix(".parquet")
        found = results.read_job(work / "results" / name)
        _, arrays = predictions.read(work / "predictions" / f"{stem}.safetensors")
        yield found, arrays, work / "probes" / stem


def test_kept_scores_give_the_aurocs_of_the_rows(kept):
    work, data, _ = kept
    seen = set()
    for found, arrays, _ in jobs(work):
        for number, row in enumerate(found.rows):
            key = f"0-{number}/test"
            y_M, row_M = arrays[f"{key}/y"], arrays[f"{key}/row"]
            np.testing.assert_array_equal(y_M, data.y_N[row_M])
            auroc = sklearn_metrics.roc_auc_score(y_M, arrays[key])
            np.testing.assert_allclose(
                auroc, row.test_auroc, atol=1e-6
            )  # float32 may tie two scores
            seen.add((row.features, row.num_latents))
    assert seen == {("activations", 0), ("own", 2), ("own", 4)}


def test_kept_probes_score_activations_and_all_latents_of_the_sae(kept):
    work, _, features = kept
    for found, arrays, folder in jobs(work):
        about = sealed.read_json(folder / predictions.ABOUT, "fit again")
        assert [arrow["k"] for arrow in about["arrows"]] == [row.num_latents for row in found.rows]
        for number, row in enumerate(found.rows):
            probe = probes.load_probe(folder / f"0-{number}.safetensors")
            x_NF = features[row.features]
            row_M = arrays[f"0-{number}/test/row"]
            np.testing.assert_allclose(
                probe(x_NF)[row_M], arrays[f"0-{number}/test"], rtol=1e-4, atol=1e-5
            )
            by_hand_M = x_NF.astype(float)[row_M] @ probe.coef_D + probe.intercept
            np.testing.assert_allclose(by_hand_M, arrays[f"0-{number}/test"], rtol=1e-4, atol=1e-5)


def test_chosen_latents_are_the_saes_and_fire_on_their_texts(kept):
    work, data, features = kept
    z_NS = features["own"]
    (told,) = [found.about["chosen"] for found, _, _ in jobs(work) if "chosen" in found.about]
    assert 0 < len(told) <= 4  # of the largest k up to 16
    (folder,) = [f for found, _, f in jobs(work) if "chosen" in found.about]
    probe = probes.load_probe(folder / "0-1.safetensors")
    weight = dict(zip(probe.latents.tolist(), np.asarray(probe.weights).tolist(), strict=True))
    train_N = regimes.splits(data, seed=7)[0].train_N
    for entry in told:
        assert entry["weight"] == pytest.approx(weight[entry["latent"]])
        strongest = train_N[np.argmax(z_NS[train_N, entry["latent"]])]
        assert entry["texts"][0] == data.texts[strongest][:200]
