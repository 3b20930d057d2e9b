"""What a report is made of: result rows, the records of the jobs that made them, chosen latents, metrics."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxprobe import base

Facts = Mapping[str, object]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of a job that made results; what is not known is empty.

    Attributes:
        model: Its model, as in the rows; empty where it is the one of every row.
        sites: Sites whose results it made; empty where it is every site.
        config: The job's config, nested.
        versions: By package.
        device: Kind and number of devices.
        processor: Of the host.
        commit: Git commit of jaxprobe.
        date: When it was made, ISO 8601.
        command: What was typed.
        seeds: By what they are for.
        solver: How the probes were solved.
        sae_quality: By SAE id what was measured on it, nested.
        times: Seconds by stage.
        leaks: By dataset, as `leaks.measure` returns them.
        fingerprints: By artefact.
        dedup_by: What the dedup split takes for one prompt: `exact`, `normalised`, or empty.
        published: Whether these are the paper's own files, which do not tell which fits converged.
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
        """Whether it made results of that model and site."""
        return self.model in ("", model) and (not self.sites or site in self.sites)


class ChosenLatent(NamedTuple):
    """A latent that a probe chose.

    Attributes:
        dataset: On which dataset.
        sae: Id of the SAE.
        latent: Its number in the SAE.
        weight: The probe's weight for it; positive ones speak for label 1.
        texts: The dataset's texts on which it fires most, the strongest first.
        site: Where the SAE reads; empty where it is every site of the rows.
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
        records: Of the jobs that made them.
        latents: What the probes chose; empty where it was not kept.
        metrics: Per further metric a value per row, NaN where it is missing.
        name: What the run is called beside others; empty where it is alone.
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
        """The records that tell of a model and site."""
        return tuple(record for record in self.records if record.tells_of(model, site))
