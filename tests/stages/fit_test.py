"""The fit stage against a plain loop over scikit-learn, and its restarts, neighbours and controls."""

import dataclasses
import re
import threading
from pathlib import Path

import numpy as np
import pytest

from jaxprobe import regimes, results
from jaxprobe.base import ACTIVATIONS, Site
from jaxprobe.experiments import EXPERIMENTS, schemas
from jaxprobe.extraction.request import Request
from jaxprobe.jobs import Need
from jaxprobe.methods import probes
from jaxprobe.place import Place
from jaxprobe.stages import encode, extract
from jaxprobe.stages import fit as stage
from jaxprobe.workdir import Workdir
from jaxprobe.workspace import Workspace
from tests import fakes

SITE, OTHER = Site(block=1, stream="resid_post"), Site(block=2, stream="resid_post")
PROBING = EXPERIMENTS["probing"]
ALL = 7  # probes of a dataset


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """Two datasets, their activations, an SAE."""

    paths: tuple[str, ...]
    store: Place

    def config(self, **changes):
        content = {
            **{"model": "fake", "dtype": "float32", "site": str(SITE), "datasets": self.paths},
            "encode": {"protocols": ("paper",), "max_latents": 8, "random_latents": 8},
            "fit": {"num_latents": (2, 4), "regime_num_latents": (4,)},
        }
        return schemas.read({**content, **changes})

    def workspace(self, folder, *saes, config=None):
        config = config or self.config()
        return Workspace(
            Workdir.parse(folder),
            activations=self.store,
            load_saes=lambda: saes,
            control_datasets=config.datasets,
            seed=config.seed,
        )

    def fit(self, folder, config=None, saes=None, encoded=True):
        """Encodes and fits; returns the number of probes that were to be fitted, and all rows."""
        config = config or self.config()
        saes = [fakes.loaded_sae(SITE)] if saes is None else saes
        here = self.workspace(folder, *saes, config=config)
        if encoded:
            encode.run(PROBING, config, here, config.datasets)
        planned = stage.outline(PROBING, config, here, config.datasets)
        left = sum(stage.left(here, planned).values())
        stage.run(PROBING, config, here, planned, "a record")
        jobs = [here.work.jobs / name for jobs in planned.values() for name, _ in jobs]
        return left, [row for place in jobs for row in results.read_job(place).rows]


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    sets = [fakes.dataset(name, 300, gap=0.5) for name in ("a", "b")]
    paths = tuple(fakes.write_csv(folder, one) for one in sets)
    taps = ((SITE, "last"), (OTHER, "last"))
    needs = [Need(texts=one.texts, taps=taps) for one in sets]
    found = Setting(paths=paths, store=Place.parse(folder / "activations"))
    model = {"model": fakes.FakeModel(), "make_forward": fakes.make_forward}
    extract.run(found.config(), Request.of(needs), found.store, **model)
    return found


@pytest.fixture(scope="module")
def fitted(setting, tmp_path_factory):
    """A work directory and the rows of one uninterrupted run."""
    folder = tmp_path_factory.mktemp("fitted")
    left, rows = setting.fit(folder)
    assert left == len(rows) == 2 * ALL
    return folder, rows


@pytest.fixture
def quick(monkeypatch):
    """Numbers in place of fits; lists the calls."""
    made = []

    def scores(*args, **kwargs):
        made.append(args[0])
        return fakes.scores(*args, **kwargs)

    monkeypatch.setattr(probes.grid, "fit_grid", scores)
    return made


def objects(folder):
    """Every result object's bytes."""
    return {path.name: path.read_bytes() for path in (folder / "results").iterdir()}


def plain(x_ND, split, penalty):
    """A loop over scikit-learn's fits: valid AUROC, the chosen C, test AUROC, F1, accuracy."""
    linear_model = pytest.importorskip("sklearn.linear_model", reason="the reference")
    metrics = pytest.importorskip("sklearn.metrics", reason="the reference")
    kind = {
        "l2": {"solver": "newton-cholesky"},
        "l1": {"solver": "liblinear", "l1_ratio": 1, "intercept_scaling": 1e3},
    }[penalty]

    def fitted(c, rows):
        model = linear_model.LogisticRegression(C=c, tol=1e-8, max_iter=10000, **kind)
        return model.fit(x_N[rows], split.y_train_N[rows])

    x_N = x_ND[split.train_N].astype(np.float64)
    (fold,) = split.folds
    best = (-1.0, 0.0)
    for c in np.logspace(-5, 5, 10):
        score_N = fitted(c, fold.train).decision_function(x_N[fold.valid])
        best = max(best, (metrics.roc_auc_score(split.y_train_N[fold.valid], score_N), c))
    model = fitted(best[1], slice(None))
    x_M, y_M = x_ND[split.test_N].astype(np.float64), split.y_test_N
    guess_M = model.predict(x_M)
    return {
        "valid_auroc": best[0],
        "best_c": best[1],
        "test_auroc": metrics.roc_auc_score(y_M, model.decision_function(x_M)),
        "test_f1": metrics.f1_score(y_M, guess_M, average="weighted"),
        "test_accuracy": metrics.accuracy_score(y_M, guess_M),
    }


