"""The whole job: extract, train_sae, encode, fit, report, each resuming what is there."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxprobe import checks, models, records, stopping
from jaxprobe.experiments import EXPERIMENTS, schemas
from jaxprobe.experiments.config import Common, saes_to_train
from jaxprobe.place import Place
from jaxprobe.runs import plans, shards
from jaxprobe.stages import encode, extract, fit, preflight, report, train_sae
from jaxprobe.stages.left import left
from jaxprobe.stages.start import Start
from jaxprobe.workdir import Workdir
from jaxprobe.workspace import Workspace


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The whole job.

    Attributes:
        job: The experiment's config.
        shard: The part of the job to do; None is all of it.
    """

    job: Common
    shard: shards.Shard | None = None

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> "RunConfig":
        """Builds a job from a config file's content.

        The keys and their defaults are those of the experiment's config, for the paper's main grid
        `experiments.probing.config`.

        Raises:
            ValueError: An unknown key or choice; the message names the known ones.
        """
        job = schemas.read(config)
        preflight.check_config(job)
        trained = {one.id: one.d_sae for one in saes_to_train(job)}
        EXPERIMENTS[job.experiment].check(job, trained)
        return cls(job=job)


def run(
    config: RunConfig,
    workdir: "str | os.PathLike | Place",
    stages: Sequence[str] | None = None,
    tell: Callable[[str], None] | None = None,
) -> str:
    """Runs stages in order; a stage that finds its work done takes seconds.

    Args:
        config: The job.
        workdir: Everything is written below it: a path, or `memory://NAME`.
        stages: Some of `STAGES`; what an absent earlier stage makes must be there. By default all of
            them, of a shard those that it does alone.
        tell: Is given what is left to do and about how long it takes, before any work.

    Returns:
        The report's table for the terminal, or what to do next; empty where there is nothing to say.

    Raises:
        ValueError: An unknown stage, or a job that cannot work.
        StoreError: Activations that are not there, or were made with different settings.
        TableError: Results that are not there, or are damaged.
    """
    if stages is None:
        stages = STAGES if config.shard is None else shards.STAGES
    for stage in stages:
        checks.check_choice("stage", stage, STAGES)
    work = Workdir.parse(workdir)
    preflight.check_directory(work)
    start = Start(config.job, config.shard, work)
    if {*stages} == {"report"}:
        return _run(start, stages)
    start.prepare(stages)
    if tell is None:
        return _run(start, stages)
    found, before = left(start), start.file.times()
    tell(found.describe())
    text = _run(start, stages)
    found.learn(before, start.file.times())
    return text


def _run(start: Start, stages: Sequence[str]) -> str:
    """The stages, in the order of `STAGES`; returns what the last one says."""
    if {*stages} != {"report"}:
        start.workspace.begin()
    text = ""
    for stage, drive in _DRIVERS.items():
        if stage in stages:
            stopping.check()
            with start.file.timing(stage):
                text = drive(start) or text
    return text


def _extract(start: Start) -> None:
    """Runs the model on what the store lacks."""
    extract.run(
        start.config,
        start.request,
        shards.own_activations(start.shard, start.work),
        shared=start.work.activations if start.shard is not None else None,
        identify=start.identify,
        make_forward=models.make_forward,
    )
    start.workspace.read_from(shards.activations(start.shard, start.work))


def _train_sae(start: Start) -> None:
    """Trains the SAEs that are not there."""
    train_sae.run(start.config, start.workspace.store, start.work)


def _encode(start: Start) -> None:
    """Keeps the latents that probes read."""
    preflight.check_training(start.config, start.workspace)
    encode.run(start.experiment, start.config, start.workspace, start.names)


def _fit(start: Start) -> str:
    """Makes the results that are not there, and says which are the job's."""
    preflight.check_training(start.config, start.workspace)
    asked = dataclasses.asdict(start.asked)
    objects = [name for jobs in start.outline.values() for name, _ in jobs]
    done = plans.record_of(start.work, asked, start.shard, objects)
    if done is None or fit.left(start.workspace, start.outline):
        done = _fit_anew(start, asked, objects)
    start.file.update(records.read(start.work, done))
    return shards.told(start.shard)


def _fit_anew(start: Start, asked: Mapping[str, Any], objects: Sequence[str]) -> str:
    """Makes what is missing; returns the name of the record of this start, which did so."""
    config, workspace = start.config, start.workspace
    record = records.make(
        dataclasses.asdict(config),
        seeds={"splits": config.seed, "train_sae": config.train_sae.seed},
        fingerprints=_fingerprints(workspace),
        sae_quality=_quality(workspace),
    )
    key = records.keep(start.work, record)
    fit.run(start.experiment, config, workspace, start.outline, key)
    facts = start.experiment.facts(config, workspace, start.names)
    plans.write(start.work, asked, start.shard, record=key, objects=objects, facts=facts)
    return key


def _fingerprints(workspace: Workspace) -> dict[str, Any]:
    found: dict[str, Any] = {"activations": dict(workspace.store.fingerprint)}
    return found | {name: sae.digest for name, sae in workspace.saes.items()}


def _quality(workspace: Workspace) -> dict[str, Any]:
    """The SAEs' quality, where their files tell it."""
    found = {}
    for name, sae in workspace.saes.items():
        trained = sae.metadata.get("training")
        quality = trained.get("held_out") if isinstance(trained, Mapping) else None
        if quality is not None:
            found[name] = quality
    return found


def _report(start: Start) -> str:
    """Writes the page and the tables; needs neither datasets nor SAEs."""
    return report.run(start.experiment, start.asked, start.work)


_DRIVERS: Mapping[str, Callable[[Start], str | None]] = {
    "extract": _extract,
    "train_sae": _train_sae,
    "encode": _encode,
    "fit": _fit,
    "report": _report,
}
STAGES = tuple(_DRIVERS)
