"""What the suites read from a finished run: its activations, its first SAE's latents, its splits."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxprobe import base, regimes
from jaxprobe.experiments import EXPERIMENTS
from jaxprobe.experiments.config import Common
from jaxprobe.stages import run, settling, train_sae
from jaxprobe.store import ActivationStore
from jaxprobe.workdir import Workdir
from jaxprobe.workspace import Workspace


class Features(NamedTuple):
    """One dataset's features.

    Attributes:
        dataset: The dataset; rows of a shifted set follow its own in the matrices.
        x_ND: float32 activations at the first SAE's site.
        z_NK: float32 latents of that SAE that the first split kept, the best first.
    """

    dataset: base.TextDataset
    x_ND: np.ndarray
    z_NK: np.ndarray

    def splits(self, seed: int, chosen: Sequence[str]) -> list[base.Split]:
        """The splits of some regimes, in the paper's protocol."""
        return [
            dataclasses.replace(split, num_rows=len(self.x_ND))
            for regime in chosen
            for split in regimes.splits(self.dataset, regime, seed=seed)
        ]


def features(config: run.RunConfig, workdir: str | os.PathLike) -> Iterator[Features]:
    """The features of each of the job's datasets on which its first SAE was encoded.

    Raises:
        StoreError: The run has no activations yet.
        FileNotFoundError: The run has no latents yet.
    """
    job = settling.with_stored_sites(config.job)
    experiment, space = EXPERIMENTS[job.experiment], workspace(job, workdir)
    for name in experiment.names(job):
        reading = (one for one in experiment.jobs(job, space, name) if one.ranking is not None)
        if (first := next(reading, None)) is None or first.ranking is None:
            continue
        kept = space.latents(
            first.dataset, first.arrow.features, first.site, first.latents, first.ranking
        )
        yield Features(
            dataset=space.dataset(name),
            x_ND=space.activations(first.dataset, first.site),
            z_NK=kept.rows.dense(kept.top_PK[0]),
        )


def workspace(job: Common, workdir: str | os.PathLike) -> Workspace:
    """The workspace of a finished run."""
    work = Workdir.parse(workdir)
    store = ActivationStore.open(work.activations)
    return Workspace(
        work,
        source=job.source,
        control_datasets=EXPERIMENTS[job.experiment].names(job),
        seed=job.seed,
        load_saes=lambda: [*train_sae.load(job, work, store), *settling.load_saes(job)],
    )