@pytest.mark.filterwarnings("ignore:Liblinear failed")
def test_rows_are_those_of_a_loop_over_scikit_learn(setting, fitted):
    folder, rows = fitted
    here = setting.workspace(folder, fakes.loaded_sae(SITE))
    dataset = here.dataset(setting.paths[0])
    (split,) = regimes.splits(dataset)
    (job,) = (
        planned.job
        for planned in stage.plan_of(PROBING, setting.config(), here, setting.paths[0])
        if planned.job.arrow.features == "sae" and not planned.job.arrow.control
    )
    latents = here.latents(dataset, "sae", SITE, job.latents, job.ranking)
    z_NK, random_NK = (
        latents.rows.dense(columns_PK[0, :4]) for columns_PK in (latents.top_PK, latents.random_PK)
    )
    shuffled = dataclasses.replace(split, y_train_N=probes.shuffled_labels(split))
    x_ND = here.activations(dataset, SITE)
    wanted = {
        (ACTIVATIONS, "logistic", 0): plain(x_ND, split, "l2"),
        (ACTIVATIONS, "logistic_shuffled_labels", 0): plain(x_ND, shuffled, "l2"),
        ("sae", "logistic_l1", 4): plain(z_NK, split, "l1"),
        ("sae", "logistic_l1_random_latents", 4): plain(random_NK, split, "l1"),
    }
    by_key = {
        (row.features, row.method, row.num_latents): row for row in rows if row.dataset == "a"
    }
    for key, numbers in wanted.items():
        row = by_key[key]
        assert row.converged
        assert row.best_c == pytest.approx(numbers["best_c"], rel=1e-6), key
        for field in ("valid_auroc", "test_auroc"):
            assert getattr(row, field) == pytest.approx(numbers[field], abs=3e-3), (key, field)
        for field in ("test_f1", "test_accuracy"):  # one of 99 rows may stand on the boundary
            assert getattr(row, field) == pytest.approx(numbers[field], abs=0.011), (key, field)
        assert (row.num_train, row.num_test) == (len(split.train_N), len(split.test_N))
        assert (row.model, row.site, row.dataset) == ("fake", str(SITE), "a")
        assert (row.regime, row.protocol, row.seed) == ("standard", "paper", 42)
        assert np.isnan(row.level)
    assert by_key[ACTIVATIONS, "logistic", 0].test_auroc > 0.6  # there is something to find


def test_further_metrics_are_those_of_scikit_learn(setting, fitted):
    """Metrics that are no columns stand beside their rows; average precision as another library has it."""
    metrics = pytest.importorskip("sklearn.metrics", reason="the reference")
    linear_model = pytest.importorskip("sklearn.linear_model", reason="the reference")
    folder, _ = fitted
    here = setting.workspace(folder, fakes.loaded_sae(SITE))
    dataset = here.dataset(setting.paths[0])
    (split,) = regimes.splits(dataset)
    parts = [results.read_job(here.work.jobs / name) for name in here.work.jobs.children()]
    (part,) = (p for p in parts if (p.rows[0].dataset, p.rows[0].method) == ("a", "logistic"))
    assert {*part.metrics} == {*PROBING.metrics}
    assert part.about == {"record": "a record"}
    x_ND = here.activations(dataset, SITE).astype(np.float64)
    model = linear_model.LogisticRegression(
        C=part.rows[0].best_c, solver="newton-cholesky", tol=1e-8
    )
    model.fit(x_ND[split.train_N], split.y_train_N)
    score_M = model.decision_function(x_ND[split.test_N])
    chance_M = 1 / (1 + np.exp(-score_M))
    for name, wanted in (
        ("average_precision", metrics.average_precision_score(split.y_test_N, score_M)),
        ("log_loss", metrics.log_loss(split.y_test_N, chance_M)),
    ):
        assert part.metrics[name] == [pytest.approx(wanted, abs=3e-3)], name


