"""Result rows -> findings: everything the page, the terminal and the CSV files show, as numbers.

The two split protocols are separate analyses; each regime of a protocol is a `Part`. Controls are
never arrows.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxprobe import base, quiver
from jaxprobe.published import MARK
from jaxprobe.stages.reporting import arrow_rows, per_dataset, probe_means, sensitivity
from jaxprobe.stages.reporting.selecting import Selection, select

FIRST_RULE = quiver.TIE_RULES[0]
SLIP = ("161_", "162_", "163_")
SLIP_NOTE = (
    "Datasets 161 to 163 separate news from code because of a formatting slip in their source, as"
    " the authors say. They are kept, as in the paper."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Level:
    """One level of a regime: training size, fraction of positives or of flipped labels.

    Attributes:
        level: Its value.
        base: Mean test AUROC of the best baseline.
        with_sae: The same where SAE arrows take part, ties to the baselines.
        effects: By tie rule, the change.
    """

    level: float
    base: quiver.Effect
    with_sae: quiver.Effect
    effects: dict[str, quiver.Effect]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beside:
    """A comparison that stands beside the quiver: a control, or another set of baselines."""

    label: str
    comparison: quiver.Comparison
    effect: quiver.Effect


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One regime under one protocol.

    Attributes:
        regime: One of `base.REGIMES`.
        protocol: One of `base.PROTOCOLS`.
        choice: Which rows are the quiver's arrows.
        comparisons: By tie rule, the quiver of arrows.
        effects: By tie rule, its effect, Holm-corrected over the protocol's regimes.
        beside: The same with a random SAE's arrows, and with all baselines; corrected likewise.
        alone: Best SAE probe over all k against the best baseline.
        alone_effect: Its effect, corrected likewise.
        levels: One per level; empty without levels.
        means: Each probe by itself.
        reference: The baseline that `means` are compared with.
        lines: One per dataset.
        curve: AUROC by k; None where fewer than three k were run.
        controls: One per kind of control.
    """

    regime: str
    protocol: str
    choice: arrow_rows.Choice
    comparisons: dict[str, quiver.Comparison]
    effects: dict[str, quiver.Effect]
    beside: tuple[Beside, ...]
    alone: quiver.Comparison
    alone_effect: quiver.Effect
    levels: tuple[Level, ...]
    means: tuple[probe_means.ProbeMean, ...]
    reference: str
    lines: tuple[per_dataset.Line, ...]
    curve: per_dataset.Curve | None
    controls: tuple[per_dataset.Control, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Findings:
    """All that the report shows of the result rows of one model and site."""

    model: str
    site: str
    saes: tuple[str, ...]
    num_rows: int
    parts: tuple[Part, ...]
    readings: tuple[sensitivity.Reading, ...]
    flagged: tuple[base.ResultRow, ...]
    published: bool
    notes: tuple[str, ...]

    def of_regime(self, regime: str) -> tuple[Part, ...]:
        """The parts of one regime, one per protocol."""
        return tuple(part for part in self.parts if part.regime == regime)

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


def find(rows: Sequence[base.ResultRow], selection: Selection | None = None) -> Findings:
    """Analyses result rows.

    Args:
        rows: Result rows, in any order.
        selection: What to report of them; everything of the first model and site where None.

    Raises:
        ValueError: No rows, nothing selected, or rows of two runs mixed.
    """
    selection = selection or Selection()
    kept, notes = select(rows, selection)
    groups: dict[tuple[str, str], list[base.ResultRow]] = {}
    for row in kept:
        groups.setdefault((row.protocol, row.regime), []).append(row)
    parts: list[Part] = []
    for protocol in base.PROTOCOLS:
        family = []
        for regime in base.REGIMES:
            if (protocol, regime) in groups:
                family.append(_part(groups[protocol, regime], regime, protocol, selection))
        parts += _corrected(family)
    notes += _notes(parts)
    if any(row.dataset.startswith(SLIP) for row in kept):
        notes.append(SLIP_NOTE)
    parts.sort(key=lambda part: base.REGIMES.index(part.regime))
    return Findings(
        model=kept[0].model,
        site=kept[0].site,
        saes=arrow_rows.sae_ids(kept),
        num_rows=len(kept),
        parts=tuple(parts),
        readings=_readings(parts),
        flagged=tuple(row for row in kept if not row.converged),
        published=all(row.fingerprint.startswith(MARK) for row in kept),
        notes=tuple(dict.fromkeys(notes)),
    )


def _part(rows: Sequence[base.ResultRow], regime: str, protocol: str, selection: Selection) -> Part:
    choice = arrow_rows.choose(rows, selection.baselines)
    scores = [arrow_rows.score(row) for row in rows]
    arrows = quiver.gather(scores, choice.baselines, choice.saes)
    comparisons = {rule: quiver.compare(arrows, rule) for rule in quiver.TIE_RULES}
    wide = quiver.gather(scores, choice.baselines, choice.wide)
    random_names = arrow_rows.all_arrows(rows, (quiver.RANDOM_SAE,), choice.sae_method)
    alone = quiver.compare_alone(wide)
    means, reference = probe_means.probe_means(rows, choice)
    return Part(
        regime=regime,
        protocol=protocol,
        choice=choice,
        comparisons=comparisons,
        effects={rule: _effect(comparisons[rule]) for rule in quiver.TIE_RULES},
        beside=_beside(scores, choice, random_names),
        alone=alone,
        alone_effect=_effect(alone),
        levels=_levels(comparisons),
        means=means,
        reference=reference,
        lines=per_dataset.lines(rows, wide, random_names),
        curve=per_dataset.curve(rows, wide, choice.sae_method),
        controls=per_dataset.controls(rows, wide),
    )


def _notes(parts: Sequence[Part]) -> list[str]:
    """What is unusual, once; with the regimes in front where it is not so in all of them."""
    where: dict[str, list[str]] = {}
    for part in parts:
        for note in (*part.choice.notes, *_skipped(part)):
            where.setdefault(note, []).append(f"{part.regime}, {part.protocol}")
    return [
        note if len(places) == len(parts) else f"{'; '.join(places)}: {note}"
        for note, places in where.items()
    ]


def _skipped(part: Part) -> list[str]:
    first = part.comparisons[FIRST_RULE]
    if not first.num_skipped or not first.datasets:
        return []
    return [
        f"{first.num_skipped} cases lack a baseline or an SAE arrow with valid"
        " AUROC and are left out of the quiver."
    ]


def _beside(
    scores: Sequence[quiver.Score], choice: arrow_rows.Choice, random_names: Sequence[str]
) -> tuple[Beside, ...]:
    """The quiver with a random SAE's arrows, of the k that the quiver uses, and with all baselines."""
    found = []
    used = {name.rpartition("k=")[2] for name in choice.saes}
    random = [name for name in reversed(random_names) if name.rpartition("k=")[2] in used]
    both = (*choice.baselines, *choice.extended)
    sets: list[tuple[str, Sequence[str], Sequence[str]]] = [
        ("random SAE (control)", choice.baselines, random)
    ]
    if choice.extended:
        sets.append(("extended baselines", choice.baselines, choice.extended))
        sets.append(("SAE probes (all baselines)", both, choice.saes))
    for label, baselines, guests in sets:
        if baselines and guests:
            arrows = quiver.gather(scores, baselines, guests)
            comparison = quiver.compare(arrows, FIRST_RULE)
            found.append(Beside(label=label, comparison=comparison, effect=_effect(comparison)))
    return tuple(found)


def _effect(comparison: quiver.Comparison) -> quiver.Effect:
    return quiver.estimate(comparison.delta_G, comparison.datasets)


def _levels(comparisons: dict[str, quiver.Comparison]) -> tuple[Level, ...]:
    first = comparisons[FIRST_RULE]
    found = []
    for level in np.unique(first.level_G[~np.isnan(first.level_G)]):
        at_G = np.flatnonzero(first.level_G == level)  # the rules share their cases
        names = [first.datasets[case] for case in at_G]
        effects = {
            rule: quiver.estimate(comparison.delta_G[at_G], names)
            for rule, comparison in comparisons.items()
        }
        found.append(
            Level(
                level=float(level),
                base=quiver.estimate(first.base_G[at_G], names),
                with_sae=quiver.estimate(first.with_sae_G[at_G], names),
                effects=effects,
            )
        )
    return tuple(found)


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
