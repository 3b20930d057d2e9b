"""Token activations to a trained SAE: `saes/NAME/sae.safetensors`, with its held-out quality inside.

Batches are shared by the devices there are; their number changes results by the order of sums only.
Everything random is addressed (by seed, epoch and prompt hash) and nothing depends on the clock,
so a run that was killed at any moment resumes and ends with the same bytes.
"""

import dataclasses
import functools
import hashlib
import time
from pathlib import Path

import jax
import numpy as np
from absl import logging
from tqdm import tqdm

from jaxprobe import checks, stopping
from jaxprobe.base import Site
from jaxprobe.checkpoints import LoadedSae, load_sae, native, save_sae, training_state
from jaxprobe.experiments.config import Common, SaeToTrain, TrainSae, saes_to_train
from jaxprobe.identity import digest
from jaxprobe.place import Place
from jaxprobe.saes import training
from jaxprobe.saes.rules import RULES
from jaxprobe.stages.sae_training.quality import Quality, measure_quality
from jaxprobe.stages.sae_training.tokens import ShuffledTokens, TokenStore, held_out_prompts
from jaxprobe.store import ActivationStore
from jaxprobe.workdir import Workdir

STATE_NAME = "training_state.safetensors"  # beside the SAE while it is being trained
SAMPLE_TOKENS = 16384  # on which the scaling and the first weights are measured


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSaeConfig:
    """One SAE to train: on what and for how long. Attributes are those of `experiments.config.TrainSae`."""

    site: str
    architecture: str = TrainSae.architecture
    d_sae: int = TrainSae.d_sae
    target_l0: float = TrainSae.target_l0
    num_tokens: int = TrainSae.num_tokens
    batch_size: int = TrainSae.batch_size
    learning_rate: float = TrainSae.learning_rate
    bandwidth: float = TrainSae.bandwidth
    compute_dtype: str = TrainSae.compute_dtype
    seed: int = TrainSae.seed
    held_out: float = TrainSae.held_out
    max_gib: float = TrainSae.max_gib
    checkpoint_seconds: float = TrainSae.checkpoint_seconds
    num_devices: int = TrainSae.num_devices

    @classmethod
    def of(cls, section: TrainSae, one: SaeToTrain) -> "TrainSaeConfig":
        """One of the SAEs that a config's section asks for."""
        return cls(
            site=str(one.site),
            architecture=one.architecture,
            d_sae=one.d_sae,
            target_l0=one.target_l0,
            num_tokens=section.num_tokens,
            batch_size=section.batch_size,
            learning_rate=section.learning_rate,
            bandwidth=section.bandwidth,
            compute_dtype=section.compute_dtype,
            seed=section.seed,
            held_out=section.held_out,
            max_gib=section.max_gib,
            checkpoint_seconds=section.checkpoint_seconds,
            num_devices=section.num_devices,
        )


def run(job: Common, store: ActivationStore, work: Workdir) -> None:
    """Trains every SAE that the job asks for and that is not there yet."""
    for one in saes_to_train(job):
        config = TrainSaeConfig.of(job.train_sae, one)
        train_sae(config, store, _folder(config, store, work))


def missing(job: Common, work: Workdir, store: ActivationStore) -> tuple[SaeToTrain, ...]:
    """The SAEs that are still to be trained."""
    return tuple(
        one
        for one in saes_to_train(job)
        if not _file(TrainSaeConfig.of(job.train_sae, one), store, work).exists()
    )


def load(job: Common, work: Workdir, store: ActivationStore) -> list[LoadedSae]:
    """The SAEs that the stage has trained for this job.

    Raises:
        FileNotFoundError: The stage has not been here.
    """
    found = []
    for one in saes_to_train(job):
        config = TrainSaeConfig.of(job.train_sae, one)
        folder = _folder(config, store, work)
        if not (folder / native.FILE_NAME).exists():
            raise FileNotFoundError(
                f"there is no SAE in {folder}; run the train_sae stage first (on the whole job, before"
                " any shard)"
            )
        found.append(load_sae(folder))
    return found


def _file(config: TrainSaeConfig, store: TokenStore, work: Workdir) -> Place:
    return _folder(config, store, work) / native.FILE_NAME


