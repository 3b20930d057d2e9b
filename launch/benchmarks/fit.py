"""Probes against other libraries, called as the published package calls them.

Both sides fit the same rows in one process, one after the other: every candidate in every fold, and the refit.
`package` is sae-probes' own functions, with their usual BLAS threads. The other sides have one thread, as ours:
`converged` is scikit-learn's L2 optimum (newton-cholesky on centred features), `newton` the same solver with its
defaults, `liblinear`, `lbfgs` the package's solver, `sklearn` its other calls, `probekit` its batched Newton fits.
What is not installed is left out. Our times are medians of three after the first call, wall and CPU (of all threads,
which a busy machine disturbs least); compiling is reported separately. Excess is the largest relative amount, over
all C, by which our objective is above the best of the other sides'; negative where all of them stopped early.
"""

import functools
import importlib.util
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from benchmarks import finished_run, peers
from benchmarks.timing import Seconds
from jaxprobe import base
from jaxprobe.probes import PROBES, grid, logistic, logistic_l1
from jaxprobe.stages import run

_WORKS = flags.DEFINE_list(
    "fit_works", ["l2", "l2_wide", "l1", "pca", "knn", "mlp", "scarcity"], "fit: what to time."
)
_OTHERS = flags.DEFINE_list("fit_others", [], "fit: sides to run beside ours; all where empty.")
_SLOW = flags.DEFINE_integer(
    "fit_slow", 3, "fit: datasets on which sides that need minutes for each run too.", 0
)
_NEEDED = {
    "probekit": ("probekit", "--no-deps probekit torch"),
    "package": ("sae_probes", "sae-probes"),
}
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_SCARCE_COUNT = 128  # latents of the scarcity regime's L1 probes
_WIDE = 3584  # d_model of Gemma 2 9B


class Rows(NamedTuple):
    """One dataset's features, and the splits that both sides fit."""

    name: str
    x_ND: np.ndarray
    z_NK: np.ndarray
    split: base.Split
    scarce: tuple[base.Split, ...]


class Fitted(NamedTuple):
    """One side's result: seconds, test AUROCs, and per (k, C) the objective in the last fold."""

    seconds: Seconds
    auroc_P: np.ndarray
    objective_PR: np.ndarray | None = None


Side = Callable[[Rows], Fitted]


class Work(NamedTuple):
    """What is timed: our side, the others by name, and which of them need minutes."""

    ours: Side
    others: Mapping[str, Side]
    slow: frozenset[str] = frozenset()


def suite(config: run.RunConfig, workdir) -> None:
    """One table per kind of work, and its means."""
    warnings.simplefilter("ignore")  # the other sides often warn that they stopped early
    known = {side for work in _SUITES.values() for side in work.others}
    if unknown := set(_OTHERS.value) - known:
        raise ValueError(f"unknown {sorted(unknown)} in --fit_others; known: {sorted(known)}")
    everything = list(_read(config, workdir))
    for work in _WORKS.value:
        if work not in _SUITES:
            raise ValueError(f"unknown work {work!r} in --fit_works; known: {', '.join(_SUITES)}")
        _compare(work, everything, _SUITES[work])


def _read(config: run.RunConfig, workdir):
    for features in finished_run.features(config, workdir):
        yield Rows(
            name=features.dataset.name,
            x_ND=features.x_ND,
            z_NK=features.z_NK,
            split=features.splits(config.job.seed, ("standard",))[0],
            scarce=tuple(features.splits(config.job.seed, ("scarcity",))),
        )


