"""Boosted trees by the XGBoost library, ten random draws of its hyperparameters.

Features are standardised, as published (trees hardly notice). The draws come from Python's generator in
the published order, so a seed draws the published values; the best mean validation AUROC wins, ties go to
the earlier draw. With too few rows to validate the library's defaults are used.

References:
    Chen and Guestrin, XGBoost, arXiv 1603.02754.
    Kantamneni et al., Are Sparse Autoencoders Useful?, arXiv 2502.16681.
"""

import random

import jax
import numpy as np

from jaxprobe import base, regimes
from jaxprobe.probes import candidates, host
from jaxprobe.probes.probe import Scores

NUM_DRAWS = 10
FEW_ROWS = 128  # below this, threads of one fit wait for each other longer than they work
SPACE = {
    "n_estimators": np.arange(50, 300, step=50),
    "max_depth": np.arange(2, 6),
    "learning_rate": candidates.powers(10, -3, -1, 10),
    "subsample": np.linspace(0.7, 1.0, num=5),
    "colsample_bytree": np.linspace(0.7, 1.0, num=5),
    "reg_alpha": candidates.powers(10, -3, 1, 10),
    "reg_lambda": candidates.powers(10, -3, 1, 10),
    "min_child_weight": np.arange(1, 10),
}


def draws(seed: int) -> list[dict[str, float]]:
    """The random search: `NUM_DRAWS` settings, each drawn in the order of `SPACE`."""
    rng = random.Random(seed)
    return [
        {name: rng.choice(list(values)).item() for name, values in SPACE.items()}
        for _ in range(NUM_DRAWS)
    ]


def fit(x_ND: np.ndarray, split: base.Split, x_test_MD: np.ndarray, seed: int) -> Scores:
    """Fits all draws on all folds, refits the best, tests it.

    Args:
        x_ND: Features that the split's training rows number.
        split: Labels and folds.
        x_test_MD: Features that its test rows number.
        seed: Of the draws and of the trees' sampling.

    Returns:
        Scores of floats; `best_value` counts the draws from 1, 0 stands for the defaults.

    Raises:
        ValueError: XGBoost is not installed, or shapes disagree.
    """
    library = _library()
    x_ND, x_test_MD = host.standardised(*host.rows(x_ND, split, x_test_MD))
    y_N = np.asarray(split.y_train_N)
    on_gpu = jax.default_backend() == "gpu" and library.build_info().get("USE_CUDA", False)
    device = {"device": "cuda"} if on_gpu else {}

    threads = 1 if len(y_N) < FEW_ROWS else None

    def fitted(settings, rows):
        model = library.XGBClassifier(**settings, **device, n_jobs=threads, random_state=seed)
        return model.fit(x_ND[rows], y_N[rows])

    def predict(settings, train_N, valid_N):
        return fitted(settings, train_N).predict_proba(x_ND[valid_N])[:, 1]

    settings, best, valid = {}, 0, -1.0
    for number, draw in enumerate(draws(seed) if split.folds else [], start=1):
        draw = {**draw, "eval_metric": "logloss"}
        folds = [
            host.fold_auroc(y_N, fold, lambda *rows, draw=draw: predict(draw, *rows))
            for fold in split.folds
        ]
        if np.mean(folds) > valid + regimes.SAME_AUROC:
            settings, best, valid = draw, number, float(np.mean(folds))
    model = fitted(settings, np.arange(len(y_N)))
    if not split.folds:
        valid = host.auroc(y_N, model.predict_proba(x_ND)[:, 1])
    return host.scores(
        model.predict_proba(x_test_MD)[:, 1],
        model.predict(x_test_MD, output_margin=True),
        split.y_test_N,
        valid_auroc=valid,
        best_value=float(best),
        converged=True,
        residual=0.0,
    )


def _library():
    try:
        import xgboost  # type: ignore[missing-import]
    except ImportError as error:
        raise ValueError(
            "method `xgboost` needs the xgboost library, which is not installed;"
            " install it: pip install 'jaxprobe[xgboost]'"
        ) from error
    return xgboost


PROBE = host.HostProbe(fit)
