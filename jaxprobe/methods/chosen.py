"""Which latents a probe chose, and what they fire on."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxprobe.base import Split
from jaxprobe.features.kept import DatasetLatents
from jaxprobe.jobs import Job
from jaxprobe.probes import FittedProbe

MOST_K = 16  # largest k of the probes shown: what a person can read
NUM_LATENTS, NUM_TEXTS = 5, 3  # latents per probe, texts per latent
MOST_CHARACTERS = 200  # of a text


def wanted(job: Job) -> bool:
    """Whether a report shows the latents of the job's probes: an SAE's, in the standard regime."""
    return job.arrow.kind == "sae" and job.splits[0].regime == "standard"


def shown_k(job: Job) -> int:
    """The k of the probe that is shown: the largest up to `MOST_K`, else the smallest."""
    counts = sorted(arrow.k for arrow in job.arrows)
    return max((k for k in counts if k <= MOST_K), default=counts[0])


def chosen(
    job: Job, split: Split, probe: FittedProbe | None, latents: DatasetLatents
) -> list[dict[str, Any]]:
    """The latents to which a fitted probe gives most weight, as JSON types.

    Args:
        job: The probe's job.
        split: The split that it was fitted on; other protocols than the paper's give an empty list.
        probe: The probe of the SAE's latents; None where the method does not return its model.
        latents: Kept latents of the dataset, which include those that the probe reads.

    Returns:
        Per latent its number in the SAE, its weight, and the training texts on which it fires most.
    """
    if probe is None or probe.latents is None or split.protocol != "paper" or not _linear(probe):
        return []
    weight_K, latent_K = np.asarray(probe.weights), np.asarray(probe.latents)
    z_NK = latents.rows.dense(np.searchsorted(latents.latent_U, latent_K))
    # Weights are compared times the latent's spread: a latent that hardly fires matters little at any weight.
    share_K = np.abs(weight_K) * z_NK[split.train_N].std(axis=0)
    order = np.argsort(-share_K, kind="stable")[:NUM_LATENTS]
    return [
        {
            "dataset": split.dataset,
            "sae": job.arrow.features,
            "site": str(job.site),
            "latent": int(latent_K[at]),
            "weight": float(weight_K[at]),
            "texts": _strongest(job.dataset.texts, split.train_N, z_NK[:, at]),
        }
        for at in order
        if share_K[at] > 0
    ]


def _linear(probe: FittedProbe) -> bool:
    return hasattr(probe.model, "coef_D")


def _strongest(texts: Sequence[str], train_N: np.ndarray, z_N: np.ndarray) -> list[str]:
    """Distinct texts of the training rows, by decreasing activation of the latent."""
    found: dict[str, None] = {}
    for row in train_N[np.argsort(-z_N[train_N], kind="stable")]:
        if z_N[row] <= 0 or len(found) == NUM_TEXTS:
            break
        found.setdefault(" ".join(texts[row].split())[:MOST_CHARACTERS])
    return list(found)
