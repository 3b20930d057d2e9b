"""What `fit_probe` and `fit_grid` take, and what they refuse before anything is fitted."""

import dataclasses

import numpy as np
import pytest

from jaxprobe import base, regimes
from jaxprobe.probes import fit_grid, fit_probe
from jaxprobe.probes.fit_probe import table_of

METHOD = "mean_difference"  # the quickest to compile


def rows(num_train: int = 30, num_test: int = 20):
    rng = np.random.default_rng(0)
    y_N = np.arange(num_train + num_test) % 2
    x_ND = (rng.normal(size=(len(y_N), 4)) + y_N[:, None]).astype(np.float32)
    return x_ND[:num_train], y_N[:num_train], x_ND[num_train:], y_N[num_train:]


def grid_of(**changes):
    y_N = np.arange(240) % 2
    data = base.TextDataset(
        name="d",
        texts=tuple(map(str, range(240))),
        y_N=y_N,
        label_names=("a", "b"),
        source="test",
    )
    (split,) = regimes.splits(data)
    x_ND = np.random.default_rng(0).normal(size=(240, 4)).astype(np.float32) + y_N[:, None]
    return x_ND.astype(np.float32), dataclasses.replace(split, **changes)


def test_labels_and_features_of_every_kind_give_the_same_probe():
    x_train, y_train, x_test, y_test = rows()
    wanted = fit_probe(METHOD, x_train, y_train, x_test, y_test)
    for kind in (lambda y: y.astype(bool), lambda y: 2 * y - 1, lambda y: np.where(y, "b", "a")):
        assert fit_probe(METHOD, x_train, kind(y_train), x_test, kind(y_test)) == wanted
    x_ND, split = table_of(x_train, y_train, x_test, y_test, 42)
    assert fit_grid(METHOD, x_ND, [split]).test_auroc[0] == wanted.test_auroc
    torch = pytest.importorskip("torch", reason="its tensors are read")
    tensors = [torch.tensor(part) for part in rows()]
    tensors[0].requires_grad_()
    assert fit_probe(METHOD, *tensors) == wanted
    narrow = [tensors[0].bfloat16(), tensors[1], tensors[2].bfloat16(), tensors[3]]
    rounded = [narrow[0].detach().float().numpy(), y_train, narrow[2].float().numpy(), y_test]
    assert fit_probe(METHOD, *narrow) == fit_probe(METHOD, *rounded)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"y_train": lambda y: np.where(y, 1.0, 0.2)}, "`y_train` must hold labels, whole numbers"),
        ({"y_train": lambda y: y + 0.9}, "`y_train` must hold labels, whole numbers"),
        (
            {"y_train": lambda y: np.arange(len(y)) % 3},
            "`y_train` must hold labels 0 and 1, or two",
        ),
        ({"y_train": np.ones_like}, "`y_train` must hold both classes"),
        ({"y_train": lambda y: y[:-1]}, r"`y_train` must have shape \(30\), got \(29,\)"),
        ({"y_test": lambda y: 2 * y}, "`y_test` must hold the labels 0 and 1 only, got 2"),
        ({"x_test": lambda x: x[:, :3]}, "train and test must agree"),
        ({"x_test": lambda x: x * np.nan}, "`x_test` must be finite"),
        (
            {"x_train": lambda x: x.astype(float) * 1e300},
            "`x_train` must be in the range of float32",
        ),
        ({"seed": lambda _: -1}, "`seed` must be a whole number"),
    ],
)
def test_fit_probe_refuses_what_cannot_be_meant(change, said):
    given = dict(zip(("x_train", "y_train", "x_test", "y_test"), rows(), strict=True))
    given["seed"] = 42
    with pytest.raises(ValueError, match=said):
        fit_probe(METHOD, **(given | {name: make(given[name]) for name, make in change.items()}))


@pytest.mark.parametrize(
    ("method", "others", "said"),
    [
        ("logistic", {"num_latents": 4}, "`num_latents` has no effect on activations"),
        ("logistic", {"ranking": "raw"}, "`ranking` has no effect on activations"),
        ("ridge", {"penalty": "l2"}, "`penalty` applies to `logistic` only, got it for ridge"),
        ("logistic_l1", {"penalty": "l1"}, "`penalty` applies to `logistic` only"),
        ("xgboost", {"dtype": "float32"}, "`dtype` has no effect on xgboost"),
        ("logistic", {"features": "latents", "num_latents": 0}, "`num_latents` must be a whole"),
        ("logistic", {"features": "latents", "num_latents": 2.5}, "`num_latents` must be a whole"),
    ],
)
def test_arguments_without_an_effect_are_refused(method, others, said):
    with pytest.raises(ValueError, match=said):
        fit_probe(method, *rows(), **others)


def test_fit_grid_refuses_a_name_that_is_none():
    x_ND, split = grid_of()
    with pytest.raises(ValueError, match="unknown method 'logistics'; known: logistic"):
        fit_grid("logistics", x_ND, [split])


