"""From splits to scores: every (split, fold, hyperparameter, k, label vector) of a dataset at once.

A lane is one probe of one split: its rows, folds and candidates in padded arrays (`probe.Problem`).
Lanes of one bucket of sizes share one compiled program, so a dataset's whole grid needs a bounded
number of them. On a CPU a program takes a lane at a time, whose loops then stop when that lane is done, and
as many run at once as there are cores; on accelerators, and over a mesh of devices, a program takes many.
"""

import concurrent.futures
import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxprobe import arguments, base, checks
from jaxprobe.probes import checked, exact, table
from jaxprobe.probes.host import HostProbe
from jaxprobe.probes.probe import ROWS_AT_ONCE, Probe, Problem, Scores, run

# (training rows, folds) of a program: leave-two-out has up to 36 folds, six-fold 6, hold-out one.
BUCKETS = ((16, 36), (64, 6), (128, 6), (256, 1), (512, 1), (1024, 1))
ROW_BUCKET = 1024  # beyond the last bucket, training rows are padded to multiples of this
TEST_BUCKET = 5120  # rows of features and of tests are padded to multiples of this
LATENT_BUCKETS = (16, 128, 512)
UNION_BUCKET = 1024  # columns of latents that several splits read are padded to multiples of this
MAX_VALUES = 10  # candidates of a hyperparameter
MEMORY_GIB = 4.0
MAX_LANES = 64