def test_every_probe_that_the_config_names_has_one_row_and_no_other(fitted):
    _, rows = fitted
    names = [(row.features, row.method, row.num_latents) for row in rows if row.dataset == "a"]
    assert sorted(names) == [
        ("activations", "logistic", 0),
        ("activations", "logistic_shuffled_labels", 0),
        ("random_sae", "logistic_l1", 4),
        ("sae", "logistic_l1", 2),
        ("sae", "logistic_l1", 4),
        ("sae", "logistic_l1_random_latents", 4),
        ("sae", "logistic_l1_shuffled_labels", 4),
    ]
    assert len({row.key() for row in rows}) == len(rows) == 2 * ALL
    kinds = {(row.features, row.control): row.kind for row in rows}
    assert kinds == {
        ("activations", ""): "baseline",
        ("sae", ""): "sae",
        ("activations", "shuffled_labels"): "other",
        ("sae", "shuffled_labels"): "other",
        ("sae", "random_latents"): "other",
        ("random_sae", "random_sae"): "other",
    }


def test_numbers_are_rounded_so_that_equal_scores_tie(fitted):
    for row in fitted[1]:
        for field in ("valid_auroc", "test_auroc", "test_f1", "test_accuracy", "best_c"):
            value = getattr(row, field)
            assert value == round(value, 12)


def test_a_second_call_fits_nothing(setting, fitted, quick):
    folder, rows = fitted
    before = objects(folder)
    left, again = setting.fit(folder, encoded=False)
    assert left == 0 and not quick
    assert repr(again) == repr(rows)
    assert objects(folder) == before


def test_a_run_cut_off_goes_on_job_by_job(setting, tmp_path, quick, monkeypatch):
    _, rows = setting.fit(tmp_path / "whole")
    written = []

    def dies_after_three(place, scored, write=results.write_job):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(write(place, scored))

    with monkeypatch.context() as patch:
        patch.setattr(results, "write_job", dies_after_three)
        with pytest.raises(KeyboardInterrupt):
            setting.fit(tmp_path / "cut")
        for thread in threading.enumerate():  # the job that was under way is not waited for
            if thread.name.startswith("ThreadPool"):
                thread.join(30)
    place = Place.parse(tmp_path / "cut") / "results"
    kept = [row for name in place.children() for row in results.read_job(place / name).rows]
    assert len(place.children()) == 3
    quick.clear()
    left, again = setting.fit(tmp_path / "cut")
    assert len(quick) == 12 - 3  # six jobs a dataset: both values of k are one
    assert left == 2 * ALL - len(kept)
    assert repr(again) == repr(rows)
    assert objects(tmp_path / "cut") == objects(tmp_path / "whole")


def test_several_workers_make_the_same_objects(setting, tmp_path, quick):
    fit = {"num_latents": (2, 4), "regime_num_latents": (4,)}
    _, rows = setting.fit(tmp_path / "one")
    _, again = setting.fit(tmp_path / "four", setting.config(fit={**fit, "workers": 4}))
    assert repr(again) == repr(rows)
    assert objects(tmp_path / "four") == objects(tmp_path / "one")


def test_jobs_made_in_another_way_lie_beside_the_first(setting, tmp_path, quick):
    """Another k, number format, seed, SAE or site is another object; nothing that is there changes."""
    fit = {"num_latents": (2, 4), "regime_num_latents": (4,)}
    _, rows = setting.fit(tmp_path)
    first, sae = objects(tmp_path), fakes.loaded_sae(SITE)
    # What changes: the config, the SAEs, and which features' probes are made anew.
    for changes, saes, anew in (
        ({"fit": {**fit, "num_latents": (2, 3, 4)}}, [sae], {"sae"}),
        ({"fit": {**fit, "dtype": "float32"}}, [sae], {"activations", "sae", "random_sae"}),
        ({"seed": 43}, [sae], {"activations", "sae", "random_sae"}),
        ({}, [fakes.loaded_sae(SITE, seed=1)], {"sae", "random_sae"}),
        ({"site": str(OTHER)}, [sae], {"activations"}),
        ({}, [dataclasses.replace(sae, site=OTHER)], {"sae", "random_sae"}),
    ):
        before = objects(tmp_path)
        left, other = setting.fit(tmp_path, setting.config(**changes), saes)
        after = objects(tmp_path)
        assert before.items() <= after.items()
        made = [
            results.read_job(Place.parse(tmp_path) / "results" / n) for n in {*after} - {*before}
        ]
        assert {row.features for part in made for row in part.rows} == anew, changes
        assert left == sum(len(part.rows) for part in made)
        keys = {dataclasses.replace(row, fingerprint="").key() for row in other}
        assert len(keys) == len(other)
    left, again = setting.fit(tmp_path)
    assert left == 0 and repr(again) == repr(rows)
    assert first.items() <= objects(tmp_path).items()


