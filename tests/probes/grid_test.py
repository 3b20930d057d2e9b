"""The whole protocol of a probe against a plain loop over scikit-learn's fits."""

import dataclasses
import functools
import math
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxprobe import base, regimes
from jaxprobe.probes import grid, lanes, logistic, logistic_l1
from tests import compiling_flags

pytest.importorskip("sklearn", reason="scikit-learn is the reference")
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score


def make_split(num_train: int, num_rows: int = 400, d_model: int = 12, seed: int = 0):
    rng = np.random.default_rng(seed)
    y_N = rng.permutation(np.arange(num_rows) % 2)
    x_ND = rng.normal(size=(num_rows, d_model)) * np.logspace(1, -1, d_model)
    x_ND[:, -3:] += 0.2 * (2 * y_N[:, None] - 1)
    train_N, test_N = regimes.draw_rows(y_N, num_train, num_rows - num_train - 1, 0.5, 42)
    split = base.Split(
        dataset="d",
        regime="scarcity",
        level=float(num_train),
        protocol="paper",
        seed=42,
        train_N=train_N,
        y_train_N=y_N[train_N],
        test_N=test_N,
        y_test_N=y_N[test_N],
        folds=regimes.validation_folds(y_N[train_N], 42),
    )
    return x_ND.astype(np.float32), split


ROOT = pathlib.Path(__file__).parents[2]
PROBE = {"l1": logistic_l1.PROBE, "l2": logistic.PROBE}


def as_for_the_protocol(penalty: str, request) -> None:
    """l2 runs in each size's own padding, l1 in one for all: tests that agree share their programs."""
    if penalty == "l1":
        request.getfixturevalue("one_program")


def plain(x_ND, split: base.Split, penalty: str) -> tuple[np.ndarray, float, dict]:
    """Valid AUROC by rising C, the chosen C and the test metrics, a fit at a time."""

    def fitted(c, rows):
        kind = {
            "l2": {"solver": "newton-cholesky"},
            "l1": {"solver": "liblinear", "l1_ratio": 1, "intercept_scaling": 1e3},
        }[penalty]
        model = LogisticRegression(C=c, tol=1e-9, max_iter=10000, **kind)
        return model.fit(x_N[rows], split.y_train_N[rows])

    x_N = x_ND[split.train_N].astype(np.float64)
    valid_R = np.zeros(len(logistic.C_GRID))
    for r, c in enumerate(logistic.C_GRID):
        scores = []
        for fold in split.folds:
            one_class = len(np.unique(split.y_train_N[fold.train])) < 2
            score = (
                0.5
                if one_class
                else roc_auc_score(
                    split.y_train_N[fold.valid],
                    fitted(c, fold.train).decision_function(x_N[fold.valid]),
                )
            )
            scores.append(score)
        valid_R[r] = np.mean(scores) if scores else math.nan
    best_c = logistic.C_GRID[::-1][np.argmax(valid_R[::-1])] if split.folds else 1.0
    model = fitted(best_c, slice(None))
    # Not the probability, which rounds to 1 and ties where the score is above 37.
    score = model.decision_function(x_ND[split.test_N])
    guess = model.predict(x_ND[split.test_N])
    test = {
        "test_auroc": roc_auc_score(split.y_test_N, score),
        "test_accuracy": accuracy_score(split.y_test_N, guess),
        "test_f1": f1_score(split.y_test_N, guess, average="weighted"),
    }
    if not split.folds:
        valid_R = np.array([roc_auc_score(split.y_train_N, model.decision_function(x_N))])
    return valid_R, best_c, test


