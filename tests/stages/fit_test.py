"""The fit stage against a plain loop over scikit-learn, and its restarts, refusals and controls."""

import dataclasses

import numpy as np
import pytest

from jaxprobe import datasets, regimes, table
from jaxprobe.base import Site
from jaxprobe.probes import grid
from jaxprobe.stages import encode, extract
from jaxprobe.stages import fit as stage
from tests import fakes

SITE = Site(block=1, stream="resid_post")
CONFIG = stage.FitConfig(num_latents=(2, 4), regime_num_latents=(4,))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    store: object
    config: encode.EncodeConfig
    saes: dict

    def fit(self, workdir, config=CONFIG, **changes):
        parts = {"store": self.store, "saes": self.saes, "encode_config": self.config, **changes}
        return stage.fit(
            config, parts["encode_config"], parts["store"], SITE, parts["saes"], workdir
        )


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    paths = tuple(fakes.write_csv(folder, fakes.dataset(name, 300, gap=0.5)) for name in ("a", "b"))
    store = extract.extract(
        extract.ExtractConfig(datasets=paths, sites=(str(SITE),), batch_tokens=512),
        folder,
        model=fakes.FakeModel(),
        make_forward=fakes.make_forward,
    )
    config = encode.EncodeConfig(
        datasets=paths, protocols=("paper",), max_latents=8, random_latents=8
    )
    saes = encode.encode(config, store, [fakes.loaded_sae(SITE)], folder)
    return folder, Setting(store=store, config=config, saes=saes)


@pytest.fixture
def workdir(setting, tmp_path):
    """An own work directory with the latents that all tests share."""
    (tmp_path / encode.FOLDER).symlink_to(setting[0] / encode.FOLDER)
    return tmp_path


@pytest.fixture(scope="module")
def fitted(setting):
    """Rows of one uninterrupted run, in `folder`."""
    folder, parts = setting
    added = parts.fit(folder)
    rows = table.read_rows(folder / stage.FILE_NAME)
    assert added == len(rows)
    return rows


@pytest.fixture
def calls(monkeypatch):
    """Counts calls of the probe engine."""
    made = []
    monkeypatch.setattr(grid, "fit_grid", _counted(grid.fit_grid, made))
    return made


def _counted(call, made):
    def counting(*args, **kwargs):
        made.append(1)
        return call(*args, **kwargs)

    return counting


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
    folder, parts = setting
    name = parts.config.datasets[0]
    dataset = datasets.load(name)
    (split,) = regimes.splits(dataset)
    identity = encode.latents_identity(parts.config, parts.store, parts.saes["sae"], dataset)
    latents = encode.read(encode.latents_path(folder, "sae", name), identity)
    z_NK, random_NK = (
        latents.z_NU[:, columns_PK[0, :4]] for columns_PK in (latents.top_PK, latents.random_PK)
    )
    shuffled = dataclasses.replace(split, y_train_N=stage.shuffled_labels(split))
    x_ND = parts.store.read(SITE, dataset.texts)
    wanted = {
        ("activations", "logistic", 0): plain(x_ND, split, "l2"),
        ("activations", "logistic_shuffled_labels", 0): plain(x_ND, shuffled, "l2"),
        ("sae", "logistic_l1", 4): plain(z_NK, split, "l1"),
        ("sae", "logistic_l1_random_latents", 4): plain(random_NK, split, "l1"),
    }
    rows = {
        (row.features, row.method, row.num_latents): row
        for row in fitted
        if row.dataset == split.dataset
    }
    for key, numbers in wanted.items():
        row = rows[key]
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
    assert rows["activations", "logistic", 0].test_auroc > 0.6  # there is something to find


def test_every_probe_that_the_config_names_has_one_row_and_no_other(fitted):
    names = [(row.features, row.method, row.num_latents) for row in fitted if row.dataset == "a"]
    assert sorted(names) == [
        ("activations", "logistic", 0),
        ("activations", "logistic_shuffled_labels", 0),
        ("random_sae", "logistic_l1", 4),
        ("sae", "logistic_l1", 2),
        ("sae", "logistic_l1", 4),
        ("sae", "logistic_l1_random_latents", 4),
        ("sae", "logistic_l1_shuffled_labels", 4),
    ]
    assert len({row.key() for row in fitted}) == len(fitted) == 14


def test_numbers_are_rounded_so_that_equal_scores_tie(fitted):
    for row in fitted:
        for field in ("valid_auroc", "test_auroc", "test_f1", "test_accuracy", "best_c"):
            assert getattr(row, field) == round(getattr(row, field), 12)


def test_a_second_call_fits_nothing(setting, fitted, calls):
    folder, parts = setting
    before = (folder / stage.FILE_NAME).read_bytes()
    assert parts.fit(folder) == 0
    assert not calls
    assert (folder / stage.FILE_NAME).read_bytes() == before


