"""What an experiment is: which predictions to make, and which questions they answer.

An experiment is one file: a config, the prompts and sites that it needs, its jobs, its metrics and its report.
Stages, tables and renderers do not depend on it.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxprobe import datasets
from jaxprobe.base import Arrow, Site, Split, TextDataset
from jaxprobe.evidence import Results
from jaxprobe.experiments.config import sites_of
from jaxprobe.jobs import Evaluation, Job, Need
from jaxprobe.rendering import Report, Table
from jaxprobe.workspace import Workspace


class Pages(NamedTuple):
    """A report, and the tables of its CSV files.

    Attributes:
        report: The report's blocks.
        beside: Tables of the files in the work directory, by name, such as `quiver.csv`.
        inside: Tables of the files in `report/`, by name, which the page contains as well.
        names: Names of all files that the experiment's reports can have; files of an earlier report that
            this one does not write are removed.
    """

    report: Report
    beside: Mapping[str, Table] = {}
    inside: Mapping[str, Table] = {}
    names: tuple[str, ...] = ()


def configured_names(config: Any) -> tuple[str, ...]:
    """The datasets that a config names, or else all of its source."""
    return config.datasets or datasets.names(config.source)


def last_tokens(config: Any, workspace: Workspace, names: Sequence[str]) -> Iterator[Need]:
    """The last token of every prompt, at every site of the config and of its SAEs."""
    sites = dict.fromkeys((*sites_of(config), *workspace.sae_sites.values()))
    for name in names:
        taps = tuple((site, "last") for site in sites)
        yield Need(texts=workspace.dataset(name).texts, taps=taps)


class Experiment(NamedTuple):
    """An experiment, as functions of its config. The first four are its own; the others have defaults.

    Attributes:
        config: A frozen dataclass below `config.Common`: the keys of a config file with their defaults.
        jobs: `(config, workspace, name of a dataset) -> what to predict`.
        report: `(config, results of one or several runs) -> pages`.
        version: Raised when a change to the code changes results; part of every fingerprint.
        metrics: Names from `metrics.METRICS` that are recorded in addition to the columns of a row.
        names: `config -> names of the datasets`.
        needs: `(config, workspace, names) -> what to extract` for these datasets.
        load: `(name, source) -> dataset`: how its datasets are read.
        check: `(config, d_sae by SAE id) -> None`: raises ValueError for a config that cannot work.
        installed: `config -> config`: removes what needs packages that are not installed, with a warning.
        facts: `(config, workspace, names) -> JSON types`: facts about the datasets for the report, which
            does not read them itself.
        levels: `(config, workspace, name of a dataset) -> how many splits a large one has`, by regime and
            protocol; the log says how many of them a job lacks.
    """

    config: type
    jobs: Callable[[Any, Workspace, str], Iterable[Job]]
    report: Callable[[Any, Sequence[Results]], Pages]
    version: int
    metrics: tuple[str, ...] = ()
    names: Callable[[Any], tuple[str, ...]] = configured_names
    needs: Callable[[Any, Workspace, Sequence[str]], Iterable[Need]] = last_tokens
    load: Callable[[str, str], TextDataset] = datasets.load
    check: Callable[[Any, Mapping[str, int]], None] = lambda config, d_sae: None
    installed: Callable[[Any], Any] = lambda config: config
    facts: Callable[[Any, Workspace, Sequence[str]], dict[str, Any]] = (
        lambda config, workspace, names: {}
    )
    levels: Callable[[Any, Workspace, str], Mapping[tuple[str, str], int]] = (
        lambda config, workspace, name: {}
    )
    levels: Callable[[Any, Workspace, str], Mapping[tuple[str, str], int]] = (
        lambda config, workspace, name: {}
    )


def product(
    dataset: TextDataset,
    splits: Iterable[Split],
    arrows: Iterable[tuple[Arrow, ...]],
    site: Site,
    predict: Callable[[Job, Workspace], Sequence[Evaluation]],
    **more: Any,
) -> Iterator[Job]:
    """The usual jobs: every group of arrows on all of these splits, in one call each.

    Args:
        dataset: The dataset whose rows the splits number.
        splits: The splits to fit.
        arrows: Groups of arrows that differ only in k.
        site: Where activations are read.
        predict: As in `Job`.
        **more: Further fields of the jobs.
    """
    splits = tuple(splits)
    for group in arrows if splits else ():
        yield Job(dataset=dataset, site=site, arrows=group, splits=splits, predict=predict, **more)


def batched(items: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """Items in tuples of at most `size`."""
    rest = iter(items)
    while part := tuple(itertools.islice(rest, size)):
        yield part
