"""The training steps of one SAE, over all devices, with the state saved at intervals."""

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from jaxprobe import stopping
from jaxprobe.checkpoints import training_state
from jaxprobe.place import Place
from jaxprobe.saes import training
from jaxprobe.training.settings import SaeToTrain
from jaxprobe.training.tokens import ShuffledTokens

SAMPLE_TOKENS = 16384  # used to measure the scaling and the initial weights


def train(
    wanted: SaeToTrain, data: ShuffledTokens, unfinished: Place, identity: Mapping[str, Any]
) -> tuple[Any, Callable[[], None]]:
    """Runs the remaining steps.

    Args:
        wanted: What to train.
        data: Its batches.
        unfinished: The file of the state, from which it resumes.
        identity: What that file must belong to.

    Returns:
        The SAE on raw activations, and what saves the last state.

    Raises:
        ValueError: The state is damaged or belongs to another run.
    """
    recipe = _recipe(wanted)
    state, scaling = _start(wanted, recipe, data, unfinished, identity)
    everywhere, by_rows = _shardings(wanted)
    state, scaling = jax.device_put((state, scaling), everywhere)
    step = jax.jit(training.train_step, static_argnames="recipe", donate_argnames="state")
    first, report, saved_at = int(state.step), None, time.monotonic()
    with _bar(wanted, recipe, first) as bar:
        for number in range(first, recipe.num_steps):
            # A stop waits for the step's end: the state is given to the step and comes back from it.
            with stopping.held():
                batch_BD = jax.device_put(data.batch(number), by_rows)
                _show(bar, report, wanted.batch_size)  # waits for the step before: one batch ahead
                state, report = step(state, batch_BD, scaling, recipe=recipe)
                due = time.monotonic() - saved_at >= wanted.checkpoint_seconds
                if due or stopping.asked():
                    training_state.save(unfinished, state, identity)
                    saved_at = time.monotonic()
        _show(bar, report, wanted.batch_size)
    keep = functools.partial(training_state.save, unfinished, state, identity)
    return jax.device_put(training.fold(state, scaling, recipe), jax.devices()[0]), keep


def _recipe(wanted: SaeToTrain) -> training.Recipe:
    return training.Recipe(
        num_steps=max(1, wanted.num_tokens // wanted.batch_size),
        target_l0=wanted.target_l0,
        learning_rate=wanted.learning_rate,
        bandwidth=wanted.bandwidth,
        compute_dtype=wanted.compute_dtype,
        architecture=wanted.architecture,
    )


def _start(
    wanted: SaeToTrain,
    recipe: training.Recipe,
    data: ShuffledTokens,
    unfinished: Place,
    identity: Mapping[str, Any],
):
    """The saved state, or the initial one; and the scaling, which is measured again."""
    sample_ND = data.sample(max(SAMPLE_TOKENS, 2 * wanted.d_sae))
    scaling = training.fit_scaling(sample_ND)
    initialise = functools.partial(training.initialise, recipe=recipe, d_sae=wanted.d_sae)
    inputs = training.normalise(scaling, sample_ND), jax.random.key(wanted.seed)
    if unfinished.exists():
        return training_state.load(
            unfinished, jax.eval_shape(initialise, *inputs), identity
        ), scaling
    return jax.jit(initialise)(*inputs), scaling


def _shardings(wanted: SaeToTrain) -> tuple[jax.sharding.Sharding, jax.sharding.Sharding]:
    """Where the state lies, and where a batch does: copies on every device, and a part on each."""
    most = min(wanted.num_devices or len(jax.devices()), len(jax.devices()))
    count = max(n for n in range(1, most + 1) if wanted.batch_size % n == 0)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:count]), ("batch",))
    named = lambda *axes: jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
    return named(), named("batch", None)


def _bar(wanted: SaeToTrain, recipe: training.Recipe, first: int) -> tqdm:
    """The progress bar, in tokens, so that its rate is tokens per second."""
    return tqdm(
        desc=f"train SAE {wanted.site}",
        total=recipe.num_steps * wanted.batch_size,
        initial=first * wanted.batch_size,
        unit="tok",
        unit_scale=True,
        dynamic_ncols=True,
    )


def _show(bar: tqdm, report: training.StepReport | None, num_tokens: int) -> None:
    """Advances the bar by one finished step."""
    if report is None:
        return
    loss, l0, dead = (float(value) for value in report)
    bar.set_postfix_str(
        f"loss {loss:.3f}, explained {1 - loss:.3f}, L0 {l0:.1f}, dead {dead:.1%}", refresh=False
    )
    bar.update(num_tokens)
