"""The XGBoost probe against a plain loop over the library, and its random draws."""

import random
import sys

import numpy as np
import pytest

from jaxprobe.probes import grid, host_probe, xgboost_trees
from tests.probes import drawn


def published_draws(seed):
    """The published search, typed out anew."""
    rng = random.Random(seed)
    shares, penalties = np.linspace(0.7, 1.0, num=5), np.logspace(-3, 1, num=10)
    for _ in range(10):
        yield {
            "n_estimators": rng.choice([50, 100, 150, 200, 250]),
            "max_depth": rng.choice([2, 3, 4, 5]),
            "learning_rate": rng.choice(list(np.logspace(-3, -1, num=10))),
            "subsample": rng.choice(list(shares)),
            "colsample_bytree": rng.choice(list(shares)),
            "reg_alpha": rng.choice(list(penalties)),
            "reg_lambda": rng.choice(list(penalties)),
            "min_child_weight": rng.choice(list(range(1, 10))),
        }


def test_draws_are_the_published_ones():
    assert xgboost_trees.draws(42) == list(published_draws(42))
    assert xgboost_trees.draws(42) != xgboost_trees.draws(43)


@pytest.mark.parametrize("num_train", [3, 5, 150])  # no folds, each pair left out, one fold
def test_agrees_with_a_loop_over_the_library(num_train):
    xgboost = pytest.importorskip("xgboost", reason="xgboost is an optional extra")
    pytest.importorskip("sklearn", reason="scikit-learn is the reference")
    from sklearn.preprocessing import StandardScaler

    def boosted(number, x_ND, y_N, rows):
        settings = {**draws[number - 1], "eval_metric": "logloss"} if number else {}
        scaler = StandardScaler().fit(x_ND)
        model = xgboost.XGBClassifier(**settings, n_jobs=1, random_state=42)
        model.fit(scaler.transform(x_ND[rows]), y_N[rows])
        return lambda x_MD: model.predict_proba(scaler.transform(x_MD))[:, 1] - 0.5

    draws = list(published_draws(42))
    x_ND, y_N = drawn.normal()
    split = drawn.split(num_train, y_N)
    scores = grid.fit_grid(xgboost_trees.PROBE, x_ND, [split])
    wanted = drawn.protocol(x_ND, split, range(1, 11), 0, boosted)
    drawn.check(scores, wanted, atol=1e-6)


def test_without_the_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "xgboost", None)
    x_ND, y_N = drawn.normal()
    with pytest.raises(ValueError, match=r"pip install 'jaxprobe\[xgboost\]'"):
        xgboost_trees.fit(x_ND, drawn.split(5, y_N), 42)


def test_standardised_rows_are_scikit_learns():
    preprocessing = pytest.importorskip("sklearn.preprocessing", reason="the reference")
    x_ND, _ = drawn.normal()
    scaler = preprocessing.StandardScaler().fit(x_ND[:50].astype(float))
    for got, rows in zip(
        host_probe.standardised(host_probe.Rows(x_ND[:50], x_ND[50:])),
        (x_ND[:50], x_ND[50:]),
        strict=True,
    ):
        np.testing.assert_allclose(got, scaler.transform(rows.astype(float)), rtol=1e-6, atol=1e-6)
