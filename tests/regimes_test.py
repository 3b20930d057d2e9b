"""Splits against the published package's own functions and scikit-learn, row for row."""

import ast
import copy
import dataclasses
import math

import numpy as np
import pytest

from jaxprobe import assets, base, regimes
from tests import fakes

SIZES = (728, 786, 1000, 1062, 1494, 2500, 5000)


def dataset(y_N, texts=None) -> base.TextDataset:
    texts = tuple(f"prompt {i}" for i in range(len(y_N))) if texts is None else tuple(texts)
    y_N = np.asarray(y_N, np.int32)
    return base.TextDataset(name="d", texts=texts, y_N=y_N, label_names=("0", "1"), source="test")


def balanced(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.arange(size) % 2)


@pytest.fixture(scope="session")
def peer(sae_probes_wheel):
    """The package's split functions, taken out of its source: they need NumPy alone."""
    source = assets.open_member(sae_probes_wheel, "sae_probes/utils_data.py").decode()
    wanted = ("get_train_test_indices", "corrupt_ytrain", "get_training_sizes")
    tree = ast.parse(source)
    tree.body = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in wanted
    ]
    names: dict = {"np": np}
    exec(compile(tree, "utils_data.py", "exec"), names)
    return names


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", [42, 0, 7])
def test_standard_rows_are_the_packages(peer, size, seed):
    y_N = balanced(size, seed)
    num_train = min(size - 100, 1024)
    wanted = peer["get_train_test_indices"](y_N, num_train, size - num_train - 1, 0.5, seed)
    (split,) = regimes.splits(dataset(y_N), seed=seed)
    np.testing.assert_array_equal(split.train_N, wanted[0])
    np.testing.assert_array_equal(split.test_N, wanted[1])
    np.testing.assert_array_equal(split.y_train_N, y_N[wanted[0]])
    np.testing.assert_array_equal(split.y_test_N, y_N[wanted[1]])
    assert math.isnan(split.level)


@pytest.mark.parametrize("size", SIZES)
def test_scarcity_rows_are_the_packages(peer, size):
    y_N = balanced(size)
    found = regimes.splits(dataset(y_N), "scarcity")
    levels = [level for level in peer["get_training_sizes"]() if level <= size - 100]
    assert [split.level for split in found] == levels
    for split, level in zip(found, levels, strict=True):
        wanted = peer["get_train_test_indices"](y_N, level, size - level - 1, 0.5, 42)
        np.testing.assert_array_equal(split.train_N, wanted[0])
        np.testing.assert_array_equal(split.test_N, wanted[1])


@pytest.mark.parametrize("size", SIZES)
def test_imbalance_rows_are_the_packages(peer, size):
    y_N = balanced(size)
    total = int(min((size / 2) / 0.95, (size / 2) / 0.95))
    num_train = min(total - 100, 1024)
    num_test = max(100, total - num_train - 1)
    found = regimes.splits(dataset(y_N), "imbalance")
    assert len(found) == 19
    for split, ratio in zip(found, np.linspace(0.05, 0.95, 19), strict=True):
        wanted = peer["get_train_test_indices"](y_N, num_train, num_test, ratio, 42)
        np.testing.assert_array_equal(split.train_N, wanted[0])
        np.testing.assert_array_equal(split.test_N, wanted[1])
        assert split.level == pytest.approx(ratio)


def test_noise_flips_the_packages_labels_and_leaves_test_clean(peer):
    y_N = balanced(2000)
    (clean,) = regimes.splits(dataset(y_N))
    found = regimes.splits(dataset(y_N), "label_noise")
    assert [split.level for split in found] == pytest.approx(np.linspace(0, 0.5, 11))
    for split in found:
        wanted = peer["corrupt_ytrain"](clean.y_train_N, split.level, 42)
        np.testing.assert_array_equal(split.y_train_N, wanted)
        np.testing.assert_array_equal(split.y_test_N, y_N[split.test_N])


