"""Splits of the 113 published datasets: rows, levels and counts of the published package; no leaks under dedup.

`python -m tests.real_splits_test` compares every level of every dataset at several seeds (minutes).
"""

import ast
import collections
import functools
import math

import numpy as np
import pytest

from jaxprobe import assets, base, datasets, regimes

COUNTS = {"standard": 113, "scarcity": 2247, "imbalance": 2147, "label_noise": 1243}
FUNCTIONS = (
    *("get_train_test_indices", "corrupt_ytrain", "get_training_sizes", "get_class_imbalance"),
    *("get_classimabalance_num_train", "get_corrupt_frac"),
)


def peer_functions(wheel) -> dict:
    """The package's split functions, taken out of its source: they need NumPy alone."""
    tree = ast.parse(assets.open_member(wheel, "sae_probes/utils_data.py").decode())
    tree.body = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in FUNCTIONS]
    names: dict = {"np": np, "get_yvals": np.asarray}  # a dataset is named by its labels here
    exec(compile(tree, "utils_data.py", "exec"), names)
    return names


def expected(peer: dict, y_N: np.ndarray, seed: int) -> dict[tuple[str, float], functools.partial]:
    """By regime and level, in order: a call that draws (train rows, test rows, training labels)."""
    draw, num_rows = peer["get_train_test_indices"], len(y_N)
    standard = min(num_rows - 100, 1024)

    def rows(num_train, num_test, ratio, noise=None):
        train, test = draw(y_N, num_train, num_test, ratio, seed)
        y_train = y_N[train]
        return (
            train,
            test,
            y_train if noise is None else peer["corrupt_ytrain"](y_train, noise, seed),
        )

    calls = {}

    def add(regime, level, *args):
        calls[regime, level] = functools.partial(rows, *args)

    add("standard", math.inf, standard, num_rows - standard - 1, 0.5)
    for size in peer["get_training_sizes"]():
        if size <= num_rows - 100:
            add("scarcity", size, size, num_rows - size - 1, 0.5)
    num_train, num_test = peer["get_classimabalance_num_train"](y_N)
    for ratio in peer["get_class_imbalance"]():
        add("imbalance", ratio, num_train, num_test, ratio)
    for noise in peer["get_corrupt_frac"]():
        add("label_noise", noise, standard, num_rows - standard - 1, 0.5, noise)
    return calls


def compare(peer: dict, data: base.TextDataset, seed: int, part: slice = slice(None)) -> list:
    """Asserts equal levels, and equal rows and labels at a part of them; returns all splits."""
    calls = expected(peer, data.y_N, seed)
    found = {
        (regime, math.inf if math.isnan(split.level) else split.level): split
        for regime in COUNTS
        for split in regimes.splits(data, regime, seed=seed)
    }
    assert [regime for regime, _ in found] == [regime for regime, _ in calls]
    assert [level for _, level in found] == pytest.approx([level for _, level in calls])
    chosen = list(zip(found.values(), calls.values(), strict=True))[part]
    for split, call in chosen:
        train, test, y_train = call()
        where = f"{data.name} {split.regime} {split.level} {seed}"
        np.testing.assert_array_equal(split.train_N, train, where)
        np.testing.assert_array_equal(split.test_N, test, where)
        np.testing.assert_array_equal(split.y_train_N, y_train, where)
        np.testing.assert_array_equal(split.y_test_N, data.y_N[test], where)
    assert len(chosen) >= 6
    return list(found.values())


def compare_shift(peer: dict, name: str, seed: int) -> None:
    """The same for covariate shift: its training rows are drawn from the first 1,500."""
    data, shifted = datasets.load(name), datasets.load_shifted(name)
    (split,) = regimes.splits(data, "covariate_shift", seed=seed, shifted=shifted)
    train, _ = peer["get_train_test_indices"](data.y_N[:1500], 1024, 0, 0.5, seed)
    np.testing.assert_array_equal(split.train_N, train)
    np.testing.assert_array_equal(split.y_train_N, data.y_N[train])
    np.testing.assert_array_equal(split.test_N, len(data.texts) + np.arange(len(shifted.texts)))
    np.testing.assert_array_equal(split.y_test_N, shifted.y_N)


@pytest.fixture(scope="module")
def peer(sae_probes_wheel):
    return peer_functions(sae_probes_wheel)


@pytest.fixture(scope="module")
def published(sae_probes_wheel):
    return [datasets.load(name) for name in datasets.names()]


def test_every_dataset_has_the_packages_rows_in_the_published_numbers(peer, published):
    # Eight levels of each dataset, others in the next; all 51 of one dataset at other seeds.
    counts, leaking = collections.Counter(), 0
    for k, data in enumerate(published):
        splits = compare(peer, data, 42, slice(k % 7, None, 7))
        counts.update(split.regime for split in splits)
        leaking += regimes.leak_rate(data.texts, splits[0]) > 0
    assert counts == COUNTS
    assert leaking == 107  # of 113, as PROTOCOL section 1 counts them
    for number, seed in ((17, 7), (-1, 0)):
        assert len(compare(peer, published[number], seed)) >= 40


def test_the_eight_shifted_sets_have_the_packages_rows(peer):
    assert len(datasets.shifted_names()) == 8
    for name in datasets.shifted_names():
        for seed in (42, 0, 7):
            compare_shift(peer, name, seed)


class Texts:
    """Rows by the number of their text, and which texts carry both labels."""

    def __init__(self, *parts: base.TextDataset):
        number: dict[str, int] = {}
        self.of_part = [
            np.array([number.setdefault(text, len(number)) for text in part.texts])
            for part in parts
        ]
        self.torn_of_part = []
        for part, number_N in zip(parts, self.of_part, strict=True):
            seen = [np.unique(number_N[part.y_N == label]) for label in (0, 1)]
            self.torn_of_part.append(np.isin(number_N, np.intersect1d(*seen)))

    def check(self, split: base.Split) -> None:
        """No text twice, so none on two sides; none of both labels; folds share no row."""
        # A shifted set's rows stand behind the dataset's.
        behind = len(self.of_part[0]) if len(self.of_part) > 1 else 0
        rows = (split.train_N, split.test_N - behind)
        sides = [self.of_part[0], self.of_part[-1]]
        used = np.concatenate([side[part] for side, part in zip(sides, rows, strict=True)])
        assert len(np.unique(used)) == len(used), split
        assert not self.torn_of_part[0][split.train_N].any()
        assert not self.torn_of_part[-1][rows[1]].any()
        for fold in split.folds:
            both = np.concatenate([fold.train, fold.valid])
            np.testing.assert_array_equal(np.sort(both), np.arange(len(split.train_N)))


def test_dedup_never_leaks(published):
    for data in published:
        texts = Texts(data)
        for regime in COUNTS:
            for split in regimes.splits(data, regime, protocol="dedup"):
                texts.check(split)


def test_dedup_never_leaks_into_a_shifted_set(sae_probes_wheel):
    for name in datasets.shifted_names():
        data, shifted = datasets.load(name), datasets.load_shifted(name)
        (split,) = regimes.splits(data, "covariate_shift", protocol="dedup", shifted=shifted)
        Texts(data, shifted).check(split)


if __name__ == "__main__":
    functions = peer_functions(assets.fetch("pypi://sae-probes"))
    for every_seed in (42, 0, 7):
        total = sum(len(compare(functions, datasets.load(n), every_seed)) for n in datasets.names())
        for shifted_name in datasets.shifted_names():
            compare_shift(functions, shifted_name, every_seed)
        print(f"seed {every_seed}: {total} splits and 8 shifted ones are the package's")