def fit_grid(
    probe: Probe | HostProbe | str,
    x_ND,
    splits: Iterable[base.Split],
    *,
    x_shift_MD=None,
    columns: Iterable[np.ndarray] | None = None,
    num_latents: int | Sequence[int] = (),
    dtype: str = "auto",
    memory_gib: float = MEMORY_GIB,
    mesh: Mesh | None = None,
) -> Scores:
    """Fits a probe on every split, and for every k, by the protocol.

    Args:
        probe: The method, or its name among `table.PROBES`.
        x_ND: Finite float32 features of a dataset's N rows; may be traced (then their numbers are
            not looked at).
        splits: Rows, labels and folds.
        x_shift_MD: Features of the shifted set, whose rows `covariate_shift` splits test.
        columns: Per split, the columns to read (an SAE's latents, best first); None reads all.
        num_latents: Values of k, or one: the probe reads the first k columns; one beyond their number reads
            all that are there.
        dtype: Arithmetic: `float64`, `float32`, or `auto`: float64 on CPUs (traced, `auto` follows
            `jax_enable_x64`).
        memory_gib: What all lanes of a program may take together, in GiB a device.
        mesh: Devices to spread the lanes over, whatever its axes; the numbers do not depend on it.
            Methods of host libraries take the defaults of these three only.

    Returns:
        Scores with arrays [splits], or [splits, k] with `columns`.

    Raises:
        ValueError: Features that are not finite or not those of the splits' dataset, splits or columns
            that number rows or columns that are not there, labels that are not binary, arguments
            without an effect, or a memory budget that is too small for one lane.

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
    if not isinstance(probe, Probe | HostProbe):
        checks.check_choice("method", probe, table.PROBES)
        probe = table.PROBES[probe]
    checked.settings(isinstance(probe, HostProbe), dtype, memory_gib, mesh, MEMORY_GIB)
    splits = checked.sequence("splits", splits, "Split, as jaxprobe.splits gives")
    columns = None if columns is None else checked.sequence("columns", columns, "lists of columns")
    x_ND = arguments.features("x_ND", x_ND)
    if x_shift_MD is not None:
        x_shift_MD = arguments.features("x_shift_MD", x_shift_MD, (None, x_ND.shape[1]))
    checked.splits(splits, x_ND.shape[0], None if x_shift_MD is None else x_shift_MD.shape[0])
    counts = checked.columns(columns, num_latents, len(splits), x_ND.shape[1])
    traced = arguments.traced(x_ND, x_shift_MD)
    dtype = traced_dtype(dtype) if traced else resolve_dtype(dtype)
    if isinstance(probe, HostProbe):
        if traced:
            raise ValueError("a method of a host library cannot be traced; call it outside of jit")
        scores = _on_host(probe, x_ND, x_shift_MD, splits, columns, counts)
        return _shaped(scores, splits, columns, counts)
    lanes = _lanes(probe, x_ND.shape, splits, columns, counts)
    precision = functools.partial(_precision, None if traced else dtype)
    with precision():
        x_MD = _padded_features(x_ND, x_shift_MD, columns is not None)
        if mesh is not None:
            x_MD = jax.device_put(x_MD, NamedSharding(mesh, PartitionSpec()))

    def call(chunk: Sequence[int]) -> Scores:
        with precision():
            stacked = jax.tree.map(lambda *fields: np.stack(fields), *(lanes[i] for i in chunk))
            if mesh is not None:
                stacked = jax.device_put(
                    stacked, NamedSharding(mesh, PartitionSpec(mesh.axis_names))
                )
            return _program(probe, mesh, dtype)(x_MD, stacked)

    calls = _calls(lanes, (x_MD.shape[0], x_MD.shape[1]), memory_gib, mesh)
    threads = 1 if traced or mesh is not None else _num_threads(lanes, x_MD.shape, memory_gib)
    running = _run_all(call, calls, threads)
    with precision():
        return _shaped(_by_lane(running), splits, columns, counts)


@contextlib.contextmanager
def _precision(dtype: str | None):
    """Settings of the arithmetic, which JAX keeps for each thread; None leaves the width as it is."""
    widened = contextlib.nullcontext() if dtype is None else jax.enable_x64(dtype == "float64")
    with widened, jax.default_matmul_precision("highest"):
        yield


def lane(
    probe: Probe,
    split: base.Split,
    num_features: int,
    column_K: np.ndarray,
    count: int,
    offset: int,
) -> Problem:
    """One probe of one split in padded arrays.

    Args:
        probe: The method; its candidates depend on the split.
        split: Rows, labels and folds.
        num_features: Columns of the feature matrix.
        column_K: Columns to read, padded; empty for all.
        count: How many of them.
        offset: Added to test rows: where the tested set begins in the feature matrix.
    """
    num_train, num_folds = len(split.train_N), len(split.folds)
    padded_N, padded_F = _bucket(num_train, num_folds)
    padded_M = -(-max(len(split.test_N), 1) // TEST_BUCKET) * TEST_BUCKET
    valid_FN = np.zeros((padded_F, padded_N), np.float32)
    for f, fold in enumerate(split.folds):
        valid_FN[f, fold.valid] = 1
    width = count if len(column_K) else num_features
    smallest = min((len(fold.train) for fold in split.folds), default=num_train)
    value_H = np.asarray(probe.values(num_train, width, smallest), float)
    return Problem(
        train_N=_pad(split.train_N, padded_N, np.int32),
        y_N=_pad(split.y_train_N, padded_N, np.float32),
        weight_N=_pad(np.ones(num_train), padded_N, np.float32),
        valid_FN=valid_FN,
        fold_F=_pad(np.ones(num_folds), padded_F, np.float32),
        test_M=_pad(np.asarray(split.test_N) + offset, padded_M, np.int32),
        y_test_M=_pad(split.y_test_N, padded_M, np.float32),
        weight_M=_pad(np.ones(len(split.test_N)), padded_M, np.float32),
        column_K=np.asarray(column_K, np.int32),
        count=np.int32(count),
        value_H=np.pad(value_H, (0, max(MAX_VALUES - len(value_H), 0)), mode="edge"),
        num_values=np.int32(len(value_H)),
        default=np.float64(probe.default(num_train, width)),
        seed=np.uint32(split.seed),
    )


def num_lanes(shape: tuple, features: tuple[int, int], memory_gib: float, mesh) -> int:
    """Lanes of a program: one a device on CPUs, else what the budget holds.

    Raises:
        ValueError: Not even one fits.
    """
    devices = 1 if mesh is None else mesh.size
    needed = _lane_gib(shape, features)
    if needed > memory_gib:
        raise ValueError(
            f"`memory_gib` must be at least {needed:.2f} for a probe of {shape[0]} training rows on"
            f" {shape[3] or features[1]} features, got {memory_gib}; raise it, or probe fewer features"
        )
    if jax.default_backend() == "cpu":
        return devices
    fitting = int(min(memory_gib / needed, MAX_LANES))
    return devices * 2 ** (fitting.bit_length() - 1)


def resolve_dtype(dtype: str) -> str:
    """What `auto` stands for: float64 costs a CPU twice float32 and buys a sharp certificate; accelerators differ."""
    checks.check_choice("dtype", dtype, ("auto", "float32", "float64"))
    if dtype == "auto":
        return "float64" if jax.default_backend() == "cpu" else "float32"
    return dtype


def traced_dtype(dtype: str) -> str:
    """As `resolve_dtype` inside somebody's program, whose numbers may not widen half-way.

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
def _program(probe: Probe, mesh: Mesh | None, dtype: str):
    """The compiled function of (features, stacked lanes): one program a shape of lane."""

    def one(x_MD, problem: Problem) -> Scores:
        return run(probe, x_MD, problem, map_folds, dtype)

    def many(x_MD, stacked: Problem) -> Scores:
        if stacked.count.shape[0] == 1:
            alone = one(x_MD, jax.tree.map(lambda field: field[0], stacked))
            return jax.tree.map(lambda field: field[None], alone)
        return jax.vmap(one, (None, 0))(x_MD, stacked)

    if mesh is None:
        return jax.jit(many)
    lanes = PartitionSpec(mesh.axis_names)
    spread = jax.shard_map(
        many, mesh=mesh, in_specs=(PartitionSpec(), lanes), out_specs=lanes, check_vma=False
    )
    return jax.jit(spread)


