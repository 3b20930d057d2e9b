"""The saga probe against the published loop, and what it says of its fits."""

import dataclasses
import sys
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="it fits this probe")
from sklearn.linear_model import LogisticRegression

from jaxprobe.probes import grid, logistic_l1_saga
from tests.probes import drawn

X_ND, Y_N = drawn.normal()
X_ND = np.maximum(X_ND, 0)


def estimator(c, **others):
    return LogisticRegression(
        C=c, l1_ratio=1, solver="saga", **{"max_iter": 1000, "random_state": 42, **others}
    )


def fitted(c, x_ND, y_N, rows):
    # In the published code's precision, and shuffled only for the last fit.
    order_N = np.random.RandomState(42).permutation(len(y_N)) if len(rows) == len(y_N) else rows
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = estimator(c).fit(x_ND[order_N].astype(np.float32), y_N[order_N])
    return lambda x_MD: model.predict_proba(x_MD.astype(np.float32))[:, 1] - 0.5


@pytest.mark.parametrize("num_train", [3, 5, 40, 150])
def test_agrees_with_the_published_loop(num_train):
    split = drawn.split(num_train, Y_N)
    scores = grid.fit_grid(logistic_l1_saga.PROBE, X_ND, [split])
    values = np.logspace(-5, 5, 10)
    wanted = drawn.protocol(X_ND, split, values, 1.0, fitted, larger_wins=True)
    assert not scores.converged or num_train == 3  # at C = 1e5 a thousand epochs are not enough
    drawn.check(dataclasses.replace(scores, converged=True), wanted, atol=1e-6)


def test_residual_bounds_the_distance_to_the_minimum():
    # Of one scale, so that saga can arrive.
    x_ND = np.delete(X_ND, 1, axis=1)[:80].astype(float)
    x_ND, y_N = x_ND / x_ND.std(axis=0), Y_N[:80]

    def objective(model):
        margin_N = (2 * y_N - 1) * (x_ND @ model.coef_[0] + model.intercept_[0])
        return np.abs(model.coef_).sum() + np.logaddexp(0, -margin_N).sum()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = [estimator(1.0, max_iter=n, tol=1e-12).fit(x_ND, y_N) for n in (3, 100, 5000)]
    bounds = [logistic_l1_saga._bound(model, x_ND, y_N, 1.0) for model in models]
    for model, bound in zip(models, bounds, strict=True):
        assert 1 - objective(models[-1]) / objective(model) <= bound + 1e-9
    assert bounds[0] > bounds[-1] and bounds[-1] < 1e-2


def test_without_the_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ValueError, match=r"pip install 'jaxprobe\[sklearn\]'"):
        logistic_l1_saga.fit(X_ND, drawn.split(5, Y_N), 42)
