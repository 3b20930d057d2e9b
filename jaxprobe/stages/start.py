"""One start of a job: its config settled, its inputs looked at, and what its stages share."""

import functools
from collections.abc import Sequence

from jaxprobe import models
from jaxprobe.checkpoints import LoadedSae
from jaxprobe.experiments import EXPERIMENTS
from jaxprobe.experiments.config import Common, saes_to_train
from jaxprobe.experiments.experiment import Experiment
from jaxprobe.extraction.request import Request
from jaxprobe.runs import shards
from jaxprobe.runs.run_file import RunFile
from jaxprobe.stages import extract, fit, preflight, settling, train_sae
from jaxprobe.store import ActivationStore
from jaxprobe.workdir import Workdir
from jaxprobe.workspace import Workspace

_READ_SAES = {"extract", "encode", "fit"}  # stages that need the named SAEs


class Start:
    """What the stages of one start share.

    Attributes:
        asked: The config as it was asked: plans are named after it, not after what the SAEs and the model
            made of it.
        config: The same, settled by `prepare`.
        shard: The part of the job to do; None is all of it.
        work: Where artefacts lie.
        experiment: What the config is of.
        file: `run.json`, or the shard's.
        workspace: What jobs read; there once `prepare` has been here.
        names: The datasets, of a shard its own; there once `prepare` has been here.
    """

    workspace: Workspace
    names: Sequence[str]

    def __init__(self, job: Common, shard: shards.Shard | None, work: Workdir):
        """Reads nothing yet."""
        self.asked = self.config = job
        self.shard, self.work = shard, work
        self.experiment: Experiment = EXPERIMENTS[job.experiment]
        self.file = RunFile(work, shard)
        # A large vocabulary takes half a second to read, and several stages ask.
        self.identify = functools.cache(models.identify)

    def prepare(self, stages: Sequence[str]) -> None:
        """Refuses, before anything is written, what would be refused in the end.

        Raises:
            ValueError: A job that cannot work.
            StoreError: Activations that are there and were made with different settings.
        """
        if self.shard is not None:
            shards.check_stages({*stages})
        config = self.experiment.installed(settling.with_stored_sites(self.config))
        self.config = config = settling.with_agreed_bos(config)
        named = settling.load_saes(config) if _READ_SAES & {*stages} else ()
        identity = self.identify(config.model, config.dtype)
        preflight.check_inputs(self.experiment, config, named, identity)
        extract.check_same_way(config, self.work.activations, self.identify)
        self.workspace = self._workspace(named)
        self.names = self.experiment.names(config)
        if self.shard is not None:
            self.names = self.shard.part(self.names)
        preflight.check_some_job(self.experiment, config, self.workspace, self.names)

    def _workspace(self, named: Sequence[LoadedSae]) -> Workspace:
        sae_sites = {one.id: one.site for one in saes_to_train(self.config)}
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
        return train_sae.load(self.config, self.work, self.token_store())

    def token_store(self) -> ActivationStore:
        """The store of all tokens, on which SAEs are trained: the whole job's, also for a shard."""
        if self.shard is None:
            return self.workspace.store
        return ActivationStore.open(self.work.activations)

    @functools.cached_property
    def request(self) -> Request:
        """What is to be extracted."""
        needs = extract.needs_of(self.experiment, self.config, self.workspace, self.names)
        return Request.of(needs)

    @functools.cached_property
    def outline(self) -> fit.Outline:
        """The objects that the job's results become."""
        return fit.outline(self.experiment, self.config, self.workspace, self.names)
