"""Small labelled data and its splits, for the probes' tests."""

import numpy as np

from jaxprobe import base, regimes
from jaxprobe.probes import fit_grid


def split(num_train: int, y_N: np.ndarray, seed: int = 42) -> base.Split:
    """A balanced draw of training rows; all others but one test."""
    num_test = min(
        len(y_N) - num_train - 1, 2 * int(min(y_N.sum(), (1 - y_N).sum())) - num_train - 2
    )
    train_N, test_N = regimes.draw_rows(y_N, num_train, num_test, 0.5, seed)
    return base.Split(
        dataset="d",
        regime="scarcity",
        level=float(num_train),
        protocol="paper",
        seed=seed,
        train_N=train_N,
        y_train_N=y_N[train_N],
        test_N=test_N,
        y_test_N=y_N[test_N],
        folds=regimes.validation_folds(y_N[train_N], seed),
    )


def normal(num_rows: int = 400, d_model: int = 12, seed: int = 0, shift: float = 0.4):
    """Overlapping classes, features of different scales, one feature constant: `(x_ND, y_N)`."""
    rng = np.random.default_rng(seed)
    y_N = rng.permutation(np.arange(num_rows) % 2)
    x_ND = rng.normal(size=(num_rows, d_model)) + shift * (2 * y_N[:, None] - 1)
    x_ND *= np.logspace(1, -1, d_model)
    if d_model > 2:
        x_ND[:, 1] = 3
    return x_ND.astype(np.float32), y_N


def coarse(num_rows: int = 400, d_model: int = 5, seed: int = 0):
    """Small whole numbers: equal distances, equal columns and duplicate rows abound."""
    rng = np.random.default_rng(seed)
    y_N = rng.permutation(np.arange(num_rows) % 2)
    x_ND = rng.integers(0, 3, size=(num_rows, d_model)) + y_N[:, None] * rng.integers(
        0, 2, size=(num_rows, d_model)
    )
    return x_ND.astype(np.float32), y_N


def whole_powers(most: int) -> np.ndarray:
    """The published candidates, by NumPy in extended precision, rounded to a double at each step."""
    log2 = np.float64(np.log2(np.longdouble(most)))
    steps = np.append(np.arange(9) * (log2 / 9), log2)
    powers = np.exp2(steps.astype(np.longdouble)).astype(np.float64)
    return np.unique(powers.astype(int))


def fit(probe, x_ND, split: base.Split, **more):
    """One split by `fit_grid`, with the few metrics that tests of methods look at: others are compiled too."""
    return fit_grid(probe, x_ND, [split], metrics=("auroc", "accuracy", "log_loss"), **more)


def auroc(y_N: np.ndarray, score_N: np.ndarray):
    """Share of (positive, negative) pairs in the right order, ties half: of one list or of each column."""
    pos, neg = score_N[y_N > 0][:, None], score_N[y_N == 0][None]
    return ((pos > neg) + (pos == neg) / 2).mean(axis=(0, 1))


def protocol(
    x_ND, split: base.Split, values, default, fitted, *, larger_wins: bool = False
) -> dict:
    """The protocol as a plain loop.

    Args:
        x_ND: All rows.
        split: Rows, labels, folds.
        values: Candidates, rising.
        default: The value without folds.
        fitted: `(value, x_ND, y_N, training positions) -> (x_MD -> score_M)`, where x_ND are all of
            the split's training rows.
        larger_wins: Whether ties go to the larger value.

    Returns:
        Fields of `Scores`.
    """
    x_ND, y_N = x_ND.astype(np.float64), split.y_train_N
    x_train_ND, everything = x_ND[split.train_N], np.arange(len(y_N))
    valid_H = np.zeros(len(values))
    for fold in split.folds:
        for h, value in enumerate(values):
            if len(np.unique(y_N[fold.train])) < 2:
                score = 0.5
            else:
                predict = fitted(value, x_train_ND, y_N, fold.train)
                score = auroc(y_N[fold.valid], predict(x_train_ND[fold.valid]))
            valid_H[h] += score / len(split.folds)
    valid_H = np.round(valid_H, 9)
    best = len(values) - 1 - np.argmax(valid_H[::-1]) if larger_wins else np.argmax(valid_H)
    value = values[best] if split.folds else default
    predict = fitted(value, x_train_ND, y_N, everything)
    score_M = predict(x_ND[split.test_N])
    return {
        "valid_auroc": valid_H[best] if split.folds else auroc(y_N, predict(x_train_ND)),
        "best_value": value,
        "test_auroc": auroc(split.y_test_N, score_M),
        "test_accuracy": np.mean((score_M > 0) == (split.y_test_N > 0)),
    }


def check(scores, wanted: dict, atol: float = 1e-9):
    """Compares one lane's scores, all of it converged, with `protocol`'s."""
    assert np.all(scores.converged)
    for name, value in wanted.items():
        got = np.ravel(getattr(scores, name))[0]
        np.testing.assert_allclose(got, value, atol=atol, rtol=1e-9, err_msg=name)