def test_covariate_shift_trains_on_the_packages_rows(peer):
    y_N = balanced(5000)
    wanted, _ = peer["get_train_test_indices"](y_N[:1500], 1024, 0, 0.5, 42)
    shifted = dataset([0, 1, 1], ["a", "b", "c"])
    (split,) = regimes.splits(dataset(y_N), "covariate_shift", shifted=shifted)
    np.testing.assert_array_equal(split.train_N, wanted)
    # The rows of the shifted set stand behind the dataset's own.
    np.testing.assert_array_equal(split.test_N, [5000, 5001, 5002])
    np.testing.assert_array_equal(split.y_test_N, [0, 1, 1])
    assert split.num_rows == 5003 and [test.name for test in split.tests] == ["shifted"]
    table = base.joined(dataset(y_N), shifted)
    assert [table.texts[row] for row in split.test_N] == ["a", "b", "c"]
    np.testing.assert_array_equal(table.columns["part"].code_N[split.test_N], 1)
    np.testing.assert_array_equal(table.columns["part"].code_N[split.train_N], 0)


@pytest.mark.parametrize("size", [13, 20, 64, 127])
@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.9])
def test_stratified_folds_are_scikit_learns(size, ratio):
    selection = pytest.importorskip("sklearn.model_selection", reason="the reference")
    y_N = (np.random.default_rng(size).random(size) < ratio).astype(int)
    y_N[:8] = (0, 1, 0, 1, 0, 1, 0, 1)
    y_N[8:13] = 1
    cv = selection.StratifiedKFold(6, shuffle=True, random_state=42)
    with pytest.warns(UserWarning) if min(np.bincount(y_N)) < 6 else _nothing():
        wanted = [
            (train, valid)
            for train, valid in cv.split(np.zeros(size), y_N)
            if len(np.unique(y_N[valid])) == 2
        ]
    found = regimes.validation_folds(y_N, 42)
    assert len(found) == len(wanted)
    for fold, (train, valid) in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(fold.train, train)
        np.testing.assert_array_equal(fold.valid, valid)


class _nothing:
    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False


def test_small_training_sets_leave_two_out_or_nothing():
    assert regimes.validation_folds(np.array([0, 1, 1]), 42) == ()
    found = regimes.validation_folds(np.array([0, 1, 1, 0]), 42)
    assert [fold.valid.tolist() for fold in found] == [[0, 1], [0, 2], [1, 3], [2, 3]]
    assert found[0].train.tolist() == [2, 3]


@pytest.mark.parametrize(("size", "held"), [(128, 25), (499, 99), (1024, 100)])
def test_large_training_sets_hold_out_their_last_rows(size, held):
    (fold,) = regimes.validation_folds(balanced(size), 42)
    np.testing.assert_array_equal(fold.valid, np.arange(size - held, size))
    np.testing.assert_array_equal(fold.train, np.arange(size - held))


@pytest.mark.parametrize("regime", ["standard", "scarcity", "imbalance", "label_noise"])
def test_dedup_never_shares_a_text_and_drops_conflicts(regime):
    rng = np.random.default_rng(3)
    number_N = rng.integers(0, 900, 3000)
    y_N = number_N % 2
    y_N[number_N < 30] = rng.integers(0, 2, np.sum(number_N < 30))  # both labels
    texts = [f"prompt {number}" for number in number_N]
    conflicting = {
        text for text in texts if len({y for t, y in zip(texts, y_N, strict=True) if t == text}) > 1
    }
    found = regimes.splits(dataset(y_N, texts), regime, protocol="dedup")
    assert found and conflicting
    for split in found:
        train = {texts[row] for row in split.train_N}
        test = {texts[row] for row in split.test_N}
        assert len(train) == len(split.train_N) and len(test) == len(split.test_N)
        assert not train & test and not (train | test) & conflicting
        assert regimes.leak_rate(tuple(texts), split) == 0


def test_leak_rate_counts_test_rows():
    split = regimes.splits(dataset(balanced(300)))[0]
    texts = ["same"] * 300
    assert regimes.leak_rate(tuple(texts), split) == 1


def test_a_dataset_that_is_too_small_has_no_split():
    assert regimes.splits(dataset(balanced(90))) == ()
    assert regimes.splits(dataset(balanced(90)), "scarcity") == ()


def test_a_level_that_leaves_one_class_to_train_on_is_skipped():
    found = regimes.splits(dataset(balanced(220)), "imbalance")  # 15 rows: 14.25 positives are 15
    levels = [split.level for split in found]
    assert levels == pytest.approx(np.linspace(0.05, 0.95, 19)[:-1])
    assert all(set(split.y_train_N) == {0, 1} for split in found)


