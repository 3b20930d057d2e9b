"""Activations and SAEs to the latents that probes read, a file per dataset and SAE."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tqdm import tqdm

from jaxprobe import datasets, stopping
from jaxprobe.experiments.experiment import Experiment
from jaxprobe.jobs import Job
from jaxprobe.workspace import Workspace


def run(experiment: Experiment, config: Any, workspace: Workspace, names: Sequence[str]) -> None:
    """Ranks and encodes what the jobs of these datasets read, skipping what is there.

    Args:
        experiment: Whose jobs.
        config: Its config.
        workspace: Keeps the latents.
        names: The datasets.
    """
    with tqdm(total=len(names), desc="encode", unit="set") as bar:
        for name in names:
            bar.set_postfix_str(datasets.name_of(name))
            for job in _wanted(experiment.jobs(config, workspace, name)):
                if not workspace.has_latents(*job.reads()):
                    stopping.check()
                    workspace.keep_latents(*job.reads())
            bar.update()


def left(
    experiment: Experiment, config: Any, workspace: Workspace, name: str, settled: bool
) -> Iterator[tuple[int, str]]:
    """Rows and SAE of each file of latents that is still to be made for a dataset.

    Args:
        experiment: Whose jobs.
        config: Its config.
        workspace: Where latents are kept.
        name: The dataset.
        settled: Whether activations and SAEs are there, without which no file is known.
    """
    for job in _wanted(experiment.jobs(config, workspace, name)):
        if not settled or not workspace.latents_there(*job.reads()):
            yield len(job.dataset.texts), job.arrow.features


def _wanted(jobs: Iterable[Job]) -> Iterator[Job]:
    """One job of each SAE and site that reads latents: its other jobs read the same file."""
    seen = set()
    for job in jobs:
        key = (job.arrow.features, job.site, tuple(map(id, job.latents)))
        if job.ranking is not None and key not in seen:
            seen.add(key)
            yield job
