"""The random SAE: a control of an SAE's shape and frequencies, drawn once and kept.

Its floats depend on the processor and its number of threads, so it is identified by what it was drawn from,
and a work directory uses the one that it holds.
"""

import jax
import numpy as np

from jaxprobe import base
from jaxprobe.checkpoints import LoadedSae
from jaxprobe.saes import random_like

VERSION = 1  # raised when a change to the code changes the draw


def identity(of: LoadedSae, seed: int, store: str, prompts: str) -> dict[str, object]:
    """Everything that decides the draw.

    Args:
        of: The SAE that it imitates.
        seed: Seed of the draw.
        store: Digest of how the activations were made.
        prompts: Digest of the prompts on which thresholds are matched.
    """
    return {
        "version": VERSION,
        "of": of.digest,
        "site": str(of.site),  # the same weights may read two sites
        "seed": seed,
        "store": store,
        "prompts": prompts,
    }


def draw(of: LoadedSae, x_ND: np.ndarray, seed: int) -> LoadedSae:
    """An SAE of the same shape and frequencies with random directions.

    Args:
        of: The SAE to imitate.
        x_ND: float32 activations at its site, on which the frequencies are matched.
        seed: Seed of the directions.
    """
    return LoadedSae(
        sae=random_like(of.sae, x_ND, jax.random.key(seed)),
        id=base.RANDOM_SAE,
        site=of.site,
        expected_l0=of.expected_l0,
        source=f"random twin of {of.id}",
        bos=of.bos,
    )
