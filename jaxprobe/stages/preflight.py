"""What a run would refuse in the end is refused before hours of work."""

import dataclasses
import importlib.util
from typing import Protocol

from absl import logging

from jaxprobe import base, checks, datasets, models, regimes, selection
from jaxprobe.checkpoints import LoadedSae
from jaxprobe.probes import PROBES
from jaxprobe.sites import MODULE_OUT
from jaxprobe.stages import encode as encoding
from jaxprobe.stages import extract as extraction
from jaxprobe.stages import fit as fitting
from jaxprobe.stages import names
from jaxprobe.stages import report as reporting
from jaxprobe.stages import train_sae as training


class Job(Protocol):
    """What `run.RunConfig` has."""

    @property
    def extract(self) -> extraction.ExtractConfig: ...  # noqa: D102
    @property
    def train_sae(self) -> training.TrainSaeConfig | None: ...  # noqa: D102
    @property
    def encode(self) -> encoding.EncodeConfig: ...  # noqa: D102
    @property
    def fit(self) -> fitting.FitConfig: ...  # noqa: D102
    @property
    def report(self) -> reporting.ReportConfig: ...  # noqa: D102
    @property
    def site(self) -> str: ...  # noqa: D102
    @property
    def saes(self) -> tuple[str, ...]: ...  # noqa: D102


def check_config(job: Job) -> None:
    """Raises ValueError for choices that do not exist and for settings that contradict each other."""
    for name in ("protocols", "regimes"):
        known = {"protocols": base.PROTOCOLS, "regimes": base.REGIMES}[name]
        chosen = getattr(job.encode, name)
        if not chosen:
            raise ValueError(f"`config.encode.{name}` must name at least one of {', '.join(known)}")
        for value in chosen:
            checks.check_choice(name[:-1], value, known)
    checks.check_choice("dedup_by", job.encode.dedup_by, regimes.DEDUP_BY)
    checks.check_choice("ranking", job.encode.ranking, selection.RANKINGS)
    fitting.check_config(job.fit, job.encode)
    _check_extract(job)
    if job.train_sae is not None:
        _check_trained(job, job.train_sae)
    _check_report(job)


def with_installed(config: fitting.FitConfig) -> fitting.FitConfig:
    """The probes without those that need an extra that is not installed; a warning says so.

    Raises:
        ValueError: Without them no baseline is left.
    """
    methods = {*config.baselines, *config.latent_methods}
    if "xgboost" not in methods or importlib.util.find_spec("xgboost") is not None:
        return config
    install = "pip install 'jaxprobe[xgboost]'"
    if config.baselines == ("xgboost",):
        raise ValueError(f"`fit.baselines` names xgboost alone, which is not installed: {install}")
    logging.warning("xgboost is not installed, so the job runs without it; to add it: %s", install)
    return dataclasses.replace(
        config,
        baselines=tuple(name for name in config.baselines if name != "xgboost"),
        latent_methods=tuple(name for name in config.latent_methods if name != "xgboost"),
    )


def check_inputs(job: Job) -> None:
    """Looks at the model and at the named SAEs before anything is computed; their weights are let go again.

    Raises:
        ValueError: A site that the model lacks, an SAE for another site or width, with fewer latents
            than probes read, or a name that is taken.
    """
    names.check_datasets(job.encode.datasets, job.encode.source)
    _check_some_split(job.encode)
    identity = models.identify(job.extract.model, job.extract.dtype)
    for text in (*job.extract.sites, *job.extract.token_sites):
        site = base.Site.parse(text)
        if site.block >= identity.num_blocks:
            raise ValueError(
                f"`{site}` is not in {identity.name}: its blocks are 0 to {identity.num_blocks - 1}"
            )
    site = base.Site.parse(job.site)
    width = identity.widths.get(site.stream, identity.d_model)
    trained = job.train_sae
    found = [(training.sae_id(trained), "the train_sae stage")] if trained is not None else []
    for entry in job.saes:
        sae = names.load_labelled(entry)
        _check_sae(_as_stored(sae, identity), site, width)
        _check_counts(job, sae.d_sae, f"the SAE at {sae.source} has")
        found.append((sae.id, sae.source))
        del sae
    names.check_ids(found)


