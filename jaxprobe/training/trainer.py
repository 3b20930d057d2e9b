"""Token activations to a trained SAE: `sae.safetensors` in its folder, with its held-out quality inside.

Batches are shared by the devices there are; their number changes results by the order of sums only.
Everything random is addressed (by seed, epoch and prompt hash) and nothing depends on the clock,
so a run that was killed at any moment resumes and ends with the same bytes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from jaxprobe import stopping
from jaxprobe.checkpoints import NATIVE_FILE, LoadedSae, load_sae, save_sae, training_state
from jaxprobe.place import Place
from jaxprobe.training import steps
from jaxprobe.training.identity import identity_of, metadata_of
from jaxprobe.training.quality import Quality, measure_quality
from jaxprobe.training.settings import SaeToTrain
from jaxprobe.training.tokens import ShuffledTokens, TokenStore, held_out_prompts

STATE_NAME = "training_state.safetensors"  # beside the SAE while it is being trained


def train_sae(wanted: SaeToTrain, store: TokenStore, out_dir: Place | Path | str) -> LoadedSae:
    """Trains an SAE, resumes a run that was cut off, or loads a finished one.

    Args:
        wanted: What to train.
        store: Activations of every token at its site.
        out_dir: The SAE's folder.

    Returns:
        The SAE; `metadata["training"]["held_out"]` holds its quality on held-out prompts.

    Raises:
        ValueError: Bad settings, too few tokens, or a folder that belongs to another run.
    """
    wanted.check()
    out_dir = Place.parse(out_dir)
    final, unfinished = out_dir / NATIVE_FILE, out_dir / STATE_NAME
    prompt_N = store.token_prompt(wanted.site)
    identity = identity_of(wanted, store, prompt_N)
    if final.exists():
        loaded = load_sae(final)
        run = loaded.metadata.get("training", {}).get("run", {})
        training_state.check_identity(run, identity, final)
        unfinished.delete()  # the last act of a run that was killed before it
        return loaded
    is_held_N = _held_out_tokens(wanted, store, prompt_N)
    data = ShuffledTokens(
        store=store,
        site=wanted.site,
        row_N=np.flatnonzero(~is_held_N),
        batch_size=wanted.batch_size,
        seed=wanted.seed,
        max_bytes=int(wanted.max_gib * 2**30),
    )
    sae, keep = steps.train(wanted, data, unfinished, identity)
    quality = _quality(sae, wanted, store, is_held_N, prompt_N, keep)
    save_sae(final, sae, metadata_of(wanted, store, identity, quality))
    unfinished.delete()
    logging.info("%s: %s", final, quality)
    return load_sae(final)


def _quality(
    sae,
    wanted: SaeToTrain,
    store: TokenStore,
    is_held_N: np.ndarray,
    prompt_N: np.ndarray,
    keep: Callable[[], Any],
) -> dict[str, Quality]:
    """Measured on held-out tokens; a stop meanwhile keeps the training state, which is complete."""
    held_N = np.flatnonzero(is_held_N)
    is_last_N = np.append(prompt_N[1:] != prompt_N[:-1], True)
    try:
        return measure_quality(sae, store, wanted.site, held_N, is_last_N[held_N])
    except KeyboardInterrupt:
        with stopping.held():
            keep()
        raise


def _held_out_tokens(wanted: SaeToTrain, store: TokenStore, prompt_N: np.ndarray) -> np.ndarray:
    """Which tokens belong to held-out prompts; raises ValueError unless some do and some do not."""
    is_held_N = held_out_prompts(store.prompt_hashes(), wanted.seed, wanted.held_out)[prompt_N]
    if is_held_N.all() or not is_held_N.any():
        raise ValueError(
            f"`held_out` = {wanted.held_out} leaves {np.count_nonzero(~is_held_N)} tokens to train on"
            f" and {np.count_nonzero(is_held_N)} to measure with at {wanted.site}; extract more"
            " prompts"
        )
    return is_held_N
