"""The whole job: extract, train_sae, encode, fit, report, each resuming what is there."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxprobe import assets, checks, models, records, stopping, tokens
from jaxprobe.base import Site
from jaxprobe.checkpoints import LoadedSae, bos_setting
from jaxprobe.checkpoints.training_settings import agreed_bos
from jaxprobe.experiments import EXPERIMENTS, schemas
from jaxprobe.experiments.config import Common, saes_to_train, sites_of
from jaxprobe.experiments.experiment import Experiment
from jaxprobe.jobs import Need
from jaxprobe.sites import MODULE_OUT
from jaxprobe.stages import encode, extract, fit, plans, preflight, report, shards, train_sae
from jaxprobe.stages.run_file import RunFile
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
        EXPERIMENTS[job.experiment].check(job, {})
        preflight.check_config(job)
        return cls(job=job)


def run(config: RunConfig, workdir: "str | Workdir | Any", stages: Sequence[str] = STAGES) -> str:
    """Runs stages in order; a stage that finds its work done takes seconds.

    Args:
        config: The job.
        workdir: Everything is written below it: a path, or `memory://NAME`.
        stages: Some of `STAGES`; what an absent earlier stage makes must be there.

    Returns:
        The report's table for the terminal, or what to do next; empty where there is nothing to say.

    Raises:
        ValueError: An unknown stage, or a job that cannot work.
        StoreError: Activations that are not there, or were made with different settings.
        TableError: Results that are not there, or are damaged.
    """
    for stage in stages:
        checks.check_choice("stage", stage, STAGES)
    work = Workdir.parse(workdir)
    preflight.check_directory(work)
    run_ = _Run(config, work, {*stages})
    return run_.report() if {*stages} == {"report"} else run_.stages(stages)


class _Run:
    """One start of a job: what its stages share."""

    def __init__(self, config: RunConfig, work: Workdir, stages: set[str]):
        """Reads nothing yet."""
        self.shard, self.work = config.shard, work
        self.asked = self.job = config.job
        self.experiment: Experiment = EXPERIMENTS[self.job.experiment]
        self.file = RunFile(work, self.shard)
        if config.shard is not None:
            shards.check_stages(stages)

    def report(self) -> str:
        """The report stage alone: needs neither datasets nor SAEs."""
        with self.file.timing("report"):
            return report.run(self.experiment, self.asked, self.work)

    def stages(self, stages: Sequence[str]) -> str:
        """Stages that work, in the order of `STAGES`."""
        named = self._checked(stages)
        workspace = self._workspace(named)
        text = ""
        for stage in STAGES:
            if stage in stages:
                stopping.check()
                with self.file.timing(stage):
                    text = getattr(self, f"_{stage}")(workspace) or text
        return text

    def _checked(self, stages: Sequence[str]) -> tuple[LoadedSae, ...]:
        """What would be refused in the end is refused here, before anything is written."""
        self.job = with_stored_sites(self.job)
        reads = bool(_READ_SAES & {*stages})
        self.job = dataclasses.replace(self.job, bos=_agreed_bos(self.job))
        named = preflight.load_saes(self.job) if reads else ()
        preflight.check_inputs(self.experiment, self.job, named)
        extract.check_same_way(self.job, self.work.activations)
        return named

    def _workspace(self, named: Sequence[LoadedSae]) -> Workspace:
        sae_sites = {train_sae.sae_id(one): one.site for one in saes_to_train(self.job)}
        sae_sites |= {sae.id: sae.site for sae in named if sae.site is not None}
        return Workspace(
            self.work,
            source=self.job.source,
            control_datasets=self.experiment.names(self.job),
            seed=self.job.seed,
            load_saes=lambda: [*train_sae.load(self.job, self.work, self._store()), *named],
            sae_sites=sae_sites,
            activations=shards.activations(self.shard, self.work),
        )

    def _store(self):
        return extract.ActivationStore.open(shards.activations(self.shard, self.work))

    def _names(self) -> tuple[str, ...]:
        names = self.experiment.names(self.job)
        return names if self.shard is None else self.shard.part(names)

    # --- the stages

    def _extract(self, workspace: Workspace) -> None:
        place = shards.own_activations(self.shard, self.work)
        needs = needs_of(self.experiment, self.job, workspace, self._names())
        shared = self.work.activations if self.shard is not None else None
        extract.run(self.job, needs, place, shared=shared)
        workspace.read_from(shards.activations(self.shard, self.work))

    def _train_sae(self, workspace: Workspace) -> None:
        train_sae.run(self.job, workspace.store, self.work)

    def _encode(self, workspace: Workspace) -> None:
        preflight.check_training(self.job, workspace)
        encode.run(self.experiment, self.job, workspace, self._names())

    def _fit(self, workspace: Workspace) -> str:
        preflight.check_training(self.job, workspace)
        names = self._names()
        record = records.make(
            dataclasses.asdict(self.job),
            seeds={"splits": self.job.seed, "train_sae": self.job.train_sae.seed},
            fingerprints=_fingerprints(workspace),
            sae_quality=_quality(workspace),
        )
        key = records.keep(self.work, record)
        objects = fit.run(self.experiment, self.job, workspace, names, key)
        plans.write(
            self.work,
            dataclasses.asdict(self.asked),
            self.shard,
            record=key,
            objects=objects,
            facts=self.experiment.facts(self.job, workspace, names),
        )
        self.file.update(record)
        return shards.told(self.shard)

    def _report(self, workspace: Workspace) -> str:
        del workspace
        return report.run(self.experiment, self.asked, self.work)


def needs_of(
    experiment: Experiment, job: Common, workspace: Workspace, names: Sequence[str]
) -> list[Need]:
    """What the experiment reads, what SAEs are trained on, and what random SAEs are matched on."""
    needs = list(experiment.needs(job, workspace, names))
    read = tuple(dict.fromkeys(workspace.sae_sites.values()))
    if read:
        needs.append(Need(texts=workspace.control_texts(), taps=tuple((s, "last") for s in read)))
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
