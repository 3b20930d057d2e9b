"""Probes against scikit-learn, called as the published package calls it.

Both sides fit the same rows in one process, one after the other: every candidate in every fold, and the
refit. `converged` stands for scikit-learn's best converging solver (newton-cholesky; liblinear for L1),
`published` for the package's (lbfgs; saga, stopped at 1,000 rounds). Times of ours are medians of three
after the first call, wall and CPU (of all threads: what a busy machine disturbs least); compiling is
counted apart. Excess is the largest relative amount, over all C, by
which our objective lies above the converging solver's; negative where that one stopped early.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from benchmarks.timing import Seconds
from jaxprobe import base, datasets, regimes
from jaxprobe.probes import PROBES, grid, l1_logistic, logistic
from jaxprobe.stages import encode, extract, run
from jaxprobe.stages import latents as kept
from jaxprobe.store import ActivationStore

_WORKS = flags.DEFINE_list(
    "fit_works", ["l2", "l2_wide", "l1", "pca", "knn", "mlp", "scarcity"], "fit: what to time."
)
_PUBLISHED = flags.DEFINE_integer(
    "fit_published", 3, "fit: datasets on which the published solvers run too (minutes each).", 0
)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_WIDE = 3584  # Gemma 2 9B's


class Rows(NamedTuple):
    """One dataset's features, and the split that both sides fit."""

    name: str
    x_ND: np.ndarray
    z_NK: np.ndarray
    split: base.Split
    scarce: tuple[base.Split, ...]


class Fitted(NamedTuple):
    """One side's result: seconds, test AUROCs, and per (k, C) the objective in the first fold."""

    seconds: Seconds
    auroc_P: np.ndarray
    objective_PR: np.ndarray | None = None


def suite(config: run.RunConfig, workdir) -> None:
    """One table a kind of work, and its means."""
    warnings.simplefilter("ignore")  # the other side's: it often stops before its optimum
    everything = list(_read(config, workdir))
    for work in _WORKS.value:
        if work not in _SUITES:
            raise ValueError(f"unknown work {work!r} in --fit_works; known: {', '.join(_SUITES)}")
        _compare(work, everything, *_SUITES[work])


def _read(config: run.RunConfig, workdir):
    store = ActivationStore.open(workdir / extract.FOLDER)
    site = base.Site.parse(config.site)
    sae = run.load_saes(config, workdir)[0]
    for name in config.encode.datasets:
        dataset = datasets.load(name, config.encode.source)
        identity = encode.latents_identity(config.encode, store, sae, dataset)
        latents = kept.read(kept.latents_path(workdir, sae.id, name), identity)
        yield Rows(
            name=name,
            x_ND=store.read(site, dataset.texts),
            z_NK=latents.rows.dense(latents.top_PK[0]),
            split=regimes.splits(dataset, seed=config.encode.seed)[0],
            scarce=regimes.splits(dataset, "scarcity", seed=config.encode.seed),
        )


