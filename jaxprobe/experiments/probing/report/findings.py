"""Results -> findings: everything the page, the terminal and the CSV files show, as numbers.

Each setting (a run's model at one site) is a separate comparison; so is each split protocol, and each regime of
a protocol is a `Part`. Controls are never arrows.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxprobe import base, quiver
from jaxprobe.experiments.probing.report import health, sensitivity
from jaxprobe.experiments.probing.report.choice import sae_ids
from jaxprobe.experiments.probing.report.inputs import ChosenLatent, Record, Results
from jaxprobe.experiments.probing.report.parts import FIRST_RULE, Part, analyse
from jaxprobe.experiments.probing.report.selecting import Chosen, Selection, Setting, select

SLIP = ("161_", "162_", "163_")
SLIP_NOTE = (
    "According to the authors, datasets 161 to 163 separate news from code because of a formatting"
    " error in their source. They are kept, as in the paper."
)
DEDUP_NOTES = {
    "exact": "Dedup: two prompts are the same if every character is the same.",
    "normalised": (
        "Dedup: two prompts are the same if they are equal after Unicode normalisation (NFC) and"
        " stripping blanks at their ends."
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Findings:
    """All that the report shows of one setting.

    Attributes:
        setting: Run, model and site.
        saes: Ids of its SAEs.
        num_rows: Number of its evaluated probes.
        parts: One per regime and protocol.
        readings: One per regime.
        health: One per SAE: whether it works at all.
        flagged: Rows of fits that did not converge; None where that was not recorded.
        latents: The latents that the probes chose.
        records: The records of the jobs that made it.
        notes: Sentences for the reader.
    """

    setting: Setting
    saes: tuple[str, ...]
    num_rows: int
    parts: tuple[Part, ...]
    readings: tuple[sensitivity.Reading, ...]
    health: tuple[health.Health, ...]
    flagged: tuple[base.ResultRow, ...] | None
    latents: tuple[ChosenLatent, ...]
    records: tuple[Record, ...]
    notes: tuple[str, ...]

    def of_regime(self, regime: str) -> tuple[Part, ...]:
        """The parts of one regime, one per protocol."""
        return tuple(part for part in self.parts if part.regime == regime)

    @property
    def model(self) -> str:
        """Its model."""
        return self.setting.model

    @property
    def site(self) -> str:
        """Where its probes read."""
        return self.setting.site

    @property
    def published(self) -> bool:
        """Whether these are the paper's own files."""
        return any(record.published for record in self.records)

    @property
    def solver(self) -> str:
        """How the probes were solved."""
        known = dict.fromkeys(record.solver for record in self.records if record.solver)
        return ", ".join(known) or "not recorded"

    @property
    def regimes(self) -> tuple[str, ...]:
        """Regimes with rows, in the order of `base.REGIMES`."""
        return tuple(dict.fromkeys(part.regime for part in self.parts))

    @property
    def protocols(self) -> tuple[str, ...]:
        """Protocols with rows, in the order of `base.PROTOCOLS`."""
        return tuple(p for p in base.PROTOCOLS if any(part.protocol == p for part in self.parts))

    @property
    def datasets(self) -> tuple[str, ...]:
        """All datasets, in the order of their first row."""
        return tuple(dict.fromkeys(line.dataset for part in self.parts for line in part.lines))


def find(runs: Sequence[Results] | Results, selection: Selection | None = None) -> list[Findings]:
    """Analyses the results of one or several runs, setting by setting.

    Args:
        runs: Results; those of several runs have distinct names.
        selection: Which results to report; all where None.

    Raises:
        ValueError: No rows, nothing selected, or rows of two different runs mixed.
    """
    selection = selection or Selection()
    runs = [runs] if isinstance(runs, Results) else list(runs)
    groups, notes = select(runs, selection)
    found = [_setting(group, selection) for group in groups]
    if notes:
        found[0] = dataclasses.replace(found[0], notes=(*notes, *found[0].notes))
    return found


