"""What a config leaves open, settled by the model and the SAEs: names of sites, SAEs, BOS."""

import dataclasses
from collections.abc import Sequence

from jaxprobe import assets, checkpoints, checks, models, tokens
from jaxprobe.base import Site
from jaxprobe.checkpoints import LoadedSae, bos_setting
from jaxprobe.checkpoints.training_settings import agreed_bos
from jaxprobe.experiments.config import Common, saes_to_train, sites_of
from jaxprobe.sites import MODULE_OUT


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


def with_agreed_bos(job: Common) -> Common:
    """The job with BOS as its SAEs were trained with it, where the config leaves that open.

    Raises:
        ValueError: An unknown setting, or SAEs that were trained with different ones.
    """
    checks.check_choice("bos", job.bos, tokens.BOS_SETTINGS)
    sources = [assets.split_label(entry)[1] for entry in job.saes]
    bos = agreed_bos(job.bos, {source: bos_setting(source) for source in sources})
    return dataclasses.replace(job, bos=bos)


def load_saes(job: Common) -> tuple[LoadedSae, ...]:
    """The SAEs that a job names, at the sites under whose names their activations are kept."""
    found = tuple(checkpoints.load_labelled(entry) for entry in job.saes)
    if not any(sae.site is not None and sae.site.stream in MODULE_OUT for sae in found):
        return found
    identity = models.identify(job.model, job.dtype)
    return tuple(
        dataclasses.replace(sae, site=identity.stored(sae.site)) if sae.site else sae
        for sae in found
    )