def _compare(work: str, everything: Sequence[Rows], ours, published, converged) -> None:
    print(
        f"\n  {work:26} {'ours s (CPU)':>15} {'converged s':>12} ratio (CPU) {'published s':>12}"
        " ratio (CPU)  AUROC ours  converged  published  excess"
    )
    gaps, compiling = [], 0.0
    ratios: dict[str, list[tuple[float, float]]] = {"converged": [], "published": []}
    for i, rows in enumerate(everything):
        first = ours(rows)
        runs = [ours(rows) for _ in range(3)]
        wall, cpu = np.median([one.seconds for one in runs], axis=0)
        mine = runs[0]._replace(seconds=Seconds(float(wall), float(cpu)))
        compiling += max(0.0, first.seconds.wall - mine.seconds.wall)
        sides = {
            "converged": converged(rows) if converged else None,
            "published": published(rows) if published and i < _PUBLISHED.value else None,
        }
        cells = []
        for name, side in sides.items():
            if side is None:
                cells.append(f"{'-':>12} {'-':>11}")
                continue
            by_wall, by_cpu = (b / a for a, b in zip(mine.seconds, side.seconds, strict=True))
            ratios[name].append((by_wall, by_cpu))
            cells.append(f"{side.seconds.wall:12.2f} {by_wall:5.1f} ({by_cpu:.1f})")
        aurocs = [
            f"{side.auroc_P.mean():10.4f}" if side else f"{'-':>10}" for side in sides.values()
        ]
        other = sides["converged"] or sides["published"]
        if other is not None:
            gaps.append(np.mean(np.abs(mine.auroc_P - other.auroc_P)))
        print(
            f"  {rows.name:26} {mine.seconds.wall:7.3f} ({mine.seconds.cpu:.3f}) {' '.join(cells)}"
            f"  {mine.auroc_P.mean():9.4f} {' '.join(aurocs)}  {_excess(mine, sides['converged'])}",
            flush=True,
        )
    for name, found in ratios.items():
        if found:
            means = np.exp(np.mean(np.log(found), axis=0))
            print(
                f"  {name}: geometric mean of ratios {means[0]:.1f} by wall time, {means[1]:.1f} by CPU"
                f" time; least {np.min(found, axis=0)[0]:.1f} and {np.min(found, axis=0)[1]:.1f},"
                f" on {len(found)} datasets"
            )
    print(
        f"  mean |AUROC difference| {np.mean(gaps) if gaps else np.nan:.4f}, largest"
        f" {max(gaps, default=np.nan):.4f}; compiling {compiling:.0f} s in all"
    )


def _excess(mine: Fitted, other: Fitted | None) -> str:
    if other is None or mine.objective_PR is None or other.objective_PR is None:
        return "-"
    return f"{np.max(mine.objective_PR / other.objective_PR - 1):+.1e}"


def _timed(work: Callable[[], Any]) -> tuple[Any, Seconds]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def _ours(probe: str, features: Callable[[Rows], np.ndarray], counts: Sequence[int] = ()):
    """Our side: the engine's call, and the path's objectives in the first fold beside it."""

    def fit(rows: Rows) -> Fitted:
        x_ND = features(rows)
        columns = [np.arange(x_ND.shape[1])] if counts else None
        scores, seconds = _timed(
            lambda: grid.fit_grid(
                PROBES[probe], x_ND, [rows.split], columns=columns, num_latents=counts
            )
        )
        objective_PR = None
        if probe in _PATHS:
            widths = counts or (x_ND.shape[1],)
            objective_PR = np.stack([_objectives(probe, x_ND[:, :k], rows.split) for k in widths])
        return Fitted(seconds, np.ravel(scores.test_auroc), objective_PR)

    return fit


_PATHS = {"logistic": jax.jit(logistic.fit_path), "logistic_l1": jax.jit(l1_logistic.fit_path)}


def _objectives(probe: str, x_ND, split: base.Split) -> np.ndarray:
    train_N = split.folds[0].train
    with jax.enable_x64(True):
        x_ND = x_ND[split.train_N[train_N]].astype(np.float64)
        x_ND = x_ND - x_ND.mean(0)
        y_N = split.y_train_N[train_N].astype(np.float64)
        path = _PATHS[probe](x_ND, y_N, np.ones(len(y_N)), logistic.C_GRID)
        return np.asarray(path.objective)


def _scikit(kind: Callable[[np.ndarray], dict], features, counts: Sequence[int] = ()):
    """The other side: a loop over scikit-learn's fits, as the package's."""

    def fit(rows: Rows) -> Fitted:
        x_ND = features(rows).astype(np.float64)
        total, aurocs, objectives = Seconds(0.0, 0.0), [], []
        for k in counts or (x_ND.shape[1],):
            settings = kind(x_ND[:, :k])
            (auroc, objective_R), took = _timed(
                lambda k=k, s=settings: _logistic_loop(x_ND[:, :k], rows.split, s)
            )
            total = Seconds(total.wall + took.wall, total.cpu + took.cpu)
            aurocs.append(auroc)
            objectives.append(objective_R)
        return Fitted(total, np.array(aurocs), np.stack(objectives))

    return fit