def _setting(chosen: Chosen, selection: Selection) -> Findings:
    setting, rows, places, results = chosen
    records = results.records_of(setting.model, setting.site)
    metrics = {name: np.asarray(x, float)[places] for name, x in results.metrics.items()}
    groups: dict[tuple[str, str], list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault((row.protocol, row.regime), []).append(place)
    parts: list[Part] = []
    for protocol in base.PROTOCOLS:
        family = [
            analyse(
                [rows[i] for i in groups[protocol, regime]],
                {name: value_N[groups[protocol, regime]] for name, value_N in metrics.items()},
                regime,
                protocol,
                selection.baselines,
            )
            for regime in base.REGIMES
            if (protocol, regime) in groups
        ]
        parts += _corrected(family)
    parts.sort(key=lambda part: base.REGIMES.index(part.regime))
    published = any(record.published for record in records)
    saes = sae_ids(dict.fromkeys(row.arrow for row in rows))
    return Findings(
        setting=setting,
        saes=saes,
        num_rows=len(rows),
        parts=tuple(parts),
        readings=_readings(parts),
        health=health.examine(parts[0], saes, records),
        flagged=None if published else tuple(row for row in rows if not row.converged),
        latents=tuple(x for x in results.latents if x.site in ("", setting.site)),
        records=records,
        notes=_notes(rows, parts, records),
    )


def _notes(
    rows: Sequence[base.ResultRow], parts: Sequence[Part], records: Sequence[Record]
) -> tuple[str, ...]:
    """What is unusual, each note once; prefixed by the regimes unless it holds for all."""
    where: dict[str, list[str]] = {}
    for one in parts:
        for note in (*one.choice.notes, *_skipped(one)):
            where.setdefault(note, []).append(f"{one.regime}, {one.protocol}")
    notes = [note for record in records for note in record.notes]
    if any(one.protocol == "dedup" for one in parts):
        notes += [DEDUP_NOTES[r.dedup_by] for r in records if r.dedup_by in DEDUP_NOTES]
    notes += [
        note if len(places) == len(parts) else f"{'; '.join(places)}: {note}"
        for note, places in where.items()
    ]
    if any(row.dataset.startswith(SLIP) for row in rows):
        notes.append(SLIP_NOTE)
    return tuple(dict.fromkeys(notes))


def _skipped(part: Part) -> list[str]:
    first = part.comparisons[FIRST_RULE]
    if not first.num_skipped or not first.datasets:
        return []
    return [
        f"{first.num_skipped} cases lack a baseline or an SAE arrow with valid"
        " AUROC and are left out of the quiver."
    ]


def _readings(parts: Sequence[Part]) -> tuple[sensitivity.Reading, ...]:
    readings = []
    for regime in dict.fromkeys(part.regime for part in parts):
        mine = [part for part in parts if part.regime == regime]
        keys = [(part, rule) for part in mine for rule in quiver.TIE_RULES]
        readings.append(
            sensitivity.read(
                regime,
                {(part.protocol, rule): part.comparisons[rule] for part, rule in keys},
                {(part.protocol, rule): part.effects[rule] for part, rule in keys},
            )
        )
    return tuple(readings)


# --- Holm's correction over the regimes of one protocol, for each question asked of them


def _corrected(family: Sequence[Part]) -> list[Part]:
    by_rule = {
        rule: quiver.holm([part.effects[rule] for part in family]) for rule in quiver.TIE_RULES
    }
    alone = quiver.holm([part.alone_effect for part in family])
    return [
        dataclasses.replace(
            part,
            effects={rule: by_rule[rule][i] for rule in quiver.TIE_RULES},
            alone_effect=alone[i],
            beside=tuple(
                dataclasses.replace(one, effect=_corrected_beside(family, one.label)[i])
                for one in part.beside
            ),
        )
        for i, part in enumerate(family)
    ]


def _corrected_beside(family: Sequence[Part], label: str) -> dict[int, quiver.Effect]:
    having = [
        (i, one.effect)
        for i, part in enumerate(family)
        for one in part.beside
        if one.label == label
    ]
    effects = quiver.holm([effect for _, effect in having])
    return {i: effect for (i, _), effect in zip(having, effects, strict=True)}