def _compare(work: str, everything: Sequence[Rows], sides: Work) -> None:
    others = {name: side for name, side in sides.others.items() if _available(name)}
    if "package" in others:
        peers.start_package()
    heads = "".join(f" {name + ' s':>12} ratio (CPU)  AUROC " for name in others)
    print(f"\n  {work:26} {'ours s (CPU)':>15}  AUROC {heads}  excess")
    ratios: dict[str, list[tuple[float, float]]] = {name: [] for name in others}
    gaps: dict[str, list[float]] = {name: [] for name in others}
    compiling = 0.0
    for i, rows in enumerate(everything):
        first = sides.ours(rows)
        runs = [sides.ours(rows) for _ in range(3)]
        wall, cpu = np.median([one.seconds for one in runs], axis=0)
        mine = runs[0]._replace(seconds=Seconds(float(wall), float(cpu)))
        compiling += max(0.0, first.seconds.wall - mine.seconds.wall)
        cells, objectives = [], []
        for name, side in others.items():
            if name in sides.slow and i >= _SLOW.value:
                cells.append(f" {'-':>12} {'-':>11}  {'-':>6}")
                continue
            other = side(rows)
            by_wall, by_cpu = (b / a for a, b in zip(mine.seconds, other.seconds, strict=True))
            ratios[name].append((by_wall, by_cpu))
            gaps[name].append(float(np.nanmean(np.abs(mine.auroc_P - other.auroc_P))))
            seconds = f"{other.seconds.wall:12.2f} {by_wall:5.1f} ({by_cpu:.1f})"
            cells.append(f" {seconds}  {np.nanmean(other.auroc_P):.4f}")
            if other.objective_PR is not None:
                objectives.append(other.objective_PR)
        print(
            f"  {rows.name:26} {mine.seconds.wall:7.3f} ({mine.seconds.cpu:.3f})"
            f"  {np.nanmean(mine.auroc_P):.4f}{''.join(cells)}  {_excess(mine, objectives)}",
            flush=True,
        )
    for name in others:
        _summarise(name, ratios[name], gaps[name])
    print(f"  compiling {compiling:.0f} s in all")


def _available(side: str) -> bool:
    if _OTHERS.value and side not in _OTHERS.value:
        return False
    module, requirements = _NEEDED.get(side, ("sklearn", "scikit-learn"))
    if importlib.util.find_spec(module) is None:
        print(f"\n  {module} is not installed (pip install {requirements}): {side} is left out")
        return False
    return True


def _summarise(name: str, ratios: Sequence[tuple[float, float]], gaps: Sequence[float]) -> None:
    if not ratios:
        return
    means, least = np.exp(np.mean(np.log(ratios), axis=0)), np.min(ratios, axis=0)
    print(
        f"  {name}: geometric mean of ratios {means[0]:.1f} by wall time, {means[1]:.1f} by CPU time;"
        f" least {least[0]:.1f} and {least[1]:.1f}, on {len(ratios)} datasets; |AUROC difference|"
        f" mean {np.mean(gaps):.4f}, largest {max(gaps):.4f}"
    )


def _excess(mine: Fitted, objectives: Sequence[np.ndarray]) -> str:
    if mine.objective_PR is None or not objectives:
        return "-"
    return f"{np.max(mine.objective_PR / np.min(objectives, axis=0) - 1):+.1e}"


def _timed(work: Callable[[], Any]) -> tuple[Any, Seconds]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def _ours(probe: str, features: Callable[[Rows], np.ndarray], counts: Sequence[int] = ()) -> Side:
    """Our side: the engine's call, and, not timed, the path's objectives in the last fold."""

    def fit(rows: Rows) -> Fitted:
        x_ND = features(rows)
        columns = [np.arange(x_ND.shape[1])] if counts else None
        scores, seconds = _timed(
            lambda: grid.fit_grid(
                PROBES[probe],
                x_ND,
                [rows.split],
                columns=columns,
                num_latents=counts if columns else (),
            )
        )
        objective_PR = None
        if probe in _PATHS:
            widths = counts or (x_ND.shape[1],)
            objective_PR = np.stack([_objectives(probe, x_ND[:, :k], rows.split) for k in widths])
        return Fitted(seconds, np.ravel(scores.test_auroc), objective_PR)

    return fit


_PATHS = {"logistic": jax.jit(logistic.fit_path), "logistic_l1": jax.jit(logistic_l1.fit_path)}


def _objectives(probe: str, x_ND, split: base.Split) -> np.ndarray:
    train_N = split.folds[-1].train
    with jax.enable_x64(True):
        x_ND = x_ND[split.train_N[train_N]].astype(np.float64)
        x_ND = x_ND - x_ND.mean(0)
        y_N = split.y_train_N[train_N].astype(np.float64)
        path = _PATHS[probe](x_ND, y_N, np.ones(len(y_N)), logistic.C_GRID)
        return np.asarray(path.objective)


def _theirs(loop, features: Callable[[Rows], np.ndarray], counts: Sequence[int] = ()) -> Side:
    """Another side: one of `peers`' loops, at every k."""

    def fit(rows: Rows) -> Fitted:
        x_ND = features(rows)
        widths = counts or (x_ND.shape[1],)
        found, seconds = _timed(lambda: [loop(x_ND[:, :k], rows.split) for k in widths])
        if not isinstance(found[0], tuple):
            return Fitted(seconds, np.array(found))
        return Fitted(seconds, np.array([one[0] for one in found]), np.stack([o[1] for o in found]))

    return fit