def test_a_run_cut_off_between_datasets_goes_on(setting, fitted, workdir, calls, monkeypatch):
    _, parts = setting
    appended = []

    def dies_after_one(path, rows, append=table.append):
        if appended:
            raise KeyboardInterrupt
        appended.append(append(path, rows))
        return appended[-1]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(table, "append", dies_after_one)
        parts.fit(workdir)
    assert {row.dataset for row in table.read_rows(workdir / stage.FILE_NAME)} == {"a"}
    calls.clear()
    assert parts.fit(workdir) == 7
    assert len(calls) == 6  # dataset b alone: both values of k are one call
    assert repr(table.read_rows(workdir / stage.FILE_NAME)) == repr(fitted)


def test_one_more_k_adds_its_rows_only(setting, fitted, workdir, calls):
    _, parts = setting
    # Fits with other neighbours may differ in the last digits; what is written stays.
    old = [dataclasses.replace(row, test_auroc=row.test_auroc + 1e-9) for row in fitted]
    table.append(workdir / stage.FILE_NAME, old)
    more = dataclasses.replace(CONFIG, num_latents=(2, 3, 4))
    assert parts.fit(workdir, more) == 2
    assert len(calls) == 2
    rows = table.read_rows(workdir / stage.FILE_NAME)
    assert [(row.dataset, row.num_latents) for row in rows[-2:]] == [("a", 3), ("b", 3)]
    assert repr(rows[:-2]) == repr(old)


def test_results_made_in_another_way_are_refused(setting, fitted, workdir, calls):
    _, parts = setting
    parts.fit(workdir)
    calls.clear()
    with pytest.raises(table.TableError, match="use another work directory, or delete that file"):
        parts.fit(workdir, dataclasses.replace(CONFIG, dtype="float32"))
    other = {**parts.saes, "sae": fakes.loaded_sae(SITE, seed=1)}
    with pytest.raises(table.TableError, match="logistic_l1 on a with fingerprint"):
        parts.fit(workdir, saes=other)
    assert not calls


def test_latents_made_in_another_way_are_refused(setting, workdir):
    _, parts = setting
    other = {"sae": fakes.loaded_sae(SITE, seed=1)}
    with pytest.raises(ValueError, match="run the encode stage again"):
        parts.fit(workdir, saes=other)
    # The splits' order says which latents are whose.
    swapped = dataclasses.replace(parts.config, protocols=("dedup", "paper"))
    with pytest.raises(ValueError, match="run the encode stage again"):
        parts.fit(workdir, encode_config=swapped)
    moved = {"sae": fakes.loaded_sae(Site(block=2, stream="resid_post"))}
    with pytest.raises(ValueError, match=r"reads blocks.2.resid_post, the baselines read"):
        parts.fit(workdir, saes=moved)


def test_shuffled_labels_find_nothing_and_true_ones_do(setting, tmp_path):
    _, parts = setting
    for seed in range(8):
        config = dataclasses.replace(parts.config, seed=seed)
        parts.fit(tmp_path, encode_config=config, saes={})
    rows = table.read_rows(tmp_path / stage.FILE_NAME)
    mean = {
        method: np.mean([row.test_auroc for row in rows if row.method == method])
        for method in ("logistic", "logistic_shuffled_labels")
    }
    # 16 probes on 99 test rows each: the mean's standard error is about 0.015.
    assert mean["logistic_shuffled_labels"] == pytest.approx(0.5, abs=0.06)
    assert mean["logistic"] > 0.65


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"solver": "fast"}, "unknown solver 'fast'; known: .*converged"),
        ({"dtype": "float16"}, "unknown dtype 'float16'; known: float64"),
        ({"penalties": ("l3",)}, "unknown penalty 'l3'"),
        ({"baselines": ("logit",)}, "unknown method 'logit'; known: logistic"),
        ({"latent_methods": ("kn",)}, "unknown method 'kn'; known: knn"),
        ({"memory_gib": 0.0}, "`memory_gib` must be above zero"),
        ({"num_latents": (16,)}, r"`num_latents` must lie between 1 and encode.max_latents = 8"),
        ({"num_latents": (0,)}, "got 0"),
    ],
)
def test_configs_that_cannot_work_are_refused(setting, workdir, changes, message):
    _, parts = setting
    with pytest.raises(ValueError, match=message):
        parts.fit(workdir, dataclasses.replace(CONFIG, **changes))
    assert not (workdir / stage.FILE_NAME).exists()


def test_controls_can_be_left_out(setting, workdir):
    _, parts = setting
    parts.fit(workdir, dataclasses.replace(CONFIG, controls=False))
    rows = table.read_rows(workdir / stage.FILE_NAME)
    assert {(row.features, row.method) for row in rows} == {
        ("activations", "logistic"),
        ("sae", "logistic_l1"),
    }
