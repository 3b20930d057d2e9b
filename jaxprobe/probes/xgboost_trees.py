"""Boosted trees by the XGBoost library, ten random draws of its hyperparameters.

Features are standardised, as published (it hardly changes trees). The draws come from Python's generator in
the published order, so a seed gives the published values; the best mean validation AUROC wins, and ties go to
the earlier draw. With too few rows to validate, the library's defaults are used.

References:
    Chen and Guestrin, XGBoost, arXiv 1603.02754.
    Kantamneni et al., Are Sparse Autoencoders Useful?, arXiv 2502.16681.
"""

import random

import jax
import numpy as np

from jaxprobe import base, regimes
from jaxprobe.probes import candidates, host_probe

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


def fit(x_ND: np.ndarray, split: base.Split, seed: int) -> base.Prediction:
    """Fits all draws on all folds, refits the best, scores the test sets.

    Args:
        x_ND: Features whose rows the split numbers.
        split: Rows, labels, weights and folds.
        seed: Seed of the draws and of the trees' sampling.

    Returns:
        A prediction; `best_value` is the number of the draw, from 1, or 0 for the defaults.

    Raises:
        ValueError: XGBoost is not installed.
    """
    library = _library()
    train_ND, test_MD = host_probe.standardised(host_probe.rows(x_ND, split))
    y_N = np.asarray(split.y_train_N)
    on_gpu = jax.default_backend() == "gpu" and library.build_info().get("USE_CUDA", False)
    device = {"device": "cuda"} if on_gpu else {}
    threads = 1 if len(y_N) < FEW_ROWS else None

    def fitted(settings, rows):
        model = library.XGBClassifier(**settings, **device, n_jobs=threads, random_state=seed)
        return model.fit(train_ND[rows], y_N[rows], sample_weight=host_probe.weights(split, rows))

    settings, best, valid = {}, 0, host_probe.unvalidated(split)
    for number, draw in enumerate(draws(seed) if split.folds else [], start=1):
        draw = {**draw, "eval_metric": "logloss"}

        def predict(train_N, valid_N, draw=draw):
            return _log_odds(fitted(draw, train_N), train_ND[valid_N])

        found = host_probe.validate(split, predict)
        if best == 0 or found.auroc > valid.auroc + regimes.SAME_AUROC:
            settings, best, valid = draw, number, found
    model = fitted(settings, np.arange(len(y_N)))
    valid_auroc = valid.auroc
    if not split.folds:
        valid_auroc = host_probe.auroc(y_N, _log_odds(model, train_ND), host_probe.weights(split))
    return base.Prediction(
        valid_auroc=valid_auroc,
        score_M=host_probe.by_set(split.tests, _log_odds(model, test_MD)),
        valid_score_FN=valid.score_FN,
        best_value=float(best),
    )


def _log_odds(model, x_MD: np.ndarray) -> np.ndarray:
    margin_M = model.predict(x_MD, output_margin=True)
    return host_probe.tied(margin_M, model.predict_proba(x_MD)[:, 1])


def _library():
    try:
        import xgboost  # type: ignore[missing-import]
    except ImportError as error:
        raise ValueError(
            "method `xgboost` needs the xgboost library, which is not installed;"
            " install it: pip install 'jaxprobe[xgboost]'"
        ) from error
    return xgboost


PROBE = host_probe.HostProbe(fit)
