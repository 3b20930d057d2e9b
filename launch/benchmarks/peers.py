"""Other libraries' fits of one split, in loops like those of the published package, and the package's own.

Each loop fits every candidate in every fold, takes the best, refits on all training rows and tests. It returns the
test AUROC and, for logistic losses, the objective at every C in the last fold, in order of increasing C.
"""

import functools
import importlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxprobe import base
from jaxprobe.probes import candidates, logistic

Settings = Callable[[np.ndarray], dict[str, Any]]
Linear = tuple[np.ndarray, float]  # weights and intercept


def newton(x_ND) -> dict[str, Any]:
    """The L2 solver that gets closest to the optimum; on raw activations its Hessian is often singular."""
    del x_ND
    return {"solver": "newton-cholesky", "max_iter": 1000, "tol": 1e-6}


def converged(x_ND) -> dict[str, Any]:
    """The same solver run to its optimum, which needs this tolerance and centred features."""
    del x_ND
    return {"solver": "newton-cholesky", "max_iter": 10_000, "tol": 1e-12}


def liblinear(x_ND) -> dict[str, Any]:
    """The L1 solver that converges; it penalises the intercept, which scaling makes negligible."""
    scaling = float(max(np.abs(x_ND).max(), 1))
    return {"solver": "liblinear", "l1_ratio": 1, "max_iter": 1000, "intercept_scaling": scaling}


def lbfgs(x_ND) -> dict[str, Any]:
    """The published L2 fits."""
    del x_ND
    return {"max_iter": 1000, "random_state": 42}


def package(function: str, **options) -> Callable[[np.ndarray, base.Split], float]:
    """One of sae-probes' `find_best_...`, on float32 rows and all BLAS threads, as the package runs it.

    The launch scripts allow OpenBLAS one thread, which the package does not.
    """

    def loop(x_ND, split: base.Split) -> float:
        from threadpoolctl import threadpool_limits

        train = x_ND[split.train_N], split.y_train_N
        test = x_ND[split.test_N], split.y_test_N
        with threadpool_limits(limits=os.cpu_count()):
            found = _package_function(function)(*train, *test, seed=split.seed, **options)
        return float(found.metrics.test_auc)

    return loop


@functools.cache
def start_package() -> None:
    """Starts the processes in which sae-probes searches for neighbours, which takes seconds."""
    x_ND, y_N = np.random.default_rng(0).normal(size=(200, 2)), np.arange(200) % 2
    _package_function("find_best_knn")(x_ND, y_N, x_ND, y_N)


def _package_function(name: str) -> Callable[..., Any]:
    """Imported by name: no extra of ours installs sae-probes, whose requirements are heavy."""
    return getattr(importlib.import_module("sae_probes.utils_training"), name)


def scikit_logistic(
    x_ND, split: base.Split, settings: Settings, *, centre: bool = False
) -> tuple[float, np.ndarray]:
    """A path of scikit-learn's `LogisticRegression`; centring does not change the optimum, only the speed."""
    from sklearn.linear_model import LogisticRegression

    x_ND = x_ND.astype(np.float64)
    if centre:
        x_ND = x_ND - x_ND[split.train_N].mean(0)
    chosen = settings(x_ND)

    def fit(c: float, x_ND, y_N) -> Linear:
        model = LogisticRegression(C=c, **chosen).fit(x_ND, y_N)
        return model.coef_[0], model.intercept_[0]

    return _path(x_ND, split, fit, chosen.get("l1_ratio") == 1)


def probekit_logistic(x_ND, split: base.Split) -> tuple[float, np.ndarray]:
    """A path of probekit's batched Newton fits (torch, float32), one strength after the other."""
    import torch
    from probekit.fitters.batch.logistic import fit_logistic_batch

    def fit(c: float, x_ND, y_N) -> Linear:
        both = torch.from_numpy(x_ND)[None], torch.from_numpy(y_N)
        weights_BD, bias_B = fit_logistic_batch(*both, c_param=c, normalize=False).to_tensor()
        return weights_BD[0].double().numpy(), bias_B[0].item()

    return _path(x_ND.astype(np.float32), split, fit, False)


