"""Splits as lanes: one probe of one split in padded arrays, and which lanes share a program."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxprobe import base, metrics
from jaxprobe.probes.probe import ROWS_AT_ONCE, Probe
from jaxprobe.probes.running import Lane

# (training rows, folds) of a program: leave-two-out has up to 36 folds, six-fold 6, hold-out one.
BUCKETS = ((16, 36), (64, 6), (128, 6), (256, 1), (512, 1), (1024, 1))
ROW_BUCKET = 1024  # beyond the last bucket, training rows are padded to multiples of this
TEST_BUCKET = 5120  # rows of features and of tests are padded to multiples of this
LATENT_BUCKETS = (16, 128, 512)
MAX_VALUES = 10  # candidates of a hyperparameter
MAX_LANES = 64


def make_lane(
    probe: Probe, split: base.Split, num_features: int, column_K: np.ndarray, count: int
) -> Lane:
    """One probe of one split in padded arrays.

    Args:
        probe: The method; its candidates depend on the split.
        split: Rows, labels and folds.
        num_features: Columns of the feature matrix.
        column_K: Columns to read, padded; empty for all.
        count: How many of them.
    """
    num_train, num_folds = len(split.train_N), len(split.folds)
    padded_N, padded_F = _bucket(num_train, num_folds)
    valid_FN = np.zeros((padded_F, padded_N), np.float32)
    for f, fold in enumerate(split.folds):
        valid_FN[f, fold.valid] = 1
    width = count if len(column_K) else num_features
    smallest = min((len(fold.train) for fold in split.folds), default=num_train)
    value_H = np.asarray(probe.values(num_train, width, smallest), float)
    weight_N = split.weight_train_N
    return Lane(
        train_N=_pad(split.train_N, padded_N, np.int32),
        y_N=_pad(split.y_train_N, padded_N, np.float32),
        weight_N=_pad(np.ones(num_train) if weight_N is None else weight_N, padded_N, np.float64),
        valid_FN=valid_FN,
        fold_F=_pad(np.ones(num_folds), padded_F, np.float32),
        **_test_rows(split.tests),
        column_K=np.asarray(column_K, np.int32),
        count=np.asarray(count, np.int32),
        value_H=np.pad(value_H, (0, max(MAX_VALUES - len(value_H), 0)), mode="edge"),
        num_values=np.asarray(len(value_H), np.int32),
        default=np.asarray(probe.default(num_train, width), np.float64),
        seed=np.asarray(split.seed, np.uint32),
    )


def _test_rows(tests: Sequence[base.TestSet]) -> dict[str, np.ndarray]:
    """Fields of a lane: the rows of all test sets, concatenated."""
    sizes = [len(test.row_M) for test in tests]
    padded_M = -(-max(sum(sizes), 1) // TEST_BUCKET) * TEST_BUCKET
    group_M = [
        np.full(size, -1) if test.group_M is None else np.asarray(test.group_M)
        for test, size in zip(tests, sizes, strict=True)
    ]
    of_set_TM = np.arange(len(tests))[:, None] == np.repeat(np.arange(len(tests)), sizes)[None, :]
    return {
        "test_M": _pad(np.concatenate([test.row_M for test in tests]), padded_M, np.int32),
        "y_test_M": _pad(np.concatenate([test.y_M for test in tests]), padded_M, np.float32),
        "weight_TM": np.stack([_pad(of_set_M, padded_M, np.float32) for of_set_M in of_set_TM]),
        # Renumbered, because a traced metric needs codes below the number of rows.
        "group_M": _pad(metrics.group_codes(np.concatenate(group_M)), padded_M, np.int32),
    }


def lanes_of(
    probe: Probe,
    num_features: int,
    splits: Sequence[base.Split],
    columns: Sequence[np.ndarray] | None,
    counts: Sequence[int],
) -> list[Lane]:
    """A lane for every split and, with columns, for every number of them."""
    found = []
    for s, split in enumerate(splits):
        for count in counts:
            column_K, kept = np.zeros(0, np.int32), 0
            if columns is not None:
                kept = min(count, len(columns[s]))
                width = _first_at_least(count, LATENT_BUCKETS)
                column_K = _pad(columns[s][:kept], width, np.int32)
            found.append(make_lane(probe, split, num_features, column_K, kept))
    return found


class _Shape(NamedTuple):
    """What a program is compiled for."""

    num_train: int
    num_folds: int
    num_test: int
    num_sets: int
    num_columns: int
    num_values: int


def _shape(lane: Lane) -> _Shape:
    return _Shape(
        num_train=len(lane.train_N),
        num_folds=len(lane.fold_F),
        num_test=len(lane.test_M),
        num_sets=len(lane.weight_TM),
        num_columns=len(lane.column_K),
        num_values=len(lane.value_H),
    )


def num_lanes(
    shape: _Shape, features: tuple[int, int], memory_gib: float, mesh: Mesh | None
) -> int:
    """Number of lanes in a program: one per device on CPUs, else as many as fit the budget.

    Raises:
        ValueError: The budget is too small for one lane.
    """
    devices = 1 if mesh is None else mesh.size
    needed = _lane_gib(shape, features)
    if needed > memory_gib:
        raise ValueError(
            f"`memory_gib` must be at least {needed:.2f} for a probe of {shape.num_train} training rows on"
            f" {shape.num_columns or features[1]} features, got {memory_gib}; raise it, or probe fewer features"
        )
    if jax.default_backend() == "cpu":
        return devices
    fitting = int(min(memory_gib / needed, MAX_LANES))
    return devices * 2 ** (fitting.bit_length() - 1)


def calls_of(
    lanes: Sequence[Lane], features: tuple[int, int], memory_gib: float, mesh: Mesh | None
) -> list[list[list[int]]]:
    """For every program its calls, each a list of lane numbers; the longest-running come first.

    The last call of a program is filled up with repeated lanes, so that all its calls have one shape.
    """
    size_L = [np.sum(lane.weight_N > 0) * (lane.count or features[1]) for lane in lanes]
    groups: dict[_Shape, list[int]] = {}
    for i in np.argsort(-np.array(size_L), kind="stable").tolist():
        groups.setdefault(_shape(lanes[i]), []).append(i)
    calls = []
    for shape, members in groups.items():
        size = num_lanes(shape, features, memory_gib, mesh)
        starts = range(0, len(members), size)
        calls.append([(members[start : start + size] * size)[:size] for start in starts])
    return calls


def num_threads(lanes: Sequence[Lane], features: tuple[int, int], memory_gib: float) -> int:
    """Concurrent calls on a CPU, where one lane's small arrays leave cores idle: as many as fit the budget."""
    if jax.default_backend() != "cpu":
        return 1
    needed = max(_lane_gib(_shape(lane), features) for lane in lanes)
    return max(1, min(num_cpus(), int(memory_gib / needed)))