def num_programs(probe: Probe, mesh: Mesh | None = None, dtype: str = "auto") -> int:
    """Programs compiled so far for a probe: one a shape of lane."""
    return _program(probe, mesh, resolve_dtype(dtype))._cache_size()  # type: ignore[missing-attribute]


def map_folds(fold, given_F):
    """All folds at once where the device is wide; on a CPU one after the other, the real ones only."""
    if jax.default_backend() == "cpu":
        return jax.lax.map(fold, given_F)
    return jax.vmap(fold)(given_F)


def _lanes(probe, shape, splits, columns, counts) -> list[Problem]:
    found = []
    for s, split in enumerate(splits):
        offset = shape[0] if split.regime == "covariate_shift" else 0
        for count in counts:
            column_K, kept = np.zeros(0, np.int32), 0
            if columns is not None:
                kept = min(count, len(columns[s]))
                width = _first_at_least(count, LATENT_BUCKETS)
                column_K = _pad(columns[s][:kept], width, np.int32)
            found.append(lane(probe, split, shape[1], column_K, kept, offset))
    return found


def _shape(problem: Problem) -> tuple:
    """What a program is compiled for: rows, folds, test rows, columns, candidates."""
    return (
        *(len(problem.train_N), len(problem.fold_F)),
        *(len(problem.test_M), len(problem.column_K), len(problem.value_H)),
    )


def _calls(lanes: Sequence[Problem], features, memory_gib: float, mesh) -> list[list[list[int]]]:
    """For every program its calls, each a list of lane numbers; what takes longest comes first.

    The last call of a program is filled up with repeats, so that one program serves all.
    """
    size_L = [np.sum(problem.weight_N) * (problem.count or features[1]) for problem in lanes]
    groups: dict[tuple, list[int]] = {}
    for i in np.argsort(-np.array(size_L), kind="stable").tolist():
        groups.setdefault(_shape(lanes[i]), []).append(i)
    calls = []
    for shape, members in groups.items():
        size = num_lanes(shape, features, memory_gib, mesh)
        starts = range(0, len(members), size)
        calls.append([(members[start : start + size] * size)[:size] for start in starts])
    return calls


