"""L1 logistic regression by scikit-learn's saga, stopped after 1,000 epochs: the published fits.

    minimise over w, b:   |w|_1 + C * sum_n log(1 + exp(-s_n (w'x_n + b))),   s = 2y - 1

On raw latents saga stops far from the optimum, and stopping early regularises, so its answers differ from those
of `logistic_l1`, which goes to the optimum. It is here to reproduce published behaviour, including the order of
calls: C from 1e5 down, the first best by the validation AUROC of probabilities, a refit on shuffled rows.

References:
    Defazio, Bach and Lacoste-Julien, SAGA, arXiv 1407.0202.
    Kantamneni et al., Are Sparse Autoencoders Useful?, arXiv 2502.16681.
"""

import inspect
import warnings
from typing import Any

import numpy as np

from jaxprobe import base, regimes
from jaxprobe.probes import candidates, host_probe
from jaxprobe.probes.linear_model import LinearModel

C_GRID = candidates.powers(10, 5, -5, 10)
DEFAULT_C = 1.0
MAX_EPOCHS = 1000


def fit(x_ND: np.ndarray, split: base.Split, seed: int) -> base.Prediction:
    """Fits every C on every fold, refits the best, scores the test sets.

    Args:
        x_ND: Features whose rows the split numbers; saga works in float32.
        split: Rows, labels, weights and folds.
        seed: Seed of saga's order of rows and of the shuffle.

    Returns:
        A prediction. `converged` is False where any fit took all its epochs; `residual` is an upper bound,
        by convexity, on the last fit's relative distance to its minimum.

    Raises:
        ValueError: scikit-learn is not installed.
    """
    make = _maker(seed)
    train_ND, test_MD = host_probe.rows(x_ND, split)
    y_N = np.asarray(split.y_train_N)
    epochs = []

    def fitted(c, rows):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `converged` says where it stopped early
            weight_N = host_probe.weights(split, rows)
            model = make(c).fit(train_ND[rows], y_N[rows], sample_weight=weight_N)
        epochs.append(int(np.max(model.n_iter_)))
        return model

    def validated(c):
        return host_probe.validate(
            split, lambda train_N, valid_N: _log_odds(fitted(c, train_N), train_ND[valid_N])
        )

    best_c, valid = DEFAULT_C, host_probe.unvalidated(split)
    if split.folds:
        found_R = [validated(c) for c in C_GRID]
        auroc_R = np.array([found.auroc for found in found_R])
        first = int(np.argmax(auroc_R >= max(auroc_R) - regimes.SAME_AUROC))
        best_c, valid = float(C_GRID[first]), found_R[first]
    model = fitted(best_c, np.random.RandomState(seed).permutation(len(y_N)))
    valid_auroc = valid.auroc
    if not split.folds:
        valid_auroc = host_probe.auroc(y_N, _log_odds(model, train_ND), host_probe.weights(split))
    return base.Prediction(
        valid_auroc=valid_auroc,
        score_M=host_probe.by_set(split.tests, _log_odds(model, test_MD)),
        valid_score_FN=valid.score_FN,
        best_value=best_c,
        converged=max(epochs) < MAX_EPOCHS,
        residual=_bound(model, train_ND, y_N, best_c, host_probe.weights(split)),
        model=LinearModel(
            coef_D=model.coef_[0].astype(np.float64),
            intercept=np.asarray(model.intercept_[0], np.float64),
        ),
    )


def _log_odds(model, x_MD: np.ndarray) -> np.ndarray:
    return host_probe.tied(model.decision_function(x_MD), model.predict_proba(x_MD)[:, 1])


def _bound(model, x_ND, y_N, c: float, weight_N=None) -> float:
    """Upper bound on how far the objective is above its minimum, as a share of it: at most 1.

    A subgradient g bounds the gap by `max|g| (|w|_1 + |w*|_1)`, and both norms by the objective.
    """
    w_D = model.coef_[0].astype(np.float64)
    logit_N = x_ND.astype(np.float64) @ w_D + float(model.intercept_[0])
    error_N = 1 / (1 + np.exp(-np.clip(logit_N, -700, 700))) - y_N
    error_N = error_N if weight_N is None else error_N * weight_N
    slope_D = c * error_N @ x_ND.astype(np.float64)
    # The shortest subgradient: at zero the penalty offsets a gradient of up to 1.
    slope_D = np.where(w_D == 0, np.maximum(np.abs(slope_D) - 1, 0), slope_D + np.sign(w_D))
    return float(min(2 * max(np.max(np.abs(slope_D)), c * abs(np.sum(error_N))), 1))


def _maker(seed: int):
    """A function of C that makes the estimator, in the installed scikit-learn's terms for an L1 penalty."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ValueError(
            "method `logistic_l1_saga` needs scikit-learn, which is not installed;"
            " install it: pip install 'jaxprobe[sklearn]'"
        ) from error
    # From 1.8 on `penalty` is deprecated, and its default is no longer the text "l2".
    old = inspect.signature(LogisticRegression).parameters["penalty"].default == "l2"
    kind: dict[str, Any] = {"penalty": "l1"} if old else {"l1_ratio": 1}
    return lambda c: LogisticRegression(
        C=c, solver="saga", max_iter=MAX_EPOCHS, random_state=seed, **kind
    )


PROBE = host_probe.HostProbe(fit)