def _activations(rows: Rows) -> np.ndarray:
    return rows.x_ND


def _latents(rows: Rows) -> np.ndarray:
    return rows.z_NK


def _wide(rows: Rows) -> np.ndarray:
    """The activations rotated into 3,584 dimensions, with 1 % of noise so that all of them vary."""
    rng = np.random.default_rng(0)
    turn_DE = rng.normal(size=(rows.x_ND.shape[1], _WIDE)) / np.sqrt(_WIDE)
    noise = 0.01 * rows.x_ND.std()
    wide_NE = rows.x_ND @ turn_DE + noise * rng.normal(size=(len(rows.x_ND), _WIDE))
    return wide_NE.astype(np.float32)


def _scarcity(rows: Rows) -> Fitted:
    """All levels and folds: L2 on activations, L1 on 128 latents."""
    z_NK = rows.z_NK[:, :_SCARCE_COUNT]
    columns = [np.arange(z_NK.shape[1])] * len(rows.scarce)

    def work():
        dense = grid.fit_grid(PROBES["logistic"], rows.x_ND, rows.scarce)
        sparse = grid.fit_grid(
            *(PROBES["logistic_l1"], z_NK, rows.scarce),
            columns=columns,
            num_latents=(_SCARCE_COUNT,),
        )
        return [np.ravel(scores.test_auroc) for scores in (dense, sparse)]

    aurocs, seconds = _timed(work)
    return Fitted(seconds, np.concatenate(aurocs))


def _scarcity_loop(solver: peers.Settings, *, centre: bool = False) -> Side:
    """The same by scikit-learn: L2 by `solver`, L1 by liblinear."""
    dense, sparse = _scikit(solver, centre=centre), _scikit(peers.liblinear)

    def fit(rows: Rows) -> Fitted:
        both = ((rows.x_ND, dense), (rows.z_NK[:, :_SCARCE_COUNT], sparse))
        aurocs, seconds = _timed(
            lambda: [loop(x_ND, split)[0] for x_ND, loop in both for split in rows.scarce]
        )
        return Fitted(seconds, np.array(aurocs))

    return fit


def _scikit(settings: peers.Settings, *, centre: bool = False):
    return functools.partial(peers.scikit_logistic, settings=settings, centre=centre)


def _beside_package(probe: str, loop, function: str) -> Work:
    """A baseline on activations: scikit-learn in the package's loop, and the package itself."""
    package = _theirs(peers.package(function), _activations)
    return Work(
        _ours(probe, _activations),
        {"sklearn": _theirs(loop, _activations), "package": package},
    )


_SUITES = {
    "l2": Work(
        _ours("logistic", _activations),
        {
            "converged": _theirs(_scikit(peers.converged, centre=True), _activations),
            "newton": _theirs(_scikit(peers.newton), _activations),
            "probekit": _theirs(peers.probekit_logistic, _activations),
            "lbfgs": _theirs(_scikit(peers.lbfgs), _activations),
            "package": _theirs(peers.package("find_best_reg"), _activations),
        },
        frozenset({"package"}),
    ),
    "l2_wide": Work(
        _ours("logistic", _wide),
        {
            "probekit": _theirs(peers.probekit_logistic, _wide),
            "lbfgs": _theirs(_scikit(peers.lbfgs), _wide),
            "package": _theirs(peers.package("find_best_reg"), _wide),
        },
        frozenset({"probekit", "package"}),
    ),
    "l1": Work(
        _ours("logistic_l1", _latents, _COUNTS),
        {
            "liblinear": _theirs(_scikit(peers.liblinear), _latents, _COUNTS),
            "package": _theirs(peers.package("find_best_reg", penalty="l1"), _latents, _COUNTS),
        },
        frozenset({"package"}),
    ),
    "pca": _beside_package("pca", peers.pca, "find_best_pcareg"),
    "knn": _beside_package("knn", peers.knn, "find_best_knn"),
    "mlp": _beside_package("mlp", peers.mlp, "find_best_mlp"),
    "scarcity": Work(
        _scarcity,
        {
            "converged": _scarcity_loop(peers.converged, centre=True),
            "lbfgs": _scarcity_loop(peers.lbfgs),
        },
    ),
}