def _logistic_loop(x_ND, split: base.Split, settings: dict) -> tuple[float, np.ndarray]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    x_train_ND, y_N = x_ND[split.train_N], split.y_train_N
    strengths = logistic.C_GRID[::-1]
    valid_R, models = [], []
    for c in strengths:
        scores = []
        for fold in split.folds:
            model = LogisticRegression(C=c, **settings).fit(x_train_ND[fold.train], y_N[fold.train])
            scores.append(
                roc_auc_score(y_N[fold.valid], model.decision_function(x_train_ND[fold.valid]))
            )
        models.append(model)
        valid_R.append(np.mean(scores))
    best = strengths[int(np.argmax(valid_R))]
    model = LogisticRegression(C=best, **settings).fit(x_train_ND, y_N)
    auroc = float(roc_auc_score(split.y_test_N, model.decision_function(x_ND[split.test_N])))
    last = split.folds[-1].train
    sign_N = 2 * y_N[last] - 1
    objectives = []
    for c, model in zip(strengths[::-1], models[::-1], strict=True):
        coef_K = model.coef_[0]
        loss = np.logaddexp(0, -sign_N * model.decision_function(x_train_ND[last])).sum()
        l1 = settings.get("l1_ratio") == 1
        objectives.append((np.abs(coef_K).sum() if l1 else coef_K @ coef_K / 2) + c * loss)
    return auroc, np.array(objectives)


def _activations(rows: Rows) -> np.ndarray:
    return rows.x_ND


def _latents(rows: Rows) -> np.ndarray:
    return rows.z_NK


def _wide(rows: Rows) -> np.ndarray:
    """The activations in 3,584 dimensions: turned, with 1 % of noise so that every one counts."""
    rng = np.random.default_rng(0)
    turn_DE = rng.normal(size=(rows.x_ND.shape[1], _WIDE)) / np.sqrt(_WIDE)
    noise = 0.01 * rows.x_ND.std()
    wide_NE = rows.x_ND @ turn_DE + noise * rng.normal(size=(len(rows.x_ND), _WIDE))
    return wide_NE.astype(np.float32)


def _pca_loop(rows: Rows) -> Fitted:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression

    def work():
        train_ND, test_ND, y_N, split = _standardised(rows)
        most = min(*train_ND.shape, 100)
        pca = PCA(n_components=most)
        train_NK, test_NK = pca.fit_transform(train_ND), pca.transform(test_ND)
        sizes = np.unique(np.logspace(0, np.log2(most), num=10, base=2, dtype=int))
        (fold,) = split.folds

        def fit(h, rows_N):
            return LogisticRegression(max_iter=1000).fit(train_NK[rows_N, :h], y_N[rows_N])

        valid = [
            _auroc(y_N[fold.valid], fit(h, fold.train).decision_function(train_NK[fold.valid, :h]))
            for h in sizes
        ]
        h = sizes[int(np.argmax(valid))]
        model = fit(h, slice(None))
        return _auroc(split.y_test_N, model.decision_function(test_NK[:, :h]))

    auroc, seconds = _timed(work)
    return Fitted(seconds, np.array([auroc]))


def _knn_loop(rows: Rows) -> Fitted:
    from sklearn.neighbors import KNeighborsClassifier

    def work():
        train_ND, test_ND, y_N, split = _standardised(rows)
        (fold,) = split.folds
        most = min(len(y_N) - 1, 100, len(fold.train))
        counts = np.unique(np.logspace(0, np.log2(most), num=10, base=2, dtype=int))

        def fit(k, rows_N):
            return KNeighborsClassifier(n_neighbors=k).fit(train_ND[rows_N], y_N[rows_N])

        valid = [
            _auroc(y_N[fold.valid], _positive(fit(k, fold.train), train_ND[fold.valid]))
            for k in counts
        ]
        model = fit(counts[int(np.argmax(valid))], slice(None))
        return _auroc(split.y_test_N, _positive(model, test_ND))

    auroc, seconds = _timed(work)
    return Fitted(seconds, np.array([auroc]))


