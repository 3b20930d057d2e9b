"""Several test sets, weights, kept scores and metrics by name, through `fit_grid`."""

import dataclasses

import numpy as np
import pytest

from jaxprobe import base, metrics, regimes
from jaxprobe.probes import fit_grid, host_probe, metrics_of
from tests.probes import drawn

METHOD = "mean_difference"  # the quickest to compile
X_ND, Y_N = drawn.normal(shift=0.15)


def several(num_train: int = 40) -> base.Split:
    """A split with two test sets, the first of them in groups."""
    split = drawn.split(num_train, Y_N)
    row_M = split.test_N
    sets = (
        base.TestSet(
            name="near",
            row_M=row_M[:100],
            y_M=Y_N[row_M[:100]],
            group_M=np.random.default_rng(0).integers(3, 6, 100),
        ),
        base.TestSet(name="far", row_M=row_M[100:], y_M=1 - Y_N[row_M[100:]]),
    )
    return dataclasses.replace(split, tests=sets)


def alone(split: base.Split, number: int) -> base.Split:
    return dataclasses.replace(split, tests=(split.tests[number],))


def test_every_test_set_is_scored_as_alone():
    split = several()
    names = ("auroc", "accuracy")
    together = fit_grid(METHOD, X_ND, [split, alone(split, 1)], metrics=names)
    assert together.test_sets == (("near", "far"), ("far",))
    for number, name in enumerate(("near", "far")):
        one = fit_grid(METHOD, X_ND, [alone(split, number)], metrics=names)
        for metric in names:
            np.testing.assert_allclose(
                together.on(name)[metric][0], one.metrics[metric][0, 0], atol=1e-12
            )
    # The first set of each split, under today's names; a split without a set has NaN there.
    assert together.test_auroc.tolist() == [
        together.on("near")["auroc"][0],
        together.on("far")["auroc"][1],
    ]
    assert np.isnan(together.on("near")["auroc"][1])
    with pytest.raises(ValueError, match="`test_set` must be one of far, near; got 'test'"):
        together.on("test")


def test_kept_scores_give_every_metric_again():
    split, names = several(), tuple(metrics.METRICS)
    scores = fit_grid(METHOD, X_ND, [split], metrics=names, keep_scores=True)
    (prediction,) = scores.predictions
    assert {name: len(score_M) for name, score_M in prediction.score_M.items()} == {
        "near": 100,
        "far": len(split.tests[1].row_M),
    }
    again = metrics_of(names, split, prediction)
    for name in names:
        np.testing.assert_allclose(scores.metrics[name][0], again[name], atol=1e-12, err_msg=name)
    # Validation rows are scored by the fold that leaves them out, and their mean AUROC chose.
    auroc_F = [
        float(metrics.auroc(split.y_train_N[fold.valid], prediction.valid_score_FN[f, fold.valid]))
        for f, fold in enumerate(split.folds)
    ]
    np.testing.assert_allclose(np.mean(auroc_F), scores.valid_auroc[0], atol=1e-12)
    assert np.isnan(prediction.valid_score_FN[0, split.folds[0].train]).all()


def test_a_fold_of_one_class_sets_no_threshold():
    split = drawn.split(3, Y_N)  # too few rows to validate
    names = ("recall_at_fpr_10", "auroc")
    scores = fit_grid(METHOD, X_ND, [split], metrics=names)
    assert np.isnan(scores.metrics["recall_at_fpr_10"]).all()
    assert np.isfinite(scores.metrics["auroc"]).all()
    with pytest.raises(
        AttributeError, match="metric 'f1' was not asked for, only recall_at_fpr_10"
    ):
        _ = scores.test_f1


def test_a_new_metric_is_one_entry(monkeypatch):
    def hits(y_M, score_M, weight_M, group_M):
        return ((score_M > 0) * y_M * weight_M).sum()

    monkeypatch.setitem(metrics.METRICS, "hits", metrics.Metric(hits))
    split = several()
    scores = fit_grid(METHOD, X_ND, [split], metrics=("hits",), keep_scores=True)
    score_M = scores.predictions[0].score_M["near"]
    assert scores.metrics["hits"][0, 0] == np.sum((score_M > 0) & (split.tests[0].y_M == 1))
    # The same for a method of a library, which gives predictions and no metrics.
    fitted = host_probe.HostProbe(
        lambda x_ND, split, seed: base.Prediction(
            valid_auroc=0.5,
            score_M={test.name: x_ND[test.row_M, 0] for test in split.tests},
            valid_score_FN=np.full((len(split.folds), len(split.train_N)), np.nan),
        )
    )
    scores = fit_grid(fitted, X_ND, [split], metrics=("hits",))
    first_M = X_ND[split.tests[1].row_M, 0]
    assert scores.metrics["hits"][0, 1] == np.sum((first_M > 0) & (split.tests[1].y_M == 1))


@pytest.mark.parametrize("method", ["mean_difference", "ridge"])
def test_a_row_of_weight_two_counts_twice(method):
    # Fold by fold: a row's copy stands in the fold of the row itself.
    split = drawn.split(20, Y_N)
    weight_N = np.where(np.arange(20) % 4 == 0, 2.0, 1.0)
    twice = np.repeat(np.arange(20), weight_N.astype(int))
    folds = tuple(
        base.Fold(*(np.flatnonzero(np.isin(twice, part)) for part in fold)) for fold in split.folds
    )
    repeated = dataclasses.replace(
        split, train_N=split.train_N[twice], y_train_N=split.y_train_N[twice], folds=folds
    )
    weighted = dataclasses.replace(split, weight_train_N=weight_N)
    found, wanted, plain = (
        fit_grid(method, X_ND, [one], metrics=(), keep_scores=True)
        for one in (weighted, repeated, split)
    )
    score_M, wanted_M, plain_M = (
        one.predictions[0].score_M["test"] for one in (found, wanted, plain)
    )
    np.testing.assert_allclose(score_M, wanted_M, rtol=1e-6, atol=1e-6)
    assert np.max(np.abs(score_M - plain_M)) > 1e-3
    np.testing.assert_allclose(found.valid_auroc, wanted.valid_auroc, atol=1e-9)


def test_a_split_takes_its_first_test_set_by_todays_names():
    split = drawn.split(10, Y_N)
    assert [test.name for test in split.tests] == [regimes.TEST]
    moved = dataclasses.replace(several(), test_N=np.arange(3), y_test_N=Y_N[:3], seed=1)
    assert [test.name for test in moved.tests] == ["near", "far"]
    assert moved.test_N.tolist() == [0, 1, 2] and moved.y_test_N.tolist() == Y_N[:3].tolist()
    with pytest.raises(ValueError, match="test sets of distinct names, at least one"):
        dataclasses.replace(split, tests=())
    with pytest.raises(ValueError, match="test sets of distinct names"):
        dataclasses.replace(split, tests=split.tests * 2)
    assert repr(several()).endswith("100 rows to test on)") or "100, 2" in repr(several())
    assert repr(split.tests[0]).startswith("TestSet('test', ")