def num_cpus() -> int:
    """Processors that this process may use: a container or a scheduler may allow it fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _lane_gib(shape: _Shape, features: tuple[int, int]) -> float:
    """Upper estimate of a lane's arrays: features of its rows, Hessians, scores of all rows."""
    num_train, width = shape.num_train, shape.num_columns or features[1]
    columns = min(width, num_train) + 1
    numbers = 4 * num_train * width + 4 * columns**2 + 2 * shape.num_test * 6 * shape.num_sets
    numbers += shape.num_folds * (shape.num_values * (num_train + columns) + 2 * columns**2)
    numbers += ROWS_AT_ONCE * (width + features[1]) + num_train * features[1]
    return 8 * numbers / 2**30


def _bucket(num_train: int, num_folds: int) -> tuple[int, int]:
    for rows, folds in BUCKETS:
        if rows >= num_train and folds >= num_folds:
            return rows, folds
    return -(-num_train // ROW_BUCKET) * ROW_BUCKET, max(num_folds, 1)


def _first_at_least(size: int, buckets: Sequence[int]) -> int:
    return next((bucket for bucket in buckets if bucket >= size), size)


def _pad(array, size: int, dtype) -> np.ndarray:
    padded = np.zeros(size, dtype)
    padded[: len(array)] = array
    return padded