def test_latents_that_were_not_made_are_asked_for(setting, tmp_path, quick):
    with pytest.raises(FileNotFoundError, match="run the encode stage first"):
        setting.fit(tmp_path, encoded=False)
    # The baselines' jobs came first, and are kept.
    kept = [
        results.read_job(Place.parse(tmp_path) / "results" / name) for name in objects(tmp_path)
    ]
    assert {row.features for part in kept for row in part.rows} == {"activations"}


def test_shuffled_labels_find_nothing_and_true_ones_do(setting, tmp_path):
    rows = []
    for seed in range(8):
        rows += setting.fit(tmp_path, setting.config(seed=seed), saes=())[1]
    mean = {
        method: np.mean([row.test_auroc for row in rows if row.method == method])
        for method in ("logistic", "logistic_shuffled_labels")
    }
    # 16 probes on 99 test rows each: the mean's standard error is about 0.015.
    assert mean["logistic_shuffled_labels"] == pytest.approx(0.5, abs=0.06)
    assert mean["logistic"] > 0.65


def test_controls_can_be_left_out(setting, tmp_path, quick):
    fit = {"num_latents": (2, 4), "regime_num_latents": (4,), "controls": False}
    _, rows = setting.fit(tmp_path, setting.config(fit=fit))
    assert {(row.features, row.method) for row in rows} == {
        ("activations", "logistic"),
        ("sae", "logistic_l1"),
    }


def test_a_split_with_two_test_sets_has_a_row_for_each(setting, tmp_path, quick):
    """Rows come split by split, k by k, set by set, with the metrics beside them in that order."""
    here = setting.workspace(tmp_path, fakes.loaded_sae(SITE))
    dataset = here.dataset(setting.paths[0])
    (split,) = regimes.splits(dataset)
    half = len(split.test_N) // 2
    tests = [
        dataclasses.replace(
            split.tests[0], name=name, row_M=split.test_N[at], y_M=split.y_test_N[at]
        )
        for name, at in (("near", slice(half)), ("far", slice(half, None)))
    ]
    two = [dataclasses.replace(split, tests=tests, seed=seed) for seed in (1, 2)]
    (plain,) = (p.job for p in stage.plan_of(PROBING, setting.config(), here, setting.paths[0])[:1])
    jobs = [dataclasses.replace(plain, splits=tuple(two))]
    experiment = PROBING._replace(jobs=lambda *_: iter(jobs))
    planned = stage.outline(experiment, setting.config(), here, setting.paths[:1])
    stage.run(experiment, setting.config(), here, planned, "a record")
    (name,) = here.work.jobs.children()
    found = results.read_job(here.work.jobs / name)
    assert [(row.seed, row.test_set) for row in found.rows] == [
        *((1, "near"), (1, "far"), (2, "near"), (2, "far"))
    ]
    assert [row.num_test for row in found.rows[:2]] == [half, len(split.test_N) - half]
    assert all(len(values) == 4 for values in found.metrics.values())


def test_the_bars_name_datasets_and_no_users_paths(setting, tmp_path, quick, capsys):
    setting.fit(tmp_path)
    shown = capsys.readouterr().err
    for stage_name in ("encode", "fit"):
        for dataset in ("a", "b"):
            assert re.search(rf"{stage_name}: .*, {dataset}\]", shown)
    assert str(Path(setting.paths[0]).parent) not in shown


def test_levels_that_datasets_are_too_small_for_are_counted_once_a_run(
    setting, tmp_path, quick, caplog
):
    encode_section = {
        **{"regimes": ("standard", "scarcity", "covariate_shift"), "protocols": ("paper", "dedup")},
        **{"max_latents": 8, "random_latents": 8},
    }
    config = setting.config(encode=encode_section)
    with caplog.at_level("INFO", logger="absl"):
        setting.fit(tmp_path, config)
    told = [record.getMessage() for record in caplog.records]
    # 300 rows less 100 for testing are 200: 15 of the 20 sizes, up to 198, on each of two datasets.
    # Users' files have no shifted set, so that regime lacks nothing.
    assert [line for line in told if "levels skipped" in line] == [
        f"scarcity, {protocol}: 30 splits; 10 levels skipped, their datasets are too small"
        for protocol in ("paper", "dedup")
    ]
