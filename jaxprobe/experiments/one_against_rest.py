"""The published datasets of several classes, each class against the rest, with the main grid's probes.

Each class is a binary view of the same table: texts, hashes and activations are shared.

References:
    Kantamneni et al., Are Sparse Autoencoders Useful? A Case Study in Sparse Probing, arXiv 2502.16681.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from jaxprobe import datasets, regimes
from jaxprobe.experiments.experiment import Experiment
from jaxprobe.experiments.probing import jobs as probing
from jaxprobe.experiments.probing.checking import check, with_installed
from jaxprobe.experiments.probing.config import Config as ProbingConfig
from jaxprobe.experiments.probing.report import pages
from jaxprobe.jobs import Job, Need
from jaxprobe.workspace import Workspace


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ProbingConfig):
    """The config of the main grid; `datasets` name datasets of several classes, () all of the source's.

    Attributes:
        experiment: `one_against_rest`.
    """

    experiment: str = "one_against_rest"


def names(config: Config) -> tuple[str, ...]:
    """The datasets of a job, as its config names them."""
    return config.datasets or datasets.class_names(config.source)


def needs(config: Config, workspace: Workspace, chosen: Sequence[str]) -> Iterator[Need]:
    """Every prompt at every site that a probe reads."""
    taps = probing.taps_of(config, workspace)
    for name in chosen:
        yield Need(texts=workspace.dataset(name).texts, taps=taps)


def jobs(config: Config, workspace: Workspace, name: str) -> Iterator[Job]:
    """The main grid's jobs for each class of a dataset."""
    table = workspace.dataset(name)
    for label in table.column("class").names:
        view = table.one_against_rest("class", label)
        splits = [
            split
            for regime in config.encode.regimes
            for protocol in config.encode.protocols
            for split in regimes.splits(view, regime, protocol=protocol, seed=config.seed)
        ]
        yield from probing.jobs_of(config, workspace, view, tuple(splits))


def levels(config: Config, workspace: Workspace, name: str) -> dict[tuple[str, str], int]:
    """Number of splits of a dataset's classes by regime and protocol, if each class is large enough."""
    classes = len(workspace.dataset(name).column("class").names)
    return {key: classes * n for key, n in probing.levels(config, workspace, name).items()}


def _check(config: Config, d_sae: Any) -> None:
    check(config, d_sae)
    if "covariate_shift" in config.encode.regimes:
        raise ValueError(
            "`config.encode.regimes` must not name covariate_shift: sets of several classes have no shifted"
            " test set; leave it out"
        )


EXPERIMENT = Experiment(
    config=Config,
    names=names,
    needs=needs,
    jobs=jobs,
    metrics=probing.METRICS,
    report=pages,
    version=1,
    load=datasets.load_classes,
    check=_check,
    installed=with_installed,
    levels=levels,
)
