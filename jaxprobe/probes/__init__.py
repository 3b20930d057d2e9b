"""Probes: one file a method, one line each in `PROBES`."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from jaxprobe import base, checks, regimes, selection
from jaxprobe.probes import grid

FEATURES = (base.ACTIVATIONS, "latents")
PENALTIES = ("l1", "l2")


class ProbeResult(NamedTuple):
    """How a probe did; see `grid.Scores` for what each number means."""

    valid_auroc: float
    test_auroc: float
    test_f1: float
    test_accuracy: float
    best_c: float
    converged: bool
    residual: float


def fit_probe(
    method: str,
    x_train,
    y_train,
    x_test,
    y_test,
    *,
    seed: int = 42,
    features: str = base.ACTIVATIONS,
    num_latents: int | None = None,
    penalty: str | None = None,
    ranking: str = "normalised",
    dtype: str = "auto",
) -> ProbeResult:
    """Fits one probe by the protocol: folds by training size, best C, refit, test.

    Args:
        method: A key of `PROBES`.
        x_train: [N, D] activations, or [N, S] latents.
        y_train: [N] labels in {0, 1}.
        x_test: [M, D] or [M, S].
        y_test: [M] labels in {0, 1}.
        seed: Seed of the validation folds.
        features: `activations`, or `latents`: the k best by class-mean difference are read.
        num_latents: k; all where None.
        penalty: `l2` or `l1`; by default `l2` for activations and `l1` for latents.
        ranking: Of latents, see `selection.score`.
        dtype: Arithmetic: `float64`, `float32`, or `auto`: float64 on CPUs.

    Returns:
        Validation AUROC at the chosen C; test AUROC, support-weighted F1 and accuracy at
        probability 0.5. `converged` is False where a fit stopped before its optimum.

    Raises:
        ValueError: Unknown names, shapes that disagree, labels other than 0 and 1, one class
            only, or features that are not finite.

    References:
        Kantamneni et al., Are Sparse Autoencoders Useful?, arXiv 2502.16681.
    """
    checks.check_choice("method", method, PROBES)
    checks.check_choice("features", features, FEATURES)
    penalty = penalty or ("l1" if features == "latents" else "l2")
    checks.check_choice("penalty", penalty, PENALTIES)
    x_ND, split = _checked_split(x_train, y_train, x_test, y_test, seed)
    if features == "latents":
        x_ND = x_ND[:, _ranked(x_ND, split, num_latents, ranking)]
    scores = PROBES[method](x_ND, grid.problem(split), penalty, dtype)
    return ProbeResult(*(np.ravel(field)[0].item() for field in scores))


def _logistic(x_ND, problem: grid.Problem, penalty: str, dtype: str) -> grid.Scores:
    if penalty == "l2":
        return grid.fit_activations(x_ND, x_ND, problem, dtype)
    return grid.fit_latents(x_ND, x_ND, problem, (x_ND.shape[1],), penalty, dtype)


PROBES: Mapping[str, Callable[..., grid.Scores]] = {"logistic": _logistic}


def _checked_split(x_train, y_train, x_test, y_test, seed) -> tuple[np.ndarray, base.Split]:
    """All rows in one array, and the split that numbers them."""
    x_train, x_test = np.asarray(x_train, np.float32), np.asarray(x_test, np.float32)
    y_train, y_test = np.asarray(y_train).astype(np.int32), np.asarray(y_test).astype(np.int32)
    checks.check_shape("x_train", x_train, (None, None))
    checks.check_shape("x_test", x_test, (None, x_train.shape[1]), "train and test must agree")
    for name, y_N, x_ND in (("y_train", y_train, x_train), ("y_test", y_test, x_test)):
        checks.check_shape(name, y_N, (x_ND.shape[0],), "one label per row")
        checks.check_binary(name, y_N, both=name == "y_train")
        checks.check_finite(name.replace("y", "x", 1), x_ND)
    num_train = len(y_train)
    split = base.Split(
        dataset="",
        regime="standard",
        level=float("nan"),
        protocol="paper",
        seed=seed,
        train_N=np.arange(num_train),
        y_train_N=y_train,
        test_N=np.arange(num_train, num_train + len(y_test)),
        y_test_N=y_test,
        folds=regimes.validation_folds(y_train, seed),
    )
    return np.concatenate([x_train, x_test]), split


def _ranked(z_NS, split: base.Split, num_latents: int | None, ranking: str) -> np.ndarray:
    weights = selection.class_weights(len(z_NS), [(split.train_N, split.y_train_N)])
    width = z_NS.shape[1] if num_latents is None else num_latents
    checks.check_positive("num_latents", width)
    top = selection.top_latents(
        lambda start, stop: z_NS[:, start:stop], z_NS.shape[1], weights, width, ranking
    )
    return np.asarray(top.index_PK[0])