def _folder(config: TrainSaeConfig, store: TokenStore, work: Workdir) -> Place:
    """Where the SAE lies: another seed, or other tokens, make another one, which lies beside the first."""
    identity = _identity(config, store, store.token_prompt(Site.parse(config.site)))
    return work.saes / f"{sae_id(config).replace('/', '_')}-{digest(identity)[:8]}"


def train_sae(config: TrainSaeConfig, store: TokenStore, out_dir: Place | Path | str) -> LoadedSae:
    """Trains an SAE, resumes a run that was cut off, or loads a finished one.

    Args:
        config: What to do.
        store: Activations of every token at `config.site`.
        out_dir: The SAE's folder.

    Returns:
        The SAE; `metadata["training"]["held_out"]` holds its quality on held-out prompts.

    Raises:
        ValueError: A bad config, too few tokens, or a folder that belongs to another run.
    """
    check_config(config)
    out_dir = out_dir if isinstance(out_dir, Place) else Place.parse(out_dir)
    final, unfinished = out_dir / native.FILE_NAME, out_dir / STATE_NAME
    site = Site.parse(config.site)
    prompt_N = store.token_prompt(site)
    identity = _identity(config, store, prompt_N)
    if final.exists():
        loaded = load_sae(final)
        run = loaded.metadata.get("training", {}).get("run", {})
        training_state.check_identity(run, identity, final)
        unfinished.delete()  # the last act of a run that was killed before it
        return loaded
    is_held = _held_out_tokens(config, store, prompt_N)
    data = ShuffledTokens(
        store=store,
        site=site,
        row_N=np.flatnonzero(~is_held),
        batch_size=config.batch_size,
        seed=config.seed,
        max_bytes=int(config.max_gib * 2**30),
    )
    sae, keep = _train(config, data, unfinished, identity)
    held_N = np.flatnonzero(is_held)
    try:
        quality = measure_quality(sae, store, site, held_N, _is_last(prompt_N)[held_N])
    except KeyboardInterrupt:
        with stopping.held():
            keep()
        raise
    save_sae(final, sae, _metadata(config, store, identity, quality))
    unfinished.delete()
    logging.info("%s: %s", final, quality)
    return load_sae(final)


def _train(config: TrainSaeConfig, data: ShuffledTokens, unfinished: Place, identity: dict):
    """Runs the steps that are still to be run; the SAE on raw activations, and what saves its state."""
    recipe = training.Recipe(
        num_steps=max(1, config.num_tokens // config.batch_size),
        target_l0=config.target_l0,
        learning_rate=config.learning_rate,
        bandwidth=config.bandwidth,
        compute_dtype=config.compute_dtype,
        architecture=config.architecture,
    )
    sample_ND = data.sample(max(SAMPLE_TOKENS, 2 * config.d_sae))
    scaling = training.fit_scaling(sample_ND)
    initialise = functools.partial(training.initialise, recipe=recipe, d_sae=config.d_sae)
    inputs = training.normalise(scaling, sample_ND), jax.random.key(config.seed)
    if unfinished.exists():
        state = training_state.load(unfinished, jax.eval_shape(initialise, *inputs), identity)
    else:
        state = jax.jit(initialise)(*inputs)
    everywhere, by_rows = _shardings(config)
    state, scaling = jax.device_put((state, scaling), everywhere)
    step = jax.jit(training.train_step, static_argnames="recipe", donate_argnames="state")
    first, report, saved_at = int(state.step), None, time.monotonic()
    with _bar(config, recipe, first) as bar:
        for number in range(first, recipe.num_steps):
            # A stop waits for the step's end: the state is given to the step and comes back from it.
            with stopping.held():
                batch_BD = jax.device_put(data.batch(number), by_rows)
                _show(bar, report, config.batch_size)  # waits for the step before: one batch ahead
                state, report = step(state, batch_BD, scaling, recipe=recipe)
                due = time.monotonic() - saved_at >= config.checkpoint_seconds
                if due or stopping.asked():
                    training_state.save(unfinished, state, identity)
                    saved_at = time.monotonic()
        _show(bar, report, config.batch_size)
    keep = functools.partial(training_state.save, unfinished, state, identity)
    return jax.device_put(training.fold(state, scaling, recipe), jax.devices()[0]), keep


def _shardings(config: TrainSaeConfig) -> tuple[jax.sharding.Sharding, jax.sharding.Sharding]:
    """Where the state lies, and where a batch does: copies on every device, and a part on each."""
    most = min(config.num_devices or len(jax.devices()), len(jax.devices()))
    count = max(n for n in range(1, most + 1) if config.batch_size % n == 0)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:count]), ("batch",))
    named = lambda *axes: jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
    return named(), named("batch", None)


