"""The paper's main grid: splits of every regime, and the jobs that fit them."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from jaxprobe import regimes
from jaxprobe.base import Site, Split, TextDataset
from jaxprobe.experiments.config import sites_of
from jaxprobe.experiments.experiment import batched, product
from jaxprobe.experiments.probing import methods
from jaxprobe.experiments.probing.config import Config
from jaxprobe.features.ranked import Ranking
from jaxprobe.jobs import Job, Need
from jaxprobe.methods.probes import Engine
from jaxprobe.store import Tap
from jaxprobe.workspace import Workspace

SPLITS_AT_ONCE = 16  # splits per job: few, so that progress is steady and a killed run loses little
METRICS = ("average_precision", "log_loss", "calibration_error", "recall_at_fpr_05")


def needs(config: Config, workspace: Workspace, chosen: Sequence[str]) -> Iterator[Need]:
    """Every prompt at every site that a probe reads."""
    taps = taps_of(config, workspace)
    for name in chosen:
        yield Need(texts=workspace.dataset(name).texts, taps=taps)
    for name in chosen if "covariate_shift" in config.encode.regimes else ():
        yield Need(texts=workspace.with_shifted(name).texts, taps=taps)


def taps_of(config: Config, workspace: Workspace) -> tuple[Tap, ...]:
    """The arrays that probes read: baselines' sites in every pooling, SAEs' at the last token."""
    own = [(site, pooling) for pooling in config.fit.poolings for site in sites_of(config)]
    last = list(workspace.sae_sites.values())
    if config.fit.controls:  # of shuffled labels
        last += sites_of(config)
    return tuple(dict.fromkeys((*own, *((site, "last") for site in last))))


def jobs(config: Config, workspace: Workspace, name: str) -> Iterator[Job]:
    """Every job of a dataset: baselines at every site, each SAE at its own, controls."""
    return jobs_of(config, workspace, *draws(config, workspace, name))


def jobs_of(
    config: Config, workspace: Workspace, table: TextDataset, splits: tuple[Split, ...]
) -> Iterator[Job]:
    """The jobs of any splits of a table."""
    engine = Engine(
        dtype=config.fit.dtype,
        memory_gib=config.fit.memory_gib,
        keep=config.fit.keep,
    )
    settings: dict[str, Any] = {"dtype": config.fit.dtype}
    if config.fit.keep:
        settings["keep"] = sorted(config.fit.keep)
    for standard in (True, False):
        of_kind = [split for split in splits if (split.regime == "standard") == standard]
        for part in batched(of_kind, SPLITS_AT_ONCE):
            for site, groups, more in _groups(config, workspace, splits, standard):
                yield from product(table, part, groups, site, engine, settings=settings, **more)


def _groups(
    config: Config, workspace: Workspace, splits: tuple[Split, ...], standard: bool
) -> Iterator[tuple[Site, list[methods.Group], dict]]:
    """Per site and SAE, the groups of arrows to fit, and the fields of their jobs."""
    fit, own = config.fit, sites_of(config)
    read = {"latents": splits, "ranking": ranking(config)}
    for site in own:
        yield site, methods.baselines(fit, standard), {}
    for sae, site in workspace.sae_sites.items():
        yield site, methods.of_sae(fit, sae, standard), read
    for site in dict.fromkeys(workspace.sae_sites.values()) if config.encode.random_sae else ():
        yield site, methods.of_random_sae(fit), read


def ranking(config: Config) -> Ranking:
    """How the config's latents are ranked."""
    encode = config.encode
    return Ranking(
        max_latents=encode.max_latents,
        ranking=encode.ranking,
        random_latents=encode.random_latents,
        seed=config.seed,
    )


def draws(config: Config, workspace: Workspace, name: str) -> tuple[TextDataset, tuple[Split, ...]]:
    """A dataset's table and every split of it that the config asks for, in a fixed order.

    Levels that the dataset is too small for are left out, and so is covariate shift where the source has
    no shifted set.
    """
    dataset = workspace.dataset(name)
    shifts = "covariate_shift" in config.encode.regimes
    table = workspace.with_shifted(name) if shifts else dataset
    found: list[Split] = []
    for regime in config.encode.regimes:
        shifted = workspace.shifted(name) if regime == "covariate_shift" else None
        if regime == "covariate_shift" and shifted is None:
            continue
        for protocol in config.encode.protocols:
            found += regimes.splits(
                dataset,
                regime,
                protocol=protocol,
                seed=config.seed,
                shifted=shifted,
                dedup_by=config.encode.dedup_by if protocol == "dedup" else "exact",
            )
    rows = len(table.texts)  # the splits of all regimes number the rows of one table
    return table, tuple(dataclasses.replace(split, num_rows=rows) for split in found)


def levels(config: Config, workspace: Workspace, name: str) -> dict[tuple[str, str], int]:
    """Number of splits by regime and protocol that `draws` would find in a large enough dataset."""
    return {
        (regime, protocol): regimes.num_levels(regime)
        for regime in config.encode.regimes
        for protocol in config.encode.protocols
        if regime != "covariate_shift" or workspace.shifted(name) is not None
    }
