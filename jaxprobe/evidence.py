"""What a report is made from: result rows, the records of the jobs that made them, latents, metrics."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxprobe import base

Facts = Mapping[str, object]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What is known about a job that made results; unknown fields are empty.

    Attributes:
        model: Its model, as in the rows; empty for the model of all rows.
        sites: Sites whose results it made; empty for all sites.
        config: The job's config, nested.
        versions: Versions by package.
        device: Kind and number of devices.
        processor: Processor of the host.
        commit: Git commit of jaxprobe.
        date: When it was made, ISO 8601.
        command: The command line.
        seeds: Seeds by purpose.
        solver: How the probes were solved.
        sae_quality: Measurements of each SAE by its id, nested.
        times: Seconds by stage.
        leaks: By dataset, as `leaks.measure` returns them.
        fingerprints: Fingerprints by artefact.
        dedup_by: Which prompts the dedup split treats as equal: `exact`, `normalised`, or empty.
        published: Whether these are the paper's own files, which do not say which fits converged.
        published_facts: Folder and model of published files, and their digests.
        notes: Sentences for the reader.
        other: What else was recorded.
    """

    model: str = ""
    sites: tuple[str, ...] = ()
    config: Facts = dataclasses.field(default_factory=dict)
    versions: Facts = dataclasses.field(default_factory=dict)
    device: str = ""
    processor: str = ""
    commit: str = ""
    date: str = ""
    command: str = ""
    seeds: Facts = dataclasses.field(default_factory=dict)
    solver: str = ""
    sae_quality: Mapping[str, Facts] = dataclasses.field(default_factory=dict)
    times: Mapping[str, float] = dataclasses.field(default_factory=dict)
    leaks: Mapping[str, Facts] = dataclasses.field(default_factory=dict)
    fingerprints: Facts = dataclasses.field(default_factory=dict)
    dedup_by: str = ""
    published: bool = False
    published_facts: Facts = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    other: Facts = dataclasses.field(default_factory=dict)

    def tells_of(self, model: str, site: str) -> bool:
        """Whether the job made results for that model and site."""
        return self.model in ("", model) and (not self.sites or site in self.sites)


class ChosenLatent(NamedTuple):
    """A latent that a probe chose.

    Attributes:
        dataset: The dataset.
        sae: Id of the SAE.
        latent: Its number in the SAE.
        weight: The probe's weight for it; positive is evidence for label 1.
        texts: The dataset's texts on which it fires most, the strongest first.
        site: Where the SAE reads; empty for every site of the rows.
    """

    dataset: str
    sae: str
    latent: int
    weight: float
    texts: tuple[str, ...]
    site: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    """The results of one run.

    Attributes:
        rows: Result rows, in any order.
        records: Records of the jobs that made them.
        latents: The latents that the probes chose; empty where they were not kept.
        metrics: Per additional metric, a value per row, NaN where it is missing.
        name: The run's name among others; empty for a single run.
    """

    rows: Sequence[base.ResultRow]
    records: Sequence[Record] = ()
    latents: Sequence[ChosenLatent] = ()
    metrics: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    name: str = ""

    def __post_init__(self):
        """Refuses metrics that are not one value per row."""
        for name, values in self.metrics.items():
            if len(values) != len(self.rows):
                raise ValueError(
                    f"`metrics[{name!r}]` must hold one value per row ({len(self.rows)}), got"
                    f" {len(values)}"
                )

    def records_of(self, model: str, site: str) -> tuple[Record, ...]:
        """The records of jobs that made results for a model and site."""
        return tuple(record for record in self.records if record.tells_of(model, site))
