"""Leaks of the published splits: prompts in both training and test rows, prompts under both labels."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxprobe import regimes
from jaxprobe.base import TextDataset
from jaxprobe.experiments.probing.config import Config
from jaxprobe.workspace import Workspace

RATE, CONFLICTS = "leak rate", "prompts under both labels"


def facts(config: Config, workspace: Workspace, names: Sequence[str]) -> dict[str, Any]:
    """Facts about a job's datasets, for the report."""
    loaded = (workspace.dataset(name) for name in names)
    return {"leaks": measure(loaded, config.seed, config.encode.dedup_by)}


def measure(
    datasets: Iterable[TextDataset], seed: int, dedup_by: str = "exact"
) -> dict[str, dict[str, float]]:
    """Leaks of the paper's standard split of each dataset.

    Args:
        datasets: The datasets.
        seed: Seed of the split.
        dedup_by: When two prompts are the same, see `regimes.splits`; leak rates always count prompts
            that are equal in every character.

    Returns:
        Per dataset the number of rows, of distinct prompts, of prompts under both labels and of rows that
        the dedup split may use, and the share of test prompts that are also among the training rows.
    """
    leaks = {}
    for dataset in datasets:
        distinct = len(set(map(regimes.DEDUP_BY[dedup_by], dataset.texts)))
        for split in regimes.splits(dataset, seed=seed):
            usable = len(regimes.distinct_rows(dataset.texts, dataset.y_N, dedup_by))
            leaks[dataset.name] = {
                "rows": len(dataset.texts),
                "distinct prompts": distinct,
                CONFLICTS: distinct - usable,
                "rows after dedup": usable,
                RATE: regimes.leak_rate(dataset.texts, split),
            }
    return leaks


def sentences(leaks: Mapping[str, object], wanted: Sequence[str] = ()) -> list[str]:
    """Summarises the leaks of a run's datasets.

    Args:
        leaks: As `measure` returns them; other records are ignored.
        wanted: The datasets to summarise; all where empty.
    """
    kept = [
        record
        for name, record in leaks.items()
        if isinstance(record, Mapping) and (not wanted or name in wanted)
    ]
    rates = [float(r[RATE]) for r in kept if isinstance(r.get(RATE), int | float)]
    conflicts = [r[CONFLICTS] for r in kept if isinstance(r.get(CONFLICTS), int)]
    said = []
    if rates:
        leaking = sum(rate > 0 for rate in rates)
        said.append(
            f"In {leaking} of {_datasets(len(rates))} some test prompts are also among the training"
            f" rows of the paper's standard split; on average {100 * sum(rates) / len(rates):.1f} % of"
            f" the test prompts do, at most {100 * max(rates):.1f} %."
        )
    if conflicts:
        count = sum(count > 0 for count in conflicts)
        said.append(
            f"{count} of {_datasets(len(conflicts))} {'holds' if len(conflicts) == 1 else 'hold'} one"
            f" prompt under both labels ({_prompts(sum(conflicts))} in all)."
        )
    return said


def _datasets(count: int) -> str:
    return f"{count} {'dataset' if count == 1 else 'datasets'}"


def _prompts(count: int) -> str:
    return f"{count:,} {'prompt' if count == 1 else 'prompts'}"