def test_a_whole_grid_needs_few_programs_and_each_split_is_as_alone(monkeypatch):
    sizes = (2, 3, 4, 5, 7, 10, 14, 20, 28, 38, 53, 74, 103, 143, 198, 230, 250)
    x_ND, _ = make_split(2)
    splits = [make_split(size)[1] for size in sizes]
    grid._program.cache_clear()
    together = grid.fit_grid(logistic.PROBE, x_ND, splits)
    assert grid.num_programs(logistic.PROBE) == 4
    for s in (1, 5, 9, 16):
        alone = grid.fit_grid(logistic.PROBE, x_ND, [splits[s]])
        for field in ("valid_auroc", "test_auroc", "best_value"):
            assert getattr(together, field)[s] == getattr(alone, field)[0]
    assert grid.num_programs(logistic.PROBE) == 4
    # How far a size is padded changes no number either.
    monkeypatch.setattr(lanes, "BUCKETS", ((256, 36),))
    padded = grid.fit_grid(logistic.PROBE, x_ND, splits)
    for field in ("valid_auroc", "test_auroc", "best_value"):
        np.testing.assert_allclose(getattr(padded, field), getattr(together, field), atol=1e-9)


@pytest.mark.filterwarnings("ignore:Liblinear failed")
@pytest.mark.parametrize("num_train", [2, 5, 12, 40, 150])
@pytest.mark.parametrize("penalty", ["l2", "l1"])
def test_protocol_agrees_with_a_loop_over_scikit_learn(num_train, penalty, request):
    as_for_the_protocol(penalty, request)
    x_ND, split = make_split(num_train)
    scores = grid.fit_grid(PROBE[penalty], x_ND, [split])
    valid_R, best_c, test = plain(x_ND, split, penalty)
    assert np.all(scores.converged)
    np.testing.assert_allclose(scores.valid_auroc, np.max(valid_R), atol=1e-9)
    np.testing.assert_allclose(scores.best_value, best_c, rtol=1e-9)
    for name, wanted in test.items():
        np.testing.assert_allclose(getattr(scores, name), wanted, atol=2e-3, err_msg=name)


def test_ties_go_to_the_larger_c():
    x_ND, split = make_split(150)
    x_ND = (
        x_ND + 1000 * (2 * np.isin(np.arange(400), np.r_[split.train_N, split.test_N]) - 1)[:, None]
    )
    labels = np.zeros(400)
    labels[split.train_N], labels[split.test_N] = split.y_train_N, split.y_test_N
    x_ND[:, 0] = 50 * labels  # every C is perfect
    scores = grid.fit_grid(logistic.PROBE, x_ND.astype(np.float32), [split])
    assert scores.valid_auroc == 1
    np.testing.assert_allclose(scores.best_value, 1e5)


def test_every_k_equals_that_k_alone_and_more_than_there_are_reads_all():
    rng = np.random.default_rng(0)
    x_ND, split = make_split(150, d_model=60)
    z_NS = np.maximum(x_ND, 0)
    column_K = rng.permutation(60)
    fit = functools.partial(grid.fit_grid, logistic_l1.PROBE, metrics=("auroc",))
    counts = (1, 60, 100)  # the last two share a program
    together = fit(z_NS, [split], columns=[column_K], num_latents=counts)
    assert together.test_auroc.shape == (1, 3)
    for i, k in enumerate(counts[:2]):
        alone = fit(z_NS[:, column_K[:k]], [split])
        np.testing.assert_allclose(together.valid_auroc[0, i], alone.valid_auroc[0], atol=1e-9)
        np.testing.assert_allclose(together.test_auroc[0, i], alone.test_auroc[0], atol=1e-4)
    np.testing.assert_allclose(together.test_auroc[0, 2], together.test_auroc[0, 1], atol=1e-6)


def test_cores_share_the_lanes_and_change_no_number(monkeypatch):
    x_ND, _ = make_split(2)
    splits = [make_split(size)[1] for size in (3, 6, 7, 40, 41, 150, 200, 250)]
    fitted = {}
    for cores in (1, 5):
        monkeypatch.setattr(lanes, "num_cpus", lambda cores=cores: cores)
        fitted[cores] = grid.fit_grid(logistic.PROBE, x_ND, splits)
    jax.tree.map(np.testing.assert_array_equal, fitted[1], fitted[5])


def test_an_error_in_one_call_ends_all():
    begun = []

    def call(numbers):
        begun.append(numbers)
        raise RuntimeError("no more memory")

    with pytest.raises(RuntimeError, match="no more memory"):
        grid._run_all(call, [[[0], [1], [2]], [[3]]], threads=2)
    assert [1] not in begun and [2] not in begun