@pytest.mark.parametrize("num_rows", [10, 100, 239, 241])
def test_features_of_another_number_of_rows_are_refused(num_rows):
    x_ND, split = grid_of()
    x_ND = np.resize(x_ND, (num_rows, 4))
    with pytest.raises(ValueError, match=f"for each of the 240 examples .* got {num_rows} rows"):
        fit_grid(METHOD, x_ND, [split])
    # A split that does not say how many rows there are still says which it reads.
    if num_rows < 239:
        with pytest.raises(ValueError, match="does every example have its row of features"):
            fit_grid(METHOD, x_ND, [dataclasses.replace(split, num_rows=None)])


@pytest.mark.parametrize(
    ("changes", "others", "said"),
    [
        ({"train_N": np.array([-1, 0])}, {}, "train_N of d .* must lie between 0 and 239, got -1"),
        ({"test_N": np.array([0.5, 1])}, {}, "test_N of d .* must be one axis of whole numbers"),
        ({"y_test_N": np.array([0, 1])}, {}, "must have one entry per example"),
        ({"y_test_N": 2 * np.ones(239, int)}, {}, "must hold the labels 0 and 1 only"),
        (
            {"folds": (base.Fold([0, 1], [1, 2]),)},
            {},
            "must not validate on rows that it trains on",
        ),
        ({"folds": (base.Fold([0, 1], [1024]),)}, {}, "folds' valid rows"),
        ({"regime": "covariate_shift", "num_rows": 300}, {}, "append the rows of the shifted set"),
        ({}, {"x_shift_MD": np.ones((9, 4))}, "for each of the 240 examples .* got 249 rows"),
        ({"weight_train_N": np.ones(9)}, {}, r"weight_train_N of d .* must have shape \(\d+\)"),
        ({"weight_train_N": -np.ones(140)}, {}, "must be finite and not negative"),
        ({"weight_train_N": np.zeros(140)}, {}, "must leave both classes some weight"),
        ({"weight_train_N": np.ones(140)}, {"probe": "knn"}, "no effect on a method that counts"),
        ({}, {"metrics": ("auc",)}, "unknown metric 'auc'; known: auroc, f1"),
        ({}, {"metrics": "auroc"}, r"write \('auroc',\)"),
        ({}, {"x_ND": np.full((240, 4), np.nan)}, "`x_ND` must be finite"),
        ({}, {"num_latents": (4,)}, "`num_latents` has no effect without `columns`"),
        ({}, {"columns": [[0]]}, "`num_latents` must hold at least one number of columns"),
        ({}, {"columns": [[0], [1]], "num_latents": (1,)}, "one list of columns per split, got 2"),
        ({}, {"columns": [[0, 4]], "num_latents": (1,)}, "`columns` must lie between 0 and 3"),
        ({}, {"columns": [[0]], "num_latents": (0,)}, "`num_latents` must be a whole number"),
        ({}, {"splits": []}, "`splits` must hold at least one split"),
        ({}, {"splits": None}, "`splits` must be a sequence of Split, .* got NoneType"),
        ({}, {"splits": 3}, "`splits` must be a sequence of Split, .* got int"),
        ({}, {"probe": None}, "unknown method None; known: "),
        ({}, {"columns": 3, "num_latents": 1}, "`columns` must be a sequence of lists of columns"),
        ({}, {"num_latents": None}, "`num_latents` has no effect without `columns`"),
        ({}, {"columns": [[0]], "num_latents": 2.5}, "`num_latents` must be a whole number"),
        ({}, {"memory_gib": float("nan")}, "`memory_gib` must be a finite number above 0, got nan"),
        ({}, {"memory_gib": "4"}, "`memory_gib` must be a finite number above 0, got '4'"),
        ({}, {"mesh": 1}, "`mesh` must be a jax.sharding.Mesh or None, got 1"),
        (
            {},
            {"probe": "xgboost", "dtype": "float32"},
            "`dtype` has no effect on a method of a host",
        ),
        ({}, {"probe": "xgboost", "memory_gib": 2}, "`memory_gib` has no effect"),
        ({}, {"splits": ["standard"]}, "`splits` must be a sequence of Split"),
    ],
)
def test_fit_grid_refuses_what_cannot_be_meant(changes, others, said):
    x_ND, split = grid_of(**changes)
    with pytest.raises(ValueError, match=said):
        fit_grid(**({"probe": METHOD, "x_ND": x_ND, "splits": [split]} | others))


def test_fit_grid_takes_splits_columns_and_numbers_of_latents_of_every_kind():
    x_ND, split = grid_of()
    columns = [np.array([2, 0, 1])]
    wanted = fit_grid(METHOD, x_ND, [split], columns=columns, num_latents=(2,))
    for splits, given, num_latents in (
        ((s for s in [split]), (c for c in columns), 2),
        ((split,), columns, np.array([2])),
        ([split], [[2, 0, 1]], np.int64(2)),
    ):
        got = fit_grid(METHOD, x_ND, splits, columns=given, num_latents=num_latents)
        np.testing.assert_array_equal(got.test_auroc, wanted.test_auroc)
