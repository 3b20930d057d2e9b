"""Every probe of the table on data that breaks the careless."""

import importlib.util

import numpy as np
import pytest

from jaxprobe.probes import grid, xgboost_trees
from jaxprobe.probes.registry import PAPER_BASELINES, PROBES
from tests.probes import drawn

LIBRARIES = {"xgboost": "xgboost", "logistic_l1_saga": "sklearn"}
ALWAYS_FINITE = (
    *("valid_auroc", "test_auroc", "test_f1", "test_accuracy", "best_value", "residual"),
    *("test_average_precision", "test_log_loss", "test_calibration_error"),
)


def awkward() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """More features than rows, and large, constant, equal or absent ones."""
    rng = np.random.default_rng(0)
    y_N = rng.permutation(np.arange(60) % 2)
    separable_ND = 1e4 * (rng.normal(size=(60, 300)) + 3 * y_N[:, None])
    separable_ND[:, ::3] = 12345.678
    rare_ND = np.zeros((60, 300))
    rare_ND[::7, :4] = rng.normal(size=(9, 4))
    found = {
        "separable": separable_ND,
        "duplicates under both labels": np.tile(rng.normal(size=(3, 300)), (20, 1)),
        "one point": np.full((60, 300), 7.25),
        "nearly all zero": rare_ND,
    }
    return {name: (x_ND.astype(np.float32), y_N) for name, x_ND in found.items()}


@pytest.mark.parametrize("name", PROBES)
def test_every_probe_on_awkward_data(name, monkeypatch):
    if name == "xgboost":  # three draws of ten: each is fitted at every fold
        few = xgboost_trees.draws(42)[:3]
        monkeypatch.setattr(xgboost_trees, "draws", lambda seed: few)
    library = LIBRARIES.get(name)
    if library and importlib.util.find_spec(library) is None:
        pytest.skip(f"needs {library}")
    for case, (x_ND, y_N) in awkward().items():
        # Leave-two-out of 12 rows is thousands of fits, for a library one after the other.
        for num_train in (2, 5 if PROBES[name].on_host else 12):
            split = drawn.split(num_train, y_N)
            scores = grid.fit_grid(PROBES[name], x_ND, [split])
            for field in ALWAYS_FINITE:
                value = getattr(scores, field)
                assert np.all(np.isfinite(value)), f"{case}, {num_train} rows: {field} is {value}"
            if case == "separable" and num_train == 12:
                assert np.all(np.asarray(scores.test_auroc) > 0.8), name


def test_the_papers_baselines_are_there_in_order():
    assert PAPER_BASELINES == ("logistic", "pca", "knn", "xgboost", "mlp")
    assert set(PAPER_BASELINES) <= set(PROBES)
