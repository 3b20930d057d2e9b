"""From splits to scores: every (split, fold, hyperparameter, k, label vector) of a dataset at once.

A lane is one probe of one split: its rows, folds and candidates in padded arrays (`running.Lane`). Lanes of
one bucket of sizes share one compiled program, so a dataset's whole grid needs few programs. On a CPU a
program takes one lane at a time, so its loops stop when that lane is done, and as many run at once as there
are cores; on accelerators, and over a mesh of devices, a program takes many lanes.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxprobe import arguments, base, checks
from jaxprobe.metrics import DEFAULT as DEFAULT_METRICS
from jaxprobe.metrics import chosen as choose_metrics
from jaxprobe.probes import checked, fitted, lanes, registry, shaping
from jaxprobe.probes import scores as scoring
from jaxprobe.probes.host_probe import HostProbe
from jaxprobe.probes.probe import Probe
from jaxprobe.probes.running import Asked, Lane, Outcome, run
from jaxprobe.probes.scores import Scores

UNION_BUCKET = 1024  # columns of latents that several splits read are padded to multiples of this
MEMORY_GIB = 4.0


def fit_grid(
    probe: Probe | HostProbe | str,
    x_ND: Any,
    splits: Iterable[base.Split],
    *,
    x_shift_MD: Any = None,
    columns: Iterable[np.ndarray] | None = None,
    num_latents: int | Sequence[int] = (),
    dtype: str = "auto",
    memory_gib: float = MEMORY_GIB,
    mesh: Mesh | None = None,
    metrics: Iterable[str] = DEFAULT_METRICS,
    keep_scores: bool = False,
    keep_probes: bool = False,
) -> Scores:
    """Fits a probe on every split, and for every k, by the protocol.

    Args:
        probe: The method, or its name among `registry.PROBES`.
        x_ND: Finite float32 features, one row for each row that the splits number; may be traced (then
            values are not checked).
        splits: Rows, labels, weights, folds and test sets.
        x_shift_MD: Features of a shifted set, appended to `x_ND`: `covariate_shift` splits number the rows
            of `base.joined(dataset, shifted)`.
        columns: Per split, the columns to read (an SAE's latents, best first); None reads all.
        num_latents: One or several values of k: the probe reads the first k columns, or all where there are
            fewer than k.
        dtype: Arithmetic: `float64`, `float32`, or `auto`: float64 on CPUs (in a traced call, `auto` follows
            `jax_enable_x64`).
        memory_gib: Memory that all lanes of a program may take together, in GiB per device.
        mesh: Devices to spread the lanes over, whatever its axes; the numbers do not depend on it.
            `dtype`, `memory_gib` and `mesh` must be left out for methods of host libraries.
        metrics: Names from `metrics.METRICS`, to evaluate on every test set.
        keep_scores: Whether to return every row's log-odds too, as `predictions`.
        keep_probes: Whether to return the fitted probes too, as `probes`; not where `x_ND` is traced.

    Returns:
        Scores with arrays [splits], or [splits, k] with `columns`.

    Raises:
        ValueError: Features that are not finite or belong to another dataset, rows or columns that do not
            exist, labels that are not binary, weights for a method that does not use them, arguments
            without an effect, an unknown metric, or a memory budget that is too small for one lane.

    Example:
        >>> import numpy as np
        >>> import jaxprobe as jp
        >>> y = np.arange(400, dtype=np.int32) % 2
        >>> x = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32) + y[:, None]
        >>> data = jp.TextDataset(name="d", texts=tuple(map(str, range(400))), y_N=y,
        ...                       label_names=("a", "b"), source="memory")
        >>> scores = jp.fit_grid("logistic", x, jp.splits(data, "label_noise"))
        >>> scores.test_auroc.shape, bool(scores.test_auroc[0] > 0.95)
        ((11,), True)
    """
    method, probe = _named(probe)
    checked.settings(probe.on_host, dtype, memory_gib, mesh, MEMORY_GIB)
    splits = checked.sequence("splits", splits, "Split, as jaxprobe.splits gives")
    columns = None if columns is None else checked.sequence("columns", columns, "lists of columns")
    asked = Asked(tuple(choose_metrics(metrics).items()), scores=keep_scores, models=keep_probes)
    x_ND = _table(x_ND, x_shift_MD)
    checked.splits(splits, x_ND.shape[0], weighted=probe.weighted)
    counts = checked.columns(columns, num_latents, len(splits), x_ND.shape[1])
    traced = arguments.traced(x_ND)
    dtype = traced_dtype(dtype) if traced else resolve_dtype(dtype)
    if traced and (probe.on_host or keep_probes):
        what = "a method of a host library" if probe.on_host else "a grid whose probes are kept"
        raise ValueError(f"{what} cannot be traced; call it outside of jit")
    # The one place that distinguishes two kinds of methods.
    if isinstance(probe, HostProbe):
        found = _on_host(probe, x_ND, splits, columns, counts, asked)
        scores = shaping.shaped(found, splits, columns, counts, asked)
    else:
        with _precision(None if traced else dtype):
            found = _on_device(probe, x_ND, splits, columns, counts, asked, dtype, memory_gib, mesh)
            scores = shaping.shaped(found, splits, columns, counts, asked)
    if not keep_probes:
        return scores
    probes = [
        _kept(outcome, method, x_ND, splits[i // len(counts)], _read_by(columns, counts, i))
        for i, outcome in enumerate(found)
    ]
    return dataclasses.replace(scores, probes=shaping.nested(probes, np.shape(scores.valid_auroc)))


def _named(probe: Probe | HostProbe | str) -> tuple[str, Probe | HostProbe]:
    """A method and its name."""
    if isinstance(probe, Probe | HostProbe):
        known = (name for name, other in registry.PROBES.items() if other is probe)
        return next(known, "custom"), probe
    checks.check_choice("method", probe, registry.PROBES)
    return probe, registry.PROBES[probe]


def _read_by(columns: Sequence | None, counts: Sequence[int], lane: int) -> np.ndarray | None:
    """The columns that a lane reads; None for all."""
    if columns is None:
        return None
    return np.asarray(columns[lane // len(counts)])[: counts[lane % len(counts)]]


def _kept(
    outcome: Outcome, method: str, x_ND, split: base.Split, latents: np.ndarray | None
) -> fitted.FittedProbe | None:
    """The fitted probe; None where the method does not return its model."""
    if outcome.model is None:
        return None
    return fitted.kept(
        outcome.model,
        method=method,
        num_features=x_ND.shape[1],
        number_format=str(x_ND.dtype),
        num_train=len(split.train_N),
        latents=latents,
    )


def _table(x_ND, x_shift_MD):
    """Features of all rows, those of a shifted set last."""
    x_ND = arguments.features("x_ND", x_ND)
    if x_shift_MD is None:
        return x_ND
    x_shift_MD = arguments.features("x_shift_MD", x_shift_MD, (None, x_ND.shape[1]))
    host = isinstance(x_ND, np.ndarray) and isinstance(x_shift_MD, np.ndarray)
    return (np if host else jnp).concatenate([x_ND, x_shift_MD.astype(x_ND.dtype)])


def _on_device(
    probe: Probe,
    x_ND,
    splits: Sequence[base.Split],
    columns: Sequence[np.ndarray] | None,
    counts: Sequence[int],
    asked: Asked,
    dtype: str,
    memory_gib: float,
    mesh: Mesh | None,
) -> list[Outcome]:
    """An outcome for each split and each k, by compiled programs."""
    traced = arguments.traced(x_ND)
    all_lanes = lanes.lanes_of(probe, x_ND.shape[1], splits, columns, counts)
    x_MD = _padded_features(x_ND, columns is not None)
    if mesh is not None:
        x_MD = jax.device_put(x_MD, NamedSharding(mesh, PartitionSpec()))

    def call(chunk: Sequence[int]) -> Outcome:
        with _precision(None if traced else dtype):  # threads have settings of their own
            stacked = jax.tree.map(lambda *fields: np.stack(fields), *(all_lanes[i] for i in chunk))
            if mesh is not None:
                stacked = jax.device_put(
                    stacked, NamedSharding(mesh, PartitionSpec(mesh.axis_names))
                )
            return _program(probe, mesh, dtype, asked)(x_MD, stacked)

    shape = (x_MD.shape[0], x_MD.shape[1])
    calls = lanes.calls_of(all_lanes, shape, memory_gib, mesh)
    alone = traced or mesh is not None
    threads = 1 if alone else lanes.num_threads(all_lanes, shape, memory_gib)
    return _by_lane(_run_all(call, calls, threads))


def _on_host(
    probe: HostProbe,
    x_ND,
    splits: Sequence[base.Split],
    columns: Sequence[np.ndarray] | None,
    counts: Sequence[int],
    asked: Asked,
) -> list[Outcome]:
    """The same by a host library, one fit after another: the library has threads of its own."""
    found = []
    for s, split in enumerate(splits):
        for count in counts:
            column_K = slice(None) if columns is None else columns[s][:count]
            prediction = probe.fit(np.asarray(x_ND, np.float32)[:, column_K], split, split.seed)
            names = [name for name, _ in asked.metrics]
            found.append(
                Outcome(
                    valid_auroc=prediction.valid_auroc,
                    best_value=prediction.best_value,
                    converged=prediction.converged,
                    residual=prediction.residual,
                    metric_T=scoring.metrics_of(names, split, prediction),
                    score_M=np.concatenate([prediction.score_M[t.name] for t in split.tests]),
                    valid_score_FN=prediction.valid_score_FN,
                    model=prediction.model,
                )
            )
    return found


@contextlib.contextmanager
def _precision(dtype: str | None):
    """Settings of the arithmetic, which JAX keeps for each thread; None leaves the width as it is."""
    widened = contextlib.nullcontext() if dtype is None else jax.enable_x64(dtype == "float64")
    with widened, jax.default_matmul_precision("highest"):
        yield


def resolve_dtype(dtype: str) -> str:
    """Resolves `auto`: float64 on CPUs, where it takes twice as long and gives a sharp certificate."""
    checks.check_choice("dtype", dtype, ("auto", "float32", "float64"))
    if dtype == "auto":
        return "float64" if jax.default_backend() == "cpu" else "float32"
    return dtype


def traced_dtype(dtype: str) -> str:
    """As `resolve_dtype`, inside a caller's compiled program, whose number width is fixed.

    Raises:
        ValueError: `float64` without `jax_enable_x64`.
    """
    checks.check_choice("dtype", dtype, ("auto", "float32", "float64"))
    wide = jax.config.jax_enable_x64  # type: ignore[missing-attribute]
    if dtype == "float64" and not wide:
        raise ValueError(
            "`dtype` must be float32 inside a program traced without 64-bit numbers, got float64;"
            " set jax_enable_x64, or call from outside of jit"
        )
    return ("float64" if wide else "float32") if dtype == "auto" else dtype


@functools.cache
def _program(probe: Probe, mesh: Mesh | None, dtype: str, asked: Asked):
    """The compiled function of (features, stacked lanes): one program per shape of lane."""

    def one(x_MD, lane: Lane) -> Outcome:
        return run(probe, x_MD, lane, asked, map_folds, dtype)

    def many(x_MD, stacked: Lane) -> Outcome:
        if stacked.count.shape[0] == 1:
            alone = one(x_MD, jax.tree.map(lambda field: field[0], stacked))
            return jax.tree.map(lambda field: field[None], alone)
        return jax.vmap(one, (None, 0))(x_MD, stacked)

    if mesh is None:
        return jax.jit(many)
    by_lane = PartitionSpec(mesh.axis_names)
    spread = jax.shard_map(
        many, mesh=mesh, in_specs=(PartitionSpec(), by_lane), out_specs=by_lane, check_vma=False
    )
    return jax.jit(spread)


def num_programs(probe: Probe, mesh: Mesh | None = None, dtype: str = "auto") -> int:
    """Number of programs compiled so far for a probe: one per shape of lane."""
    asked = Asked(tuple(choose_metrics(DEFAULT_METRICS).items()))
    return _program(probe, mesh, resolve_dtype(dtype), asked)._cache_size()  # type: ignore[missing-attribute]


def map_folds(fold: Callable, given_F: Any) -> Any:
    """All folds at once on accelerators; on a CPU one after the other, the real ones only."""
    if jax.default_backend() == "cpu":
        return jax.lax.map(fold, given_F)
    return jax.vmap(fold)(given_F)


def _run_all(call: Callable, calls: list[list[list[int]]], threads: int):
    """`(lane numbers, scores)` of every call; a program's first call, which compiles it, precedes its others."""
    if threads == 1:
        return [(numbers, call(numbers)) for of_program in calls for numbers in of_program]

    def finish(numbers):
        return numbers, jax.block_until_ready(call(numbers))

    found = []
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        waiting = {pool.submit(finish, first): others for first, *others in calls}
        try:
            while waiting:
                done, _ = concurrent.futures.wait(waiting, return_when="FIRST_COMPLETED")
                for future in done:
                    found.append(future.result())
                    waiting |= {pool.submit(finish, other): [] for other in waiting.pop(future)}
        finally:  # after an error or an interrupt, calls that have not begun are dropped
            pool.shutdown(cancel_futures=True)
    return found


def _padded_features(x_ND, on_latents: bool):
    """All rows, then zeros up to a bucket; done once per call."""
    x_MD = jnp.asarray(x_ND)
    # The number of latents that some split kept differs from dataset to dataset.
    columns = -x_MD.shape[1] % UNION_BUCKET if on_latents else 0
    return jnp.pad(x_MD, ((0, -x_MD.shape[0] % lanes.TEST_BUCKET), (0, columns)))


def _by_lane(running: Sequence[tuple[list[int], Outcome]]) -> list[Outcome]:
    """Outcomes in the lanes' order; waits for the devices, except where everything is traced."""
    found = {}
    for chunk, outcome in running:
        if not arguments.traced(outcome.valid_auroc):
            outcome = jax.device_get(outcome)
        for i, number in enumerate(chunk):
            found[number] = jax.tree.map(lambda field, i=i: field[i], outcome)
    return [found[number] for number in sorted(found)]
