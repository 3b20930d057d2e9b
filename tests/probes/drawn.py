"""Small labelled data and its splits, for the probes' tests."""

import numpy as np

from jaxprobe import base, regimes


def split(num_train: int, y_N: np.ndarray, seed: int = 42) -> base.Split:
    """A balanced draw of training rows; all others but one test."""
    num_test = min(len(y_N) - num_train - 1, 2 * int(min(y_N.sum(), (1 - y_N).sum())) - num_train - 2)
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