def _path(x_ND, split: base.Split, fit: Callable[..., Linear], l1: bool):
    x_train_ND, y_N = x_ND[split.train_N], split.y_train_N
    strengths = logistic.C_GRID[::-1]
    valid_R, objectives = [], []
    for c in strengths if split.folds else ():
        fits = [fit(c, x_train_ND[fold.train], y_N[fold.train]) for fold in split.folds]
        scores = [
            auroc(y_N[fold.valid], x_train_ND[fold.valid] @ coef_D + bias)
            for fold, (coef_D, bias) in zip(split.folds, fits, strict=True)
        ]
        valid_R.append(np.mean(scores))
        last, (coef_D, bias) = split.folds[-1], fits[-1]
        logit_N = x_train_ND[last.train] @ coef_D + bias
        loss = np.logaddexp(0, (1 - 2 * y_N[last.train]) * logit_N).sum()
        objectives.append((np.abs(coef_D).sum() if l1 else coef_D @ coef_D / 2) + c * loss)
    best = strengths[int(np.argmax(valid_R))] if valid_R else logistic.DEFAULT_C
    coef_D, bias = fit(best, x_train_ND, y_N)
    score_M = x_ND[split.test_N] @ coef_D + bias
    return auroc(split.y_test_N, score_M), np.array(objectives[::-1])


def pca(x_ND, split: base.Split) -> float:
    """scikit-learn's logistic regression on the first principal components."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression

    train_ND, test_ND = _standardised(x_ND, split)
    y_N, (fold,) = split.y_train_N, split.folds
    most = min(*train_ND.shape, 100)
    components = PCA(n_components=most)
    train_NK, test_NK = components.fit_transform(train_ND), components.transform(test_ND)

    def fit(count: int, rows_N) -> LogisticRegression:
        return LogisticRegression(max_iter=1000).fit(train_NK[rows_N, :count], y_N[rows_N])

    counts = candidates.whole_powers(most, 10)
    valid = [
        auroc(y_N[fold.valid], fit(k, fold.train).decision_function(train_NK[fold.valid, :k]))
        for k in counts
    ]
    best = counts[int(np.argmax(valid))]
    return auroc(split.y_test_N, fit(best, slice(None)).decision_function(test_NK[:, :best]))


def knn(x_ND, split: base.Split) -> float:
    """scikit-learn's nearest neighbours."""
    from sklearn.neighbors import KNeighborsClassifier

    train_ND, test_ND = _standardised(x_ND, split)
    y_N, (fold,) = split.y_train_N, split.folds
    most = min(len(y_N) - 1, 100, len(fold.train))
    counts = candidates.whole_powers(most, 10)

    def fit(count: int, rows_N) -> KNeighborsClassifier:
        return KNeighborsClassifier(n_neighbors=count).fit(train_ND[rows_N], y_N[rows_N])

    valid = [
        auroc(y_N[fold.valid], _positive(fit(k, fold.train), train_ND[fold.valid])) for k in counts
    ]
    best = counts[int(np.argmax(valid))]
    return auroc(split.y_test_N, _positive(fit(best, slice(None)), test_ND))


def mlp(x_ND, split: base.Split) -> float:
    """scikit-learn's perceptron with the published draw of its hyperparameters."""
    from sklearn.neural_network import MLPClassifier

    train_ND, test_ND = _standardised(x_ND, split)
    y_N, (fold,) = split.y_train_N, split.folds
    drawn = {"hidden_layer_sizes": (16, 16, 16), "learning_rate_init": 10**-2.5, "alpha": 0.01}

    def fit(rows_N) -> MLPClassifier:
        model = MLPClassifier(max_iter=1000, random_state=split.seed, **drawn)
        return model.fit(train_ND[rows_N], y_N[rows_N])

    _positive(fit(fold.train), train_ND[fold.valid])
    return auroc(split.y_test_N, _positive(fit(slice(None)), test_ND))


def auroc(y_N, score_N) -> float:
    """scikit-learn's."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(y_N, score_N))


def _standardised(x_ND, split: base.Split):
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x_ND[split.train_N])
    return scaler.transform(x_ND[split.train_N]), scaler.transform(x_ND[split.test_N])


def _positive(model, x_ND) -> np.ndarray:
    """Probability of class 1."""
    return np.asarray(model.predict_proba(x_ND))[:, 1]