def _bar(config: TrainSaeConfig, recipe: training.Recipe, first: int) -> tqdm:
    """The progress bar, in tokens, so that its rate is tokens per second."""
    return tqdm(
        desc=f"train SAE {config.site}",
        total=recipe.num_steps * config.batch_size,
        initial=first * config.batch_size,
        unit="tok",
        unit_scale=True,
        dynamic_ncols=True,
    )


def _show(bar: tqdm, report: training.StepReport | None, num_tokens: int) -> None:
    """Moves the bar on by one step that has ended."""
    if report is None:
        return
    loss, l0, dead = (float(value) for value in report)
    bar.set_postfix_str(
        f"loss {loss:.3f}, explained {1 - loss:.3f}, L0 {l0:.1f}, dead {dead:.1%}", refresh=False
    )
    bar.update(num_tokens)


def _held_out_tokens(config: TrainSaeConfig, store: TokenStore, prompt_N: np.ndarray) -> np.ndarray:
    """Which tokens belong to held-out prompts; raises ValueError unless some do and some do not."""
    is_held = held_out_prompts(store.prompt_hashes(), config.seed, config.held_out)[prompt_N]
    if is_held.all() or not is_held.any():
        raise ValueError(
            f"`held_out` = {config.held_out} leaves {np.count_nonzero(~is_held)} tokens to train on"
            f" and {np.count_nonzero(is_held)} to measure with at {config.site}; extract more"
            " prompts"
        )
    return is_held


def _is_last(prompt_N: np.ndarray) -> np.ndarray:
    """Which tokens are the last of their prompt."""
    return np.append(prompt_N[1:] != prompt_N[:-1], True)


def _identity(config: TrainSaeConfig, store: TokenStore, prompt_N: np.ndarray) -> dict:
    """Everything that decides the result: the config (less what cannot), and the tokens."""
    without = ("checkpoint_seconds", "num_devices")
    fields = {k: v for k, v in dataclasses.asdict(config).items() if k not in without}
    if config.architecture == "jump_relu":
        del fields["architecture"]  # runs from before there were others are the same runs
    content = hashlib.sha256("".join(store.prompt_hashes()).encode())
    content.update(np.ascontiguousarray(prompt_N, np.int64).tobytes())
    return {**fields, "store": store.digest, "tokens": content.hexdigest()}


def _metadata(
    config: TrainSaeConfig, store: TokenStore, identity: dict, quality: dict[str, Quality]
) -> dict:
    """What the SAE's file says about it; nothing of the clock, so equal runs make equal files."""
    fingerprint = getattr(store, "fingerprint", {})
    return {
        "id": sae_id(config),
        "site": config.site,
        "model": fingerprint.get("model"),
        "expected_l0": quality["all_tokens"].l0,
        **({"prepend_bos": fingerprint["bos"] is not None} if "bos" in fingerprint else {}),
        "training": {
            "run": identity,
            "held_out": {name: dataclasses.asdict(part) for name, part in quality.items()},
        },
    }


def sae_id(config: TrainSaeConfig | SaeToTrain) -> str:
    """What the `features` column of result rows will call the SAE."""
    return f"{config.architecture}/{config.site}/width_{config.d_sae}/l0_{config.target_l0:g}"


def check_config(config: TrainSaeConfig) -> None:
    """Raises ValueError for numbers that cannot work."""
    checks.check_choice("architecture", config.architecture, RULES)
    for name in ("d_sae", "num_tokens", "batch_size", "learning_rate", "bandwidth", "max_gib"):
        checks.check_positive(name, getattr(config, name))
    if not 0 < config.target_l0 < config.d_sae:
        raise ValueError(
            f"`target_l0` must lie between 0 and d_sae = {config.d_sae}, got {config.target_l0}"
        )
    if not 0 < config.held_out < 1:
        raise ValueError(f"`held_out` must lie between 0 and 1, got {config.held_out}")
    if config.num_devices < 0:
        raise ValueError(f"`num_devices` must be 0 (all) or more, got {config.num_devices}")
    checks.check_choice("compute_dtype", config.compute_dtype, ("bfloat16", "float32"))