def test_bad_names_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match="unknown regime 'scarce'; known: scarcity"):
        regimes.splits(dataset(balanced(300)), "scarce")
    with pytest.raises(ValueError, match="shifted"):
        regimes.splits(dataset(balanced(300)), "covariate_shift")


def test_dedup_compares_as_it_is_asked():
    composed, apart = "caf\u00e9", "cafe\u0301"
    texts = [composed, apart, f" {composed}\n", "cafe", *(f"t{n}" for n in range(250))]
    y_N = np.array([1, 1, 1, 0, *([0, 1] * 125)], np.int32)
    assert regimes.distinct_rows(tuple(texts), y_N).tolist() == list(range(254))
    kept = regimes.distinct_rows(tuple(texts), y_N, "normalised")
    assert kept.tolist() == [0, *range(3, 254)]
    conflicting = np.array([1, 0, 1, 0, *([0, 1] * 125)], np.int32)
    assert regimes.distinct_rows(tuple(texts), conflicting, "normalised")[0] == 3
    data = base.TextDataset(name="x", texts=texts, y_N=y_N)
    exact, loose = (
        regimes.splits(data, protocol="dedup", dedup_by=by)[0] for by in ("exact", "normalised")
    )
    assert exact == regimes.splits(data, protocol="dedup")[0]
    rows = {*loose.train_N.tolist(), *loose.test_N.tolist()}
    assert not rows & {1, 2}
    with pytest.raises(ValueError, match="`dedup_by` has no effect under protocol paper"):
        regimes.splits(data, dedup_by="normalised")
    with pytest.raises(ValueError, match="unknown dedup_by 'nfc'; known: exact, normalised"):
        regimes.splits(data, dedup_by="nfc")
    # A shifted set's prompts are compared in the same way.
    shifted = base.TextDataset(name="x", texts=(apart, "u", "v"), y_N=[1, 0, 1])
    asked = {"protocol": "dedup", "shifted": shifted}
    (exact,), (loose,) = (
        regimes.splits(data, "covariate_shift", dedup_by=by, **asked)
        for by in ("exact", "normalised")
    )
    assert len(exact.train_N) > 0 and not {*loose.train_N.tolist()} & {0, 1, 2}


def test_an_empty_answer_says_why():
    data = base.TextDataset(name="mine", texts=[f"t{n}" for n in range(10)], y_N=[0, 1] * 5)
    found = regimes.splits(data)
    assert found == () and not found and list(found) == []
    with pytest.raises(
        IndexError, match=r"'mine' has no split in regime standard: 10 rows \(5 and 5\)"
    ):
        found[0]
    assert found[:1] == ()
    assert copy.deepcopy(found) == ()


def test_a_split_of_chosen_rows():
    """As a regime's own where the rows are the regime's; with groups, weights and several test sets."""
    data = fakes.dataset("a", 300)
    (drawn,) = regimes.splits(data)
    made = regimes.split_of(data, drawn.train_N, {"test": drawn.test_N}, regime="standard")
    assert made.digest == drawn.digest
    code_N = np.arange(300, dtype=np.int32) % 3
    grouped = dataclasses.replace(
        data, columns={"word": base.Column(code_N=code_N, names=("x", "y", "z"))}
    )
    weight_N, y_N = np.linspace(1, 2, 40), 1 - np.asarray(data.y_N)[:40]
    made = regimes.split_of(
        *(grouped, range(40), {"near": range(40, 90), "far": range(90, 300)}),
        **{"regime": "own", "level": 0.5, "group": "word"},
        **{"y_train_N": y_N, "weight_train_N": weight_N},
    )
    assert [test.name for test in made.tests] == ["near", "far"]
    np.testing.assert_array_equal(made.tests[1].group_M, code_N[90:])
    np.testing.assert_array_equal(made.tests[1].y_M, np.asarray(data.y_N)[90:])
    np.testing.assert_array_equal(made.y_train_N, y_N)
    np.testing.assert_array_equal(made.weight_train_N, weight_N)
    assert len(made.folds) == len(regimes.validation_folds(y_N, 42)) and made.num_rows == 300
    for rows, words in (([300], "got 300 to 300"), ([], "at least one"), ([0.5], "row number")):
        with pytest.raises(ValueError, match=rf"`tests\['test'\]` must .*{words}"):
            regimes.split_of(data, range(40), {"test": rows}, regime="own")
