"""Training an SAE on the run's own token activations, against SAELens' trainer if installed.

Same tokens in the same order, same width and batch, same L0 (fixed by BatchTopK and TopK). Each side has its own
learning rate: ours is the recipe's, theirs the best of a few.
"""

import functools
import importlib
import time

import jax
import numpy as np

from benchmarks.timing import Seconds
from jaxprobe import saes
from jaxprobe.base import Site
from jaxprobe.saes import training
from jaxprobe.store import ActivationStore
from jaxprobe.workdir import Workdir

D_SAE, TARGET_L0, BATCH, NUM_STEPS, MOST_TOKENS = 4096, 62, 512, 100, 60_000
WARM_STEPS = 3  # not timed: they compile and allocate
OURS = ("jump_relu", "batch_topk", "topk")
# Its default rate is 3e-4, meant for a thousand times more steps; autocast computes in bfloat16.
THEIRS = (
    ("batchtopk", 4e-3, False),
    ("batchtopk", 4e-3, True),
    ("topk", 4e-3, False),
    ("topk", 1e-2, False),
)


def suite(config, workdir) -> None:
    """One line per run: speed, variance explained and L0 on held-out tokens."""
    train_ND, valid_ND = _tokens(config, workdir)
    num_steps = max(WARM_STEPS + 1, min(NUM_STEPS, 4 * len(train_ND) // BATCH))
    batches = functools.partial(_batch, train_ND)
    print(
        f"  {num_steps} steps of {BATCH} tokens, d_sae {D_SAE}, L0 {TARGET_L0}, {config.job.site}"
    )
    rows = {}
    for name in OURS:
        rows[f"ours {name}"] = _ours(name, batches, num_steps, train_ND, valid_ND)
    for name, rate, autocast in THEIRS:
        label = f"SAELens {name} lr {rate:g}{' bfloat16' if autocast else ''}"
        row = _theirs(label, name, rate, autocast, batches, num_steps, valid_ND)
        if row is None:
            print("  SAELens is not installed (pip install 'jaxprobe[parity]')")
            return
        rows[label] = row
    for ours, theirs in (("ours batch_topk", "SAELens batchtopk"), ("ours topk", "SAELens topk")):
        others = [rows[label] for label in rows if label.startswith(f"{theirs} ")]
        wall = min(seconds.wall for seconds, _ in others) / rows[ours][0].wall
        cpu = min(seconds.cpu for seconds, _ in others) / rows[ours][0].cpu
        print(
            f"  {theirs} (fastest) / {ours}: time {wall:.2f} wall, {cpu:.2f} CPU; variance explained"
            f" {rows[ours][1]:.4f} ours, {max(explained for _, explained in others):.4f} theirs (best)"
        )


def _tokens(config, workdir) -> tuple[np.ndarray, np.ndarray]:
    """Activations to train on, shuffled, and the last tenth of the store to measure on."""
    store, site = (
        ActivationStore.open(Workdir.parse(workdir).activations),
        Site.parse(config.job.site),
    )
    count = min(store.num_tokens(site), MOST_TOKENS)
    if count < 2 * BATCH:
        raise ValueError(f"the train_sae suite needs {2 * BATCH} tokens at {site}, got {count}")
    x_ND = store.read_tokens(site, np.arange(count))
    train_ND = x_ND[: -count // 10]
    return train_ND[np.random.default_rng(0).permutation(len(train_ND))], x_ND[-count // 10 :]


def _batch(train_ND: np.ndarray, number: int) -> np.ndarray:
    start = number % (len(train_ND) // BATCH) * BATCH
    return train_ND[start : start + BATCH]


def _ours(name: str, batches, num_steps: int, train_ND, valid_ND):
    recipe = training.Recipe(num_steps=num_steps, target_l0=TARGET_L0, architecture=name)
    scaling = training.fit_scaling(train_ND[:16384])
    start = functools.partial(training.initialise, recipe=recipe, d_sae=D_SAE)
    state = jax.jit(start)(training.normalise(scaling, train_ND[:16384]), jax.random.key(0))
    step = jax.jit(training.train_step, static_argnames="recipe", donate_argnames="state")
    clock = _Clock()
    for number in range(num_steps):
        state, _ = step(state, batches(number), scaling, recipe=recipe)
        if number == WARM_STEPS - 1:
            jax.block_until_ready(state)
            clock.start()
    jax.block_until_ready(state)
    seconds = clock.per(num_steps - WARM_STEPS)
    sae = training.fold(state, scaling, recipe)
    z_NS = saes.encode(sae, valid_ND)
    return _row(f"ours {name}", seconds, z_NS, saes.decode(sae, z_NS), valid_ND)


def _theirs(label: str, name: str, rate: float, autocast: bool, batches, num_steps: int, valid_ND):
    """SAELens' own trainer, fed with the same batches; None where it is not installed."""
    try:
        registry = importlib.import_module("sae_lens.registry")
    except ImportError:
        return None
    torch = importlib.import_module("torch")
    trainer = importlib.import_module("sae_lens.training.sae_trainer")
    config_type = importlib.import_module("sae_lens.config").SAETrainerConfig
    torch.manual_seed(0)
    sae_class, config_class = registry.get_sae_training_class(name)
    sae = sae_class(
        config_class(
            d_in=valid_ND.shape[1],
            d_sae=D_SAE,
            k=TARGET_L0,
            normalize_activations="expected_average_only_in",
        )
    )
    clock = _Clock()
    warm_up = max(1, num_steps // 20)
    settings = config_type(
        total_training_samples=num_steps * BATCH,
        train_batch_size_samples=BATCH,
        lr=rate,
        autocast=autocast,
        lr_end=0.0,
        lr_warm_up_steps=warm_up,
        lr_decay_steps=num_steps - warm_up,
        n_batches_for_norm_estimate=16,
    )

    def provide():
        for number in range(16):  # for the estimate of the activations' norm
            yield torch.from_numpy(batches(number))
        for number in range(num_steps):
            if number == WARM_STEPS:
                clock.start()
            yield torch.from_numpy(batches(number))

    trainer.SAETrainer(settings, sae, provide()).fit()
    seconds = clock.per(num_steps - WARM_STEPS)
    with torch.no_grad():
        # As in training, the batch's own top k: the average threshold would lag behind.
        z_NS = sae.encode(torch.from_numpy(valid_ND))
        x_hat = sae.decode(z_NS)
        z_NS = z_NS.to_dense() if z_NS.is_sparse else z_NS
    return _row(label, seconds, z_NS.float().numpy(), x_hat.float().numpy(), valid_ND)


def _row(name: str, seconds: Seconds, z_NS, x_hat_ND, valid_ND) -> tuple[Seconds, float]:
    """Prints a line; returns seconds per step and variance explained."""
    error = float(((np.asarray(x_hat_ND) - valid_ND) ** 2).sum(dtype=np.float64))
    centred_ND = valid_ND - valid_ND.mean(axis=0)
    explained = 1 - error / float((centred_ND**2).sum(dtype=np.float64))
    l0 = float((np.asarray(z_NS) > 0).sum(axis=1).mean())
    print(
        f"  {name:34} {BATCH / seconds.wall:7,.0f} tokens/s, {BATCH / seconds.cpu:7,.0f} per CPU second,"
        f" variance explained {explained:.4f}, L0 {l0:.1f}",
        flush=True,
    )
    return seconds, explained


class _Clock:
    """Wall and CPU time since `start`."""

    def start(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def per(self, count: int) -> Seconds:
        """Seconds for each of `count` parts."""
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        return Seconds(wall / count, cpu / count)
