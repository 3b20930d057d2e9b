"""Jobs to results: what an experiment predicts, an object a finished job, resuming by job."""

import collections
import concurrent.futures
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import logging
from tqdm import tqdm

from jaxprobe import datasets, predictions, results, stopping
from jaxprobe.experiments.experiment import Experiment
from jaxprobe.features.read import Features
from jaxprobe.identity import digest
from jaxprobe.jobs import Job, further_metrics, rows_of
from jaxprobe.place import Place
from jaxprobe.results import Scored
from jaxprobe.workspace import Workspace, file_name

VERSION = 4  # raised when a change to the code that all experiments share changes results


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planned:
    """A job and the object that its results become.

    Attributes:
        job: What to predict.
        place: Where its object lies.
        fingerprint: Twelve hex digits of what decides its rows and is not a column.
    """

    job: Job
    place: Place
    fingerprint: str

    @property
    def size(self) -> int:
        """How many probes it fits."""
        return len(self.job.splits) * len(self.job.arrows)


Outline = Mapping[str, Sequence[tuple[str, int]]]  # dataset -> (object's name, probes) of each job


def outline(
    experiment: Experiment, config: Any, workspace: Workspace, names: Sequence[str]
) -> Outline:
    """Every job's object, and how many probes it holds, without the splits, which would fill the memory.

    Logs how many levels of each regime found their dataset too small.
    """
    found, wanted, drawn = {}, collections.Counter(), collections.Counter()
    for name in names:
        plan = plan_of(experiment, config, workspace, name)
        found[name] = [(planned.place.name, planned.size) for planned in plan]
        wanted.update(experiment.levels(config, workspace, name))
        splits = {split.digest: split for planned in plan for split in planned.job.splits}
        drawn.update((split.regime, split.protocol) for split in splits.values())
    for (regime, protocol), count in (wanted - drawn).items():
        logging.info(
            "%s, %s: %d splits; %d levels skipped, their datasets are too small",
            *(regime, protocol, drawn[regime, protocol], count),
        )
    return found


def left(workspace: Workspace, planned: Outline) -> dict[str, int]:
    """Probes per dataset whose objects are not there yet; datasets without any are left out."""
    done = {*workspace.work.jobs.children()}
    counts = {
        name: sum(size for object_name, size in jobs if object_name not in done)
        for name, jobs in planned.items()
    }
    return {name: count for name, count in counts.items() if count}


def run(
    experiment: Experiment, config: Any, workspace: Workspace, planned: Outline, record: str
) -> None:
    """Makes every job's object that is not there yet.

    Args:
        experiment: Which predictions.
        config: Its config.
        workspace: What its jobs read.
        planned: All jobs.
        record: Name of the record that made them, see `records.keep`.

    Raises:
        FileNotFoundError: Latents that the encode stage has not made.
        StoreError: Activations that the extract stage has not made.
    """
    done = {*workspace.work.jobs.children()}
    todo = left(workspace, planned)
    with tqdm(total=sum(todo.values()), desc="fit", unit="probe") as bar:
        for name in todo:
            bar.set_postfix_str(datasets.name_of(name))
            plan = plan_of(experiment, config, workspace, name)
            jobs = [one for one in plan if one.place.name not in done]
            _run_all(jobs, experiment, workspace, _workers(config), record, bar)


def _workers(config: Any) -> int:
    """Jobs at once."""
    # What the user says in `config.fit.workers`; nothing is measured. An experiment whose config has no
    # such key runs one at a time: a job's compiled program uses every core, and `fit.memory_gib` is
    # counted for one of them.
    return getattr(getattr(config, "fit", None), "workers", 1)


def plan_of(experiment: Experiment, config: Any, workspace: Workspace, name: str) -> list[Planned]:
    """The jobs of a dataset and where their results lie, from digests of what they are made from."""
    planned = []
    for job in experiment.jobs(config, workspace, name):
        decides = _decides(experiment, workspace, job)
        own = {
            "arrows": [dataclasses.asdict(arrow) for arrow in job.arrows],
            "splits": [split.digest for split in job.splits],
            "metrics": list(experiment.metrics),
        }
        key = digest(decides | own)[:16]
        place = workspace.work.jobs / f"{file_name(job.dataset.name)}-{key}.parquet"
        job = dataclasses.replace(job, metrics=experiment.metrics)
        planned.append(Planned(job=job, place=place, fingerprint=digest(decides)[:12]))
    return planned


def _decides(experiment: Experiment, workspace: Workspace, job: Job) -> dict[str, Any]:
    """What decides a job's numbers beside its arrows and splits: inputs, settings, versions of the code."""
    decides: dict[str, Any] = {
        "version": [VERSION, experiment.version],
        "store": workspace.store.digest,
        "site": str(job.site),
        "dataset": job.dataset.digest,
        "settings": dict(job.settings),
    }
    if job.ranking is not None:
        decides["sae"] = workspace.sae_digest(job.arrow.features, job.site)
        decides["ranking"] = dataclasses.asdict(job.ranking)
    if job.features:
        decides["features"] = [_identity(one, workspace) for one in job.features]
    return decides


def _identity(features: Features, workspace: Workspace) -> dict[str, str]:
    """What decides features: of an SAE its weights too, whose id is only a name."""
    told = {"site": str(features.site), "part": features.part, "pooling": features.pooling}
    if features.sae:
        told["sae"] = workspace.sae_digest(features.sae, features.site)
    return told


def _run_all(
    todo: Iterable[Planned],
    experiment: Experiment,
    workspace: Workspace,
    workers: int,
    record: str,
    bar: tqdm,
) -> None:
    """Runs jobs, a few at once; an object is written as soon as its job ends."""

    def one(planned: Planned) -> None:
        found_all = planned.job.predict(planned.job, workspace)
        model = str(workspace.store.fingerprint["model"])
        rows = rows_of(planned.job, found_all, model, planned.fingerprint)
        chosen = [dict(entry) for found in found_all for entry in found.chosen]
        about = {"record": record} | ({"chosen": chosen} if chosen else {})
        scored = Scored(
            rows=rows, metrics=further_metrics(found_all, experiment.metrics), about=about
        )
        with stopping.held():
            predictions.keep(
                workspace.work, planned.place.name.removesuffix(".parquet"), planned.job, found_all
            )
            results.write_job(planned.place, scored)
            bar.update(len(found_all))

    pool = concurrent.futures.ThreadPoolExecutor(workers)
    try:
        for _ in pool.map(one, todo):
            stopping.check()
    finally:
        # Whatever ended the loop; a job under way in a thread is not waited for.
        pool.shutdown(wait=False, cancel_futures=True)
