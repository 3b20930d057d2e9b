"""What an experiment is: which predictions to make, and which questions to ask of them.

An experiment is one file: a config, the prompts and places that it needs, its jobs, its metrics and its
report. Stages, tables and renderers do not know it.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxprobe import datasets
from jaxprobe.base import Arrow, Site, Split, TextDataset
from jaxprobe.evidence import Results
from jaxprobe.jobs import Evaluation, Job, Need
from jaxprobe.rendering import Report, Table
from jaxprobe.workspace import Workspace


class Pages(NamedTuple):
    """A report, and the tables of its CSV files.

    Attributes:
        report: Its blocks.
        beside: Tables of the files in the work directory, by name: `quiver.csv`.
        inside: Tables of the files in `report/`, by name, which the page carries as well.
        names: Every file's name that the experiment's reports can have; of those not made now, what an
            earlier report left is taken away.
    """

    report: Report
    beside: Mapping[str, Table]
    inside: Mapping[str, Table]
    names: tuple[str, ...] = ()


class Experiment(NamedTuple):
    """An experiment, as functions of its config.

    Attributes:
        config: A frozen dataclass: the keys of a config file with their defaults.
        names: `config -> names of the datasets`.
        needs: `(config, workspace, names) -> what to extract` for these datasets.
        jobs: `(config, workspace, name of a dataset) -> what to predict`.
        metrics: Names of `metrics.METRICS` that are recorded beside the columns of a row.
        report: `(config, results of one or several runs) -> pages`.
        version: Raised when a change to the code changes results; part of every fingerprint.
        load: `(name, source) -> dataset`: how its datasets are read.
        check: `(config, d_sae by SAE id) -> None`: raises ValueError for what cannot work, before any work.
        installed: `config -> config`: without what this machine lacks, with a warning.
        facts: `(config, workspace, names) -> JSON types`: what the report tells of the datasets, which it
            does not read itself.
        levels: `(config, workspace, name of a dataset) -> how many splits a large one has`, by regime and
            protocol; the log tells how many a job is short of.
    """

    config: type
    names: Callable[[Any], tuple[str, ...]]
    needs: Callable[[Any, Workspace, Sequence[str]], Iterable[Need]]
    jobs: Callable[[Any, Workspace, str], Iterable[Job]]
    metrics: tuple[str, ...]
    report: Callable[[Any, Sequence[Results]], Pages]
    version: int
    load: Callable[[str, str], TextDataset] = datasets.load
    check: Callable[[Any, Mapping[str, int]], None] = lambda config, d_sae: None
    installed: Callable[[Any], Any] = lambda config: config
    facts: Callable[[Any, Workspace, Sequence[str]], dict[str, Any]] = (
        lambda config, workspace, names: {}
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
    """The ordinary jobs: every group of arrows on all of these splits, in one call each.

    Args:
        dataset: Whose rows the splits number.
        splits: What is fitted.
        arrows: Groups of arrows that differ in k alone.
        site: Where activations are read.
        predict: As of a job.
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