def _mlp_loop(rows: Rows) -> Fitted:
    from sklearn.neural_network import MLPClassifier

    def work():
        train_ND, test_ND, y_N, split = _standardised(rows)
        (fold,) = split.folds
        drawn = {"hidden_layer_sizes": (16, 16, 16), "learning_rate_init": 10**-2.5, "alpha": 0.01}

        def fit(rows_N):
            model = MLPClassifier(max_iter=1000, random_state=split.seed, **drawn)
            return model.fit(train_ND[rows_N], y_N[rows_N])

        fit(fold.train).predict_proba(train_ND[fold.valid])
        return _auroc(split.y_test_N, _positive(fit(slice(None)), test_ND))

    auroc, seconds = _timed(work)
    return Fitted(seconds, np.array([auroc]))


def _standardised(rows: Rows):
    from sklearn.preprocessing import StandardScaler

    split = rows.split
    train_ND = rows.x_ND[split.train_N]
    scaler = StandardScaler().fit(train_ND)
    test_ND = scaler.transform(rows.x_ND[split.test_N])
    return scaler.transform(train_ND), test_ND, split.y_train_N, split


def _auroc(y_N, score_N) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(y_N, score_N))


def _positive(model, x_ND) -> np.ndarray:
    """Probability of class 1."""
    return np.asarray(model.predict_proba(x_ND))[:, 1]


def _scarcity(rows: Rows) -> Fitted:
    """All levels and folds: L2 on activations, L1 on 128 latents."""

    def work():
        columns = [np.arange(128)] * len(rows.scarce)
        return (
            grid.fit_grid(PROBES["logistic"], rows.x_ND, rows.scarce).test_auroc,
            grid.fit_grid(
                *(PROBES["logistic_l1"], rows.z_NK[:, :128], rows.scarce),
                columns=columns,
                num_latents=(128,),
            ).test_auroc,
        )

    aurocs, seconds = _timed(work)
    return Fitted(seconds, np.concatenate([np.ravel(part) for part in aurocs]))


def _scarcity_loop(rows: Rows) -> Fitted:
    """The same by liblinear and newton-cholesky, the fastest of scikit-learn's that converge."""

    def work():
        aurocs = []
        for features, kind in ((_activations, _newton), (lambda r: r.z_NK[:, :128], _liblinear)):
            x_ND = features(rows).astype(np.float64)
            settings = kind(x_ND)
            for split in rows.scarce:
                if len(split.folds):
                    aurocs.append(_logistic_loop(x_ND, split, settings)[0])
                else:
                    aurocs.append(np.nan)
        return np.array(aurocs)

    aurocs, seconds = _timed(work)
    return Fitted(seconds, np.where(np.isnan(aurocs), _scarcity(rows).auroc_P, aurocs))


def _newton(x_ND) -> dict:
    del x_ND
    return {"solver": "newton-cholesky", "max_iter": 1000, "tol": 1e-6}


def _liblinear(x_ND) -> dict:
    # The intercept is penalised there; scaled up, that is next to nothing.
    scaling = float(max(np.abs(x_ND).max(), 1))
    return {"solver": "liblinear", "l1_ratio": 1, "max_iter": 1000, "intercept_scaling": scaling}


def _lbfgs(x_ND) -> dict:
    del x_ND
    return {"max_iter": 1000, "random_state": 42}


def _saga(x_ND) -> dict:
    del x_ND
    return {"solver": "saga", "l1_ratio": 1, "max_iter": 1000, "random_state": 42}


# Per kind of work: our side, the published side, the converging side.
_SUITES = {
    "l2": (
        _ours("logistic", _activations),
        _scikit(_lbfgs, _activations),
        _scikit(_newton, _activations),
    ),
    "l2_wide": (_ours("logistic", _wide), _scikit(_lbfgs, _wide), None),
    "l1": (
        _ours("logistic_l1", _latents, _COUNTS),
        _scikit(_saga, _latents, _COUNTS),
        _scikit(_liblinear, _latents, _COUNTS),
    ),
    "pca": (_ours("pca", _activations), None, _pca_loop),
    "knn": (_ours("knn", _activations), None, _knn_loop),
    "mlp": (_ours("mlp", _activations), None, _mlp_loop),
    "scarcity": (_scarcity, None, _scarcity_loop),
}
