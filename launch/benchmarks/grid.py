"""Fits per second over a dataset's whole grid, and where the time goes.

A fit is one candidate in one fold, or a refit. The measured time is printed with lower bounds for this machine,
each measured here: `products` is one Hessian and one Cholesky factor per fit of the paths, in float32; `bytes` is
reading the features for two Newton steps per fit, twice each, in the precision of the arithmetic; `launch` is
calling as many programs that do nothing; `host` is building lanes and padding features. L1 fits read and factor
only the weights that are in use, so their products can be below that bound.
"""

import functools
import itertools
import time
from collections import Counter
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import finished_run
from benchmarks.timing import timed
from jaxprobe import base
from jaxprobe.probes import PROBES, grid, lanes, logistic
from jaxprobe.stages import run

_DATASETS = flags.DEFINE_integer("grid_datasets", 1, "grid: how many of the config's datasets.", 1)
_REGIMES = ("standard", "scarcity", "imbalance", "label_noise")
_COUNTS = (16, 128)
_STEPS = 2  # Newton steps per fit
_PASSES = 2  # reads of the features per step: for the gradient, and for the change of the logits


def suite(config: run.RunConfig, workdir) -> None:
    """A line per dataset and kind of probe."""
    found = finished_run.features(config, workdir)
    for features in itertools.islice(found, _DATASETS.value):
        splits = features.splits(config.job.seed, _REGIMES)
        print(f"\n  {features.dataset.name}: {len(splits)} splits, n_train {_sizes(splits)}")
        _measure("logistic", features.x_ND, splits, ())
        _measure("logistic_l1", features.z_NK, splits, _COUNTS)


def num_fits(splits: Sequence[base.Split]) -> int:
    """Number of fits of a logistic probe: candidates in all folds, and refits."""
    return sum(len(split.folds) * len(logistic.C_GRID) + 1 for split in splits)


def _measure(probe: str, x_ND, splits: Sequence[base.Split], counts: Sequence[int]) -> None:
    columns = [np.arange(x_ND.shape[1])] * len(splits) if counts else None
    started = time.perf_counter()

    def fit():
        return grid.fit_grid(
            PROBES[probe], x_ND, splits, columns=columns, num_latents=counts if columns else ()
        )

    scores = fit()
    first = time.perf_counter() - started
    _, seconds = timed(fit, repeats=1)
    fits = num_fits(splits) * max(len(counts), 1)
    floors = _floors(PROBES[probe], x_ND, splits, counts)
    print(
        f"  {probe:12} {fits:,} fits, {np.mean(scores.converged):.1%} of probes converged:"
        f" {fits / seconds.wall:,.0f} fits/s ({fits / seconds.cpu:,.0f} per CPU second); {seconds};"
        f" the first call, which compiles, {first:.1f} s\n"
        + "  floors: ".rjust(15)
        + ", ".join(f"{name} {floor:.2f} s" for name, floor in floors.items())
    )


def _floors(probe, x_ND, splits, counts) -> dict[str, float]:
    """Lower bounds on the CPU seconds of the work, by kind."""
    wide = grid.resolve_dtype("auto") == "float64"
    started = time.process_time()
    all_lanes = [
        lanes.make_lane(
            probe, split, x_ND.shape[1], np.arange(count) if count else np.zeros(0), count
        )
        for split in splits
        for count in counts or (0,)
    ]
    with jax.enable_x64(wide):
        jax.block_until_ready(jnp.asarray(x_ND).astype("float64" if wide else "float32"))
    host = time.process_time() - started
    empty = jax.jit(lambda problem: problem.count + 1)
    launch = timed(lambda: empty(all_lanes[0]))[1].cpu * len(all_lanes)
    products = read = 0.0
    for (num_train, width), number in _problems(splits, x_ND.shape[1], counts).items():
        products += number * _newton_seconds(num_train, width)
        read += number * _STEPS * _PASSES * _reading_seconds(num_train, width, wide)
    return {"products": products, "bytes": read, "launch": launch, "host": host}


def _problems(splits, d_model: int, counts) -> Counter:
    """Number of fits by (examples, columns); with fewer examples than columns, columns = examples."""
    found: Counter = Counter()
    for split in splits:
        for width in counts or (d_model,):
            for fold in split.folds:
                rows = len(fold.train)
                found[rows, min(width, rows)] += len(logistic.C_GRID)
            found[len(split.train_N), min(width, len(split.train_N))] += 1
    return found


@functools.cache
def _newton_seconds(num_train: int, width: int) -> float:
    z_NK = jnp.asarray(np.random.default_rng(0).normal(size=(num_train, width)), jnp.float32)

    @jax.jit
    def factor(z_NK):
        return jnp.linalg.cholesky(z_NK.T @ z_NK + num_train * jnp.eye(width, dtype=jnp.float32))

    return timed(lambda: factor(z_NK))[1].cpu


@functools.cache
def _reading_seconds(num_train: int, width: int, wide: bool) -> float:
    z_NK, v_K = np.ones((num_train, width)), np.ones(width)
    if not wide:
        z_NK, v_K = z_NK.astype(np.float32), v_K.astype(np.float32)
    repeats = max(1, int(1e7 / z_NK.size))
    started = time.process_time()
    for _ in range(repeats):
        z_NK @ v_K
    return (time.process_time() - started) / repeats


def _sizes(splits) -> str:
    sizes = [len(split.train_N) for split in splits]
    return f"{min(sizes)} to {max(sizes)}"
