"""The whole job: extract, train_sae, encode, fit, report, each resuming what is there."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxprobe import assets, checks, models, records, stopping, tokens
from jaxprobe.base import Site
from jaxprobe.checkpoints import LoadedSae, bos_setting
from jaxprobe.checkpoints.training_settings import agreed_bos
from jaxprobe.experiments import EXPERIMENTS, schemas
from jaxprobe.experiments.config import Common, saes_to_train, sites_of
from jaxprobe.experiments.experiment import Experiment
from jaxprobe.jobs import Need
from jaxprobe.place import Place
from jaxprobe.sites import MODULE_OUT
from jaxprobe.stages import (
    encode,
    estimate,
    extract,
    fit,
    plans,
    preflight,
    report,
    shards,
    train_sae,
)
from jaxprobe.stages.run_file import RunFile
from jaxprobe.store import ActivationStore, is_store
from jaxprobe.workdir import Workdir
from jaxprobe.workspace import Workspace

STAGES = ("extract", "train_sae", "encode", "fit", "report")
_READ_SAES = {"extract", "encode", "fit"}  # stages that need the named SAEs


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
        trained = {train_sae.sae_id(one): one.d_sae for one in saes_to_train(job)}
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
    job = _Job(config, work)
    if {*stages} == {"report"}:
        return job.run(stages)
    job.prepare(stages)
    if tell is None:
        return job.run(stages)
    found, before = job.left(), job.file.times()
    tell(found.describe())
    text = job.run(stages)
    found.learn(before, job.file.times())
    return text


class _Job:
    """One start of a job: what its stages share."""

    def __init__(self, config: RunConfig, work: Workdir):
        """Reads nothing yet."""
        self.shard, self.work = config.shard, work
        # The plan is named after what was asked, not after what the SAEs and the model made of it.
        self.asked = self.config = config.job
        self.experiment: Experiment = EXPERIMENTS[config.job.experiment]
        self.file = RunFile(work, self.shard)
        # A large vocabulary takes half a second to read, and several stages ask.
        self._identify = functools.cache(models.identify)

    def prepare(self, stages: Sequence[str]) -> None:
        """Refuses, before anything is written, what would be refused in the end."""
        if self.shard is not None:
            shards.check_stages({*stages})
        config = self.experiment.installed(with_stored_sites(self.config))
        self.config = dataclasses.replace(config, bos=_agreed_bos(config))
        named = preflight.load_saes(self.config) if _READ_SAES & {*stages} else ()
        identity = self._identify(self.config.model, self.config.dtype)
        preflight.check_inputs(self.experiment, self.config, named, identity)
        extract.check_same_way(self.config, self.work.activations, self._identify)
        self.workspace = self._workspace(named)
        self.names = self.experiment.names(self.config)
        if self.shard is not None:
            self.names = self.shard.part(self.names)
        preflight.check_some_job(self.experiment, self.config, self.workspace, self.names)

    def _workspace(self, named: Sequence[LoadedSae]) -> Workspace:
        sae_sites = {train_sae.sae_id(one): one.site for one in saes_to_train(self.config)}
        sae_sites |= {sae.id: sae.site for sae in named if sae.site is not None}
        return Workspace(
            self.work,
            source=self.config.source,
            load=self.experiment.load,
            control_datasets=self.experiment.names(self.config),
            seed=self.config.seed,
            load_saes=lambda: [*self._trained(), *named],
            sae_sites=sae_sites,
            activations=shards.activations(self.shard, self.work),
        )

    def _trained(self) -> list[LoadedSae]:
        if not saes_to_train(self.config):
            return []
        return train_sae.load(self.config, self.work, self._store())

    def _store(self) -> ActivationStore:
        """The store of all tokens, on which SAEs are trained: the whole job's, also for a shard."""
        if self.shard is None:
            return self.workspace.store
        return ActivationStore.open(self.work.activations)

    def run(self, stages: Sequence[str]) -> str:
        """The stages, in the order of `STAGES`; returns what the last one says."""
        if {*stages} != {"report"}:
            self.workspace.begin()
        text = ""
        for stage in STAGES:
            if stage in stages:
                stopping.check()
                with self.file.timing(stage):
                    text = getattr(self, f"_{stage}")() or text
        return text

    # --- the stages

    def _extract(self) -> None:
        """Runs the model on what the store lacks."""
        place = shards.own_activations(self.shard, self.work)
        shared = self.work.activations if self.shard is not None else None
        extract.run(
            self.config,
            self._request,
            place,
            shared=shared,
            identify=self._identify,
            make_forward=models.make_forward,
        )
        self.workspace.read_from(shards.activations(self.shard, self.work))

    def _train_sae(self) -> None:
        """Trains the SAEs that are not there."""
        train_sae.run(self.config, self.workspace.store, self.work)

    def _encode(self) -> None:
        """Keeps the latents that probes read."""
        preflight.check_training(self.config, self.workspace)
        encode.run(self.experiment, self.config, self.workspace, self.names)

    def _fit(self) -> str:
        """Makes the results that are not there, and says which are the job's."""
        preflight.check_training(self.config, self.workspace)
        asked = dataclasses.asdict(self.asked)
        objects = [name for jobs in self._outline.values() for name, _ in jobs]
        done = plans.record_of(self.work, asked, self.shard, objects)
        if done is None or fit.left(self.workspace, self._outline):
            done = self._fit_anew(asked, objects)
        self.file.update(records.read(self.work, done))
        return shards.told(self.shard)

    def _fit_anew(self, asked: Mapping[str, Any], objects: Sequence[str]) -> str:
        """Makes what is missing; returns the name of the record of this start, which did so."""
        record = records.make(
            dataclasses.asdict(self.config),
            seeds={"splits": self.config.seed, "train_sae": self.config.train_sae.seed},
            fingerprints=_fingerprints(self.workspace),
            sae_quality=_quality(self.workspace),
        )
        key = records.keep(self.work, record)
        fit.run(self.experiment, self.config, self.workspace, self._outline, key)
        facts = self.experiment.facts(self.config, self.workspace, self.names)
        plans.write(self.work, asked, self.shard, record=key, objects=objects, facts=facts)
        return key

    def _report(self) -> str:
        """Writes the page and the tables; needs neither datasets nor SAEs."""
        return report.run(self.experiment, self.asked, self.work)

    # --- what is left

    def left(self) -> estimate.Estimate:
        """What is left to do, and about how long it takes."""
        config, place = self.config, shards.activations(self.shard, self.work)
        width = self._identify(config.model, config.dtype).d_model
        texts = extract.outstanding(self._request, place, self.work.activations)
        have = is_store(place) and not texts
        waiting = saes_to_train(config)
        if have and waiting:
            waiting = train_sae.missing(config, self.work, self._store())
        settled = have and not waiting
        probes = fit.left(self.workspace, self._outline) if settled else self._probes()
        files = self._files(settled)
        return estimate.estimate(
            {
                "extract": estimate.extracting(config, width, texts, len(self._request.texts)),
                "train_sae": estimate.training(
                    config.train_sae.num_tokens, width, [one.d_sae for one in waiting]
                ),
                "encode": estimate.encoding(width, files),
                "fit": estimate.fitting(sum(probes.values()), len(probes)),
            }
        )

    def _files(self, settled: bool) -> list[tuple[int, int]]:
        """Rows and d_sae of each file of latents that is still to be made."""
        trained = saes_to_train(self.config)
        d_sae = {train_sae.sae_id(one): one.d_sae for one in trained}
        if settled or not trained:
            d_sae |= {name: sae.d_sae for name, sae in self.workspace.saes.items()}
        widest = max(d_sae.values(), default=0)  # of random SAEs, which are as wide as another
        found = []
        for name in self.names:
            args = (self.experiment, self.config, self.workspace, name, settled)
            found += [(rows, d_sae.get(sae, widest)) for rows, sae in encode.left(*args)]
        return found

    def _probes(self) -> dict[str, int]:
        """Probes per dataset, where it is not yet known which results are there."""
        return {
            name: sum(
                len(job.splits) * len(job.arrows)
                for job in self.experiment.jobs(self.config, self.workspace, name)
            )
            for name in self.names
        }

    @functools.cached_property
    def _request(self) -> extract.Request:
        needs = needs_of(self.experiment, self.config, self.workspace, self.names)
        return extract.Request.of(needs)

    @functools.cached_property
    def _outline(self) -> fit.Outline:
        return fit.outline(self.experiment, self.config, self.workspace, self.names)


