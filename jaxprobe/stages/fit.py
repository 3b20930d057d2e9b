"""Jobs to results: what an experiment predicts, an object a finished job, resuming by job."""

import concurrent.futures
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from jaxprobe import base, predictions, results, stopping
from jaxprobe.base import ResultRow, Split
from jaxprobe.experiments.experiment import Experiment
from jaxprobe.features.read import Features
from jaxprobe.identity import digest
from jaxprobe.jobs import COLUMN_METRICS, Evaluation, Job
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
    """Every job's object, and how many probes it holds, without the splits, which would fill the memory."""
    return {
        name: [(p.place.name, p.size) for p in plan_of(experiment, config, workspace, name)]
        for name in names
    }


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
            bar.set_postfix_str(name)
            plan = plan_of(experiment, config, workspace, name)
            jobs = [one for one in plan if one.place.name not in done]
            _run_all(jobs, experiment, workspace, _workers(config), record, bar)


def _workers(config: Any) -> int:
    """Jobs at once; one where the experiment's config has no say in it."""
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
        rows = rows_of(planned, found_all, workspace)
        chosen = [dict(entry) for found in found_all for entry in found.chosen]
        about = {"record": record} | ({"chosen": chosen} if chosen else {})
        scored = Scored(rows=rows, metrics=_further(found_all, experiment.metrics), about=about)
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


def rows_of(
    planned: Planned, found_all: Sequence[Evaluation], workspace: Workspace
) -> list[ResultRow]:
    """Result rows: split by split, arrow by arrow, test set by test set."""
    job, model = planned.job, str(workspace.store.fingerprint["model"])
    each = iter(found_all)
    return [
        _row(planned, model, split, arrow, number, found)
        for split in job.splits
        for arrow in job.arrows
        for found in [next(each)]
        for number in range(len(split.tests))
    ]


def _row(
    planned: Planned, model: str, split: Split, arrow: base.Arrow, number: int, found: Evaluation
) -> ResultRow:
    test, scores = split.tests[number], found.tests[number]
    # Rounded, so that equal AUROCs summed in another order still tie.
    auroc, f1, accuracy = (round(float(scores[name]), 12) for name in COLUMN_METRICS)
    return ResultRow(
        model=model,
        site=str(planned.job.site),
        features=arrow.features,
        method=arrow.row_method,
        num_latents=arrow.k,
        dataset=split.dataset,
        regime=split.regime,
        level=split.level,
        protocol=split.protocol,
        seed=split.seed,
        num_train=len(split.train_N),
        num_test=len(test.row_M),
        valid_auroc=round(float(found.valid_auroc), 12),
        test_auroc=auroc,
        test_f1=f1,
        test_accuracy=accuracy,
        best_c=round(float(found.best_value), 12),
        converged=found.converged,
        fingerprint=planned.fingerprint,
        pooling=arrow.pooling,
        control=arrow.control,
        test_set=test.name,
        kind=arrow.kind,
    )


def _further(found_all: Sequence[Evaluation], wanted: Sequence[str]) -> Mapping[str, list[float]]:
    """Metrics beyond the columns of a row, in the order of `rows_of`."""
    return {
        name: [float(test[name]) for found in found_all for test in found.tests] for name in wanted
    }