def _num_threads(lanes: Sequence[Problem], features, memory_gib: float) -> int:
    """Calls at once on a CPU, whose cores one lane's small arrays leave idle: as many as fit the budget."""
    if jax.default_backend() != "cpu":
        return 1
    needed = max(_lane_gib(_shape(problem), features) for problem in lanes)
    return max(1, min(os.cpu_count() or 1, int(memory_gib / needed)))


def _run_all(call: Callable, calls: list[list[list[int]]], threads: int):
    """`(lane numbers, scores)` of every call; a program's first, which compiles it, before its others."""
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
        finally:  # after an error or an interrupt, what has not begun need not
            pool.shutdown(cancel_futures=True)
    return found


def _padded_features(x_ND, x_shift_MD, on_latents: bool):
    """Rows of the dataset, then of the shifted set, then zeros up to a bucket; once a call."""
    x_MD = jnp.asarray(x_ND)
    if x_shift_MD is not None:
        x_MD = jnp.concatenate([x_MD, jnp.asarray(x_shift_MD).astype(x_MD.dtype)])
    # The number of latents that some split kept differs from dataset to dataset.
    columns = -x_MD.shape[1] % UNION_BUCKET if on_latents else 0
    return jnp.pad(x_MD, ((0, -x_MD.shape[0] % TEST_BUCKET), (0, columns)))


def _on_host(probe: HostProbe, x_ND, x_shift_MD, splits, columns, counts) -> list[Scores]:
    """Fits one after the other; a library brings its own threads."""
    found = []
    for s, split in enumerate(splits):
        test = x_shift_MD if split.regime == "covariate_shift" else x_ND
        for count in counts:
            column_K = slice(None) if columns is None else columns[s][:count]
            train_ND, test_MD = (np.asarray(x, np.float32)[:, column_K] for x in (x_ND, test))
            found.append(probe.fit(train_ND, split, test_MD, split.seed))
    return found


def _lane_gib(shape: tuple, features: tuple[int, int]) -> float:
    """Upper estimate of a lane's arrays: features of its rows, Hessians, scores of all rows."""
    num_train, num_folds, num_test, width, num_values = shape
    width = width or features[1]
    columns = min(width, num_train) + 1
    numbers = 4 * num_train * width + 4 * columns**2 + 2 * num_test * 6
    numbers += num_folds * (num_values * (num_train + columns) + 2 * columns**2)
    numbers += ROWS_AT_ONCE * (width + features[1]) + num_train * features[1]
    return 8 * numbers / 2**30


def _bucket(num_train: int, num_folds: int) -> tuple[int, int]:
    for rows, folds in BUCKETS:
        if rows >= num_train and folds >= num_folds:
            return rows, folds
    return -(-num_train // ROW_BUCKET) * ROW_BUCKET, max(num_folds, 1)


def _first_at_least(size: int, buckets: Sequence[int]) -> int:
    return next((bucket for bucket in buckets if bucket >= size), size)


def _by_lane(running: Sequence[tuple[list[int], Scores]]) -> list[Scores]:
    """Scores in the lanes' order; waits for the devices, except where everything is traced."""
    found = {}
    for chunk, scores in running:
        if not isinstance(scores.test_auroc, jax.core.Tracer):
            scores = jax.device_get(scores)
        for i, number in enumerate(chunk):
            found[number] = Scores(*(field[i] for field in scores))
    return [found[number] for number in sorted(found)]


def _shaped(scores: Sequence[Scores], splits, columns, counts) -> Scores:
    traced = any(arguments.traced(one.test_auroc) for one in scores)
    stack = jnp.stack if traced else np.stack
    shape = (len(splits), len(counts)) if columns is not None else (len(splits),)
    if not traced:
        scores = [
            one._replace(valid_auroc=exact.valid_auroc(one.valid_auroc, splits[i // len(counts)]))
            for i, one in enumerate(scores)
        ]
    return Scores(*(stack(field).reshape(shape) for field in zip(*scores, strict=True)))


def _pad(array, size: int, dtype) -> np.ndarray:
    padded = np.zeros(size, dtype)
    padded[: len(array)] = array
    return padded