def _as_stored(sae: LoadedSae, identity: models.ModelIdentity) -> LoadedSae:
    """The SAE at the site under whose name its activations are kept."""
    if sae.site is None or sae.site.stream not in MODULE_OUT:
        return sae
    return dataclasses.replace(sae, site=identity.stored(sae.site))


def _check_some_split(config: encoding.EncodeConfig) -> None:
    """Raises ValueError where every dataset is too small for every split; the first that is not ends it."""
    chosen = config.datasets or datasets.names(config.source)
    if any(encoding.dataset_splits(config, datasets.load(name, config.source)) for name in chosen):
        return
    sizes = [len(datasets.load(name, config.source).texts) for name in chosen[:3]]
    raise ValueError(
        f"no dataset has a split in {', '.join(config.regimes)}: {', '.join(map(str, chosen[:3]))} with"
        f" {', '.join(map(str, sizes))} rows are too small; the standard regime needs"
        f" {(regimes.MIN_TEST + 2) // 2} distinct rows of each class"
    )


def _check_extract(job: Job) -> None:
    extract = job.extract
    checks.check_choice("extract.dtype", extract.dtype, ("bfloat16", "float32"))
    checks.check_choice("extract.token_dtype", extract.token_dtype, ("bfloat16", "float32"))
    for name in ("model", "source"):
        if not getattr(extract, name).strip():
            raise ValueError(f"`{name}` must name a file, folder or asset, got an empty text")
    if not extract.buckets or extract.max_length > max(extract.buckets):
        raise ValueError(
            f"`extract.max_length` must not exceed the largest of `extract.buckets`, got"
            f" {extract.max_length} and {extract.buckets}; add a bucket of {extract.max_length}"
        )
    sites = {base.Site.parse(text) for text in extract.sites}
    if base.Site.parse(job.site) not in sites:
        raise ValueError(
            f"`extract.sites` must hold the site that probes read, {job.site}, got"
            f" {', '.join(extract.sites) or 'none'}"
        )
    tokens = [base.Site.parse(text) for text in extract.token_sites]
    trained = job.train_sae
    if trained is not None and base.Site.parse(trained.site) not in tokens:
        raise ValueError(
            f"`train_sae.site` must be among `extract.token_sites`, got {trained.site} and"
            f" {', '.join(extract.token_sites) or 'none'}; set config.site alone"
        )


def _check_trained(job: Job, config: training.TrainSaeConfig) -> None:
    training.check_config(config)
    if base.Site.parse(config.site) != base.Site.parse(job.site):
        raise ValueError(
            f"`train_sae.site` must be the site that the baselines read, {job.site}, got"
            f" {config.site}; set config.site alone"
        )
    _check_counts(job, config.d_sae, "the SAE that train_sae makes has")


def _check_counts(job: Job, d_sae: int, owner: str) -> None:
    """More latents than there are would be fewer under the name of more."""
    for name in ("num_latents", "regime_num_latents"):
        most = max(getattr(job.fit, name), default=0)
        if most > d_sae:
            raise ValueError(
                f"`fit.{name}` asks for {most:,} latents, {owner} {d_sae:,}; ask for fewer"
            )


def _check_sae(sae: LoadedSae, site: base.Site, width: int) -> None:
    if sae.site is None:
        raise ValueError(
            f"the SAE at {sae.source} does not say which site it reads; name a folder that follows the"
            " published layout, or save it with a site"
        )
    if sae.site != site:
        raise ValueError(
            f"the SAE at {sae.source} reads {sae.site}, the baselines read {site}: set config.site to"
            " the SAE's, or leave the SAE out"
        )
    if sae.d_model != width:
        raise ValueError(
            f"the SAE at {sae.source} reads activations {sae.d_model:,} wide, the model's at {site} are"
            f" {width:,}; was it trained on another model?"
        )


def _check_report(job: Job) -> None:
    for regime in job.report.regimes:
        checks.check_choice("regime of config.report.regimes", regime, base.REGIMES)
    for method in job.report.baselines:
        checks.check_choice("method of config.report.baselines", method, PROBES)
    if job.report.site:
        base.Site.parse(job.report.site)
    known = [datasets.name_of(entry) for entry in job.encode.datasets]
    for name in job.report.datasets if known else ():
        checks.check_choice("dataset of config.report.datasets", name, known)