def test_two_rows_are_told_apart_by_their_difference():
    # Far from the origin, as activations are: there scikit-learn's solvers stop in another direction.
    x_ND, split = make_split(2, d_model=100)
    x_ND = x_ND * 100 + np.float32(1000)
    pos, neg = split.train_N[np.argsort(-split.y_train_N)]
    score_M = x_ND[split.test_N].astype(float) @ (x_ND[pos].astype(float) - x_ND[neg])
    wanted = roc_auc_score(split.y_test_N, score_M)
    scores = grid.fit_grid(logistic.PROBE, x_ND, [split], metrics=("auroc",))
    np.testing.assert_allclose(scores.test_auroc, wanted, atol=1e-9)


def test_float32_gives_the_same_aurocs():
    x_ND, split = make_split(150)
    double = grid.fit_grid(logistic.PROBE, x_ND, [split], dtype="float64")
    single = grid.fit_grid(logistic.PROBE, x_ND, [split], dtype="float32", metrics=("auroc",))
    assert single.converged
    np.testing.assert_allclose(single.valid_auroc, double.valid_auroc, atol=2e-3)
    np.testing.assert_allclose(single.test_auroc, double.test_auroc, atol=3e-3)


def test_a_split_under_shift_is_tested_on_the_shifted_rows():
    x_ND, split = make_split(150)
    shifted_MD, other = make_split(150, seed=1)
    test_N, y_test_N = np.arange(50, 90), np.arange(40) % 2
    shift = dataclasses.replace(split, test_N=test_N + len(x_ND), y_test_N=y_test_N)
    scores = grid.fit_grid(logistic.PROBE, x_ND, [shift, split], x_shift_MD=shifted_MD)
    wanted = grid.fit_grid(logistic.PROBE, np.concatenate([x_ND, shifted_MD]), [shift])
    assert scores.test_auroc[0] == wanted.test_auroc[0] != scores.test_auroc[1]
    del other


def test_a_budget_that_is_too_small_says_what_is_needed():
    x_ND, split = make_split(150)
    with pytest.raises(
        ValueError, match=r"`memory_gib` must be at least 0\.\d+ for a probe of 256"
    ):
        grid.fit_grid(logistic.PROBE, x_ND, [split], memory_gib=1e-4)


@pytest.mark.parametrize("penalty", PROBE)
def test_lanes_spread_over_devices_give_the_same_numbers(penalty, request):
    as_for_the_protocol(penalty, request)
    probe = PROBE[penalty]
    x_ND, _ = make_split(2)
    splits = [make_split(size)[1] for size in (5, 7, 10)]
    alone = grid.fit_grid(probe, x_ND, splits)
    mesh = jax.make_mesh((2,), ("probes",))
    spread = grid.fit_grid(probe, x_ND, splits, mesh=mesh)
    for field in ("valid_auroc", "test_auroc", "best_value", "converged"):
        np.testing.assert_array_equal(getattr(spread, field), getattr(alone, field), field)


EIGHT = """
import functools, jax, numpy as np
from jaxprobe.probes import grid, ridge
from tests.probes.grid_test import make_split
assert jax.device_count() == 8
x_ND, _ = make_split(2)
splits = [make_split(size, seed=0)[1] for size in (4, 5, 6, 7, 8, 9, 10, 11, 12)]
fit = functools.partial(grid.fit_grid, ridge.PROBE, x_ND, splits, metrics=("auroc",))
alone = fit()
mesh = jax.make_mesh((4, 2), ("probes", "more"))
spread = fit(mesh=mesh)
np.testing.assert_array_equal(spread.test_auroc, alone.test_auroc)
np.testing.assert_array_equal(spread.best_value, alone.best_value)
"""


def test_eight_devices_give_the_same_numbers():
    done = subprocess.run(
        [sys.executable, "-c", EIGHT],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**compiling_flags.with_devices(8), "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
