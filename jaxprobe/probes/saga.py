"""L1 logistic regression by scikit-learn's saga, stopped after 1,000 epochs: the published fits.

    minimise over w, b:   |w|_1 + C * sum_n log(1 + exp(-s_n (w'x_n + b))),   s = 2y - 1

On raw latents saga stops far from the optimum, and stopping early regularises, so this answers other
than `l1_logistic`, which goes to the optimum. It is here to reproduce published behaviour, to the order
of calls: C from 1e5 down, the first best by probabilities' validation AUROC, a refit on shuffled rows.

References:
    Defazio, Bach and Lacoste-Julien, SAGA, arXiv 1407.0202.
    Kantamneni et al., Are Sparse Autoencoders Useful?, arXiv 2502.16681.
"""

import inspect
import warnings
from typing import Any

import numpy as np

from jaxprobe import base, regimes
from jaxprobe.probes import candidates, host
from jaxprobe.probes.probe import Scores

C_GRID = candidates.powers(10, 5, -5, 10)
DEFAULT_C = 1.0
MAX_EPOCHS = 1000


def fit(x_ND: np.ndarray, split: base.Split, x_test_MD: np.ndarray, seed: int) -> Scores:
    """Fits every C on every fold, refits the best, tests it.

    Args:
        x_ND: Features that the split's training rows number; saga works in float32.
        split: Labels and folds.
        x_test_MD: Features that its test rows number.
        seed: Of saga's order of rows and of the shuffle.

    Returns:
        Scores of floats. `converged` is False where some fit took all its epochs; `residual` bounds the
        last fit's relative distance to its minimum, by convexity.

    Raises:
        ValueError: scikit-learn is not installed, or shapes disagree.
    """
    make = _maker(seed)
    x_ND, x_test_MD = host.rows(x_ND, split, x_test_MD)
    y_N = np.asarray(split.y_train_N)
    epochs = []

    def fitted(c, rows):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it stopped early is in `converged`
            model = make(c).fit(x_ND[rows], y_N[rows])
        epochs.append(int(np.max(model.n_iter_)))
        return model

    def predict(c, train_N, valid_N):
        return fitted(c, train_N).predict_proba(x_ND[valid_N])[:, 1]

    best_c, valid = DEFAULT_C, float("nan")
    if split.folds:
        valid_R = [
            np.mean(
                [host.fold_auroc(y_N, fold, lambda *r, c=c: predict(c, *r)) for fold in split.folds]
            )
            for c in C_GRID
        ]
        first = np.argmax(np.array(valid_R) >= max(valid_R) - regimes.SAME_AUROC)
        best_c, valid = float(C_GRID[first]), float(valid_R[first])
    order_N = np.random.RandomState(seed).permutation(len(y_N))
    model = fitted(best_c, order_N)
    if not split.folds:
        valid = host.auroc(y_N, model.predict_proba(x_ND)[:, 1])
    return host.scores(
        model.predict_proba(x_test_MD)[:, 1],
        model.decision_function(x_test_MD),
        split.y_test_N,
        valid_auroc=valid,
        best_value=best_c,
        converged=max(epochs) < MAX_EPOCHS,
        residual=_bound(model, x_ND, y_N, best_c),
    )


def _bound(model, x_ND, y_N, c: float) -> float:
    """How far the objective can be above its minimum, relatively: at most 1.

    A subgradient g bounds the gap by `max|g| (|w|_1 + |w*|_1)`, and both norms by the objective.
    """
    w_D = model.coef_[0].astype(np.float64)
    logit_N = x_ND.astype(np.float64) @ w_D + float(model.intercept_[0])
    error_N = 1 / (1 + np.exp(-np.clip(logit_N, -700, 700))) - y_N
    slope_D = c * error_N @ x_ND.astype(np.float64)
    # The shortest subgradient: at zero the penalty holds a pull of up to 1.
    slope_D = np.where(w_D == 0, np.maximum(np.abs(slope_D) - 1, 0), slope_D + np.sign(w_D))
    return float(min(2 * max(np.max(np.abs(slope_D)), c * abs(np.sum(error_N))), 1))


def _maker(seed: int):
    """The function of C that makes the estimator, whatever scikit-learn calls an L1 penalty."""
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


PROBE = host.HostProbe(fit)