def needs_of(
    experiment: Experiment, job: Common, workspace: Workspace, names: Sequence[str]
) -> list[Need]:
    """What the experiment reads, what SAEs are trained on, and what random SAEs are matched on."""
    needs = list(experiment.needs(job, workspace, names))
    read = tuple(dict.fromkeys(workspace.sae_sites.values()))
    if read:
        needs.append(Need(texts=workspace.control_texts, taps=tuple((s, "last") for s in read)))
    trained = dict.fromkeys(one.site for one in saes_to_train(job))
    chosen = job.extract.token_datasets
    for name in (names if chosen is None else chosen) if trained else ():
        taps = tuple((site, "tokens") for site in trained)
        needs.append(Need(texts=workspace.dataset(name).texts, taps=taps))
    return needs


def with_stored_sites(job: Common) -> Common:
    """The job with its sites under the names that the model's activations are kept by."""
    wanted = (*sites_of(job), *(one.site for one in saes_to_train(job)))
    if not any(site.stream in MODULE_OUT for site in wanted):
        return job
    model = models.identify(job.model, job.dtype)

    def stored(texts: Sequence[str]) -> tuple[str, ...]:
        return tuple(str(model.stored(Site.parse(text))) for text in texts)

    trained = dataclasses.replace(job.train_sae, sites=stored(job.train_sae.sites))
    return dataclasses.replace(
        job, site=stored((job.site,))[0], sites=stored(job.sites), train_sae=trained
    )


def _agreed_bos(job: Common) -> str:
    """BOS as the SAEs were trained with it, where the config leaves it open."""
    checks.check_choice("bos", job.bos, tokens.BOS_SETTINGS)
    sources = [assets.split_label(entry)[1] for entry in job.saes]
    return agreed_bos(job.bos, {source: bos_setting(source) for source in sources})


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
