"""The rows of one regime under one protocol -> everything that the report says about them, as numbers."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxprobe import base, quiver
from jaxprobe.experiments.probing.report import choosing, per_dataset, probe_means
from jaxprobe.experiments.probing.report.choice import Choice, choose

FIRST_RULE = quiver.TIE_RULES[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Level:
    """One level of a regime: training size, fraction of positives or of flipped labels.

    Attributes:
        level: Its value.
        base: Mean test AUROC of the best baseline.
        with_sae: The same when SAE arrows take part, with ties to the baselines.
        effects: The change, by tie rule.
    """

    level: float
    base: quiver.Effect
    with_sae: quiver.Effect
    effects: Mapping[str, quiver.Effect]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beside:
    """A comparison shown next to the quiver: a control, or another set of baselines."""

    label: str
    comparison: quiver.Comparison
    effect: quiver.Effect


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One regime under one protocol.

    Attributes:
        regime: One of `base.REGIMES`.
        protocol: One of `base.PROTOCOLS`.
        choice: The role of each arrow.
        comparisons: The quiver of arrows, by tie rule.
        effects: Its effect by tie rule, Holm-corrected over the protocol's regimes.
        beside: The same with a random SAE's arrows, and with all baselines; corrected likewise.
        alone: Best SAE probe over all k against the best baseline.
        alone_effect: Its effect, corrected likewise.
        by_sae: The same effect for each SAE by itself, not corrected.
        choosing: The cost of choosing by validation, for the baselines and for the SAE probes.
        levels: One per level; empty without levels.
        means: Each probe by itself.
        lines: One per dataset.
        shots: The quiver's arrows, one per dataset, losses first.
        curve: AUROC by k; None where fewer than three k were run.
        controls: One per kind of control.
    """

    regime: str
    protocol: str
    choice: Choice
    comparisons: Mapping[str, quiver.Comparison]
    effects: Mapping[str, quiver.Effect]
    beside: tuple[Beside, ...]
    alone: quiver.Comparison
    alone_effect: quiver.Effect
    by_sae: Mapping[str, quiver.Effect]
    choosing: tuple[choosing.Choosing, ...]
    levels: tuple[Level, ...]
    means: tuple[probe_means.ProbeMean, ...]
    lines: tuple[per_dataset.Line, ...]
    shots: tuple[per_dataset.Shot, ...]
    curve: per_dataset.Curve | None
    controls: tuple[per_dataset.Control, ...]

    @property
    def joined(self) -> quiver.Effect:
        """What adding SAE probes to the baselines changes, ties to the baselines."""
        return self.effects[FIRST_RULE]

    @property
    def reference(self) -> base.Arrow | None:
        """The baseline that single probes are compared with."""
        return next(iter(self.choice.baselines), None)

    @property
    def is_alone(self) -> bool:
        """Whether there is no quiver, but baselines and SAE probes can be compared with each other."""
        return self.joined.num_datasets == 0 and self.alone_effect.num_datasets > 0


def analyse(
    rows: Sequence[base.ResultRow],
    metrics: Mapping[str, np.ndarray],
    regime: str,
    protocol: str,
    baselines: Sequence[str] = (),
) -> Part:
    """Analyses the rows of one regime and protocol.

    Args:
        rows: The rows of the regime and protocol.
        metrics: Per further metric a value per row.
        regime: The regime's name.
        protocol: The protocol's name.
        baselines: Methods of the quiver's baselines; the paper's five where empty.

    Raises:
        ValueError: A probe occurs twice.
    """
    every = scores(rows)
    arrows = tuple(dict.fromkeys(score.arrow for score in every))
    choice, table = choose(arrows, baselines), quiver.gather(every, arrows)
    narrow = table.only(choice.baselines, choice.saes)
    wide = table.only(choice.baselines, choice.wide)
    comparisons = {rule: quiver.compare(narrow, rule) for rule in quiver.TIE_RULES}
    alone = quiver.compare_alone(wide)
    return Part(
        regime=regime,
        protocol=protocol,
        choice=choice,
        comparisons=comparisons,
        effects={rule: effect(comparison) for rule, comparison in comparisons.items()},
        beside=_beside(table, choice),
        alone=alone,
        alone_effect=effect(alone),
        by_sae=_by_sae(table, choice),
        choosing=choosing.costs(wide),
        levels=_levels(comparisons),
        means=probe_means.probe_means(table, choice, _metric_means(every, metrics)),
        lines=per_dataset.lines(table, choice),
        shots=per_dataset.shots(comparisons[FIRST_RULE]),
        curve=per_dataset.curve(table, choice),
        controls=per_dataset.controls(table, choice),
    )


def scores(rows: Sequence[base.ResultRow]) -> list[quiver.Score]:
    """The rows as scores of their arrows."""
    known: dict[base.Arrow, base.Arrow] = {}  # so that equal arrows share one object
    return [
        quiver.Score(
            row.dataset,
            row.level,
            row.seed,
            known.setdefault(arrow := row.arrow, arrow),
            row.valid_auroc,
            row.test_auroc,
            row.test_set,
        )
        for row in rows
    ]


def effect(comparison: quiver.Comparison) -> quiver.Effect:
    """The effect of a comparison, not corrected."""
    return quiver.estimate(comparison.delta_G, comparison.datasets)


def _by_sae(table: quiver.Arrows, choice: Choice) -> dict[str, quiver.Effect]:
    by_sae: dict[str, list[base.Arrow]] = {}
    for arrow in choice.wide:
        by_sae.setdefault(arrow.features, []).append(arrow)
    return {
        sae: effect(quiver.compare_alone(table.only(choice.baselines, arrows)))
        for sae, arrows in by_sae.items()
    }


def _metric_means(
    every: Sequence[quiver.Score], metrics: Mapping[str, np.ndarray]
) -> dict[base.Arrow, dict[str, float]]:
    """Per arrow the mean of each further metric over the rows that have it."""
    if not metrics:
        return {}
    places: dict[base.Arrow, list[int]] = {}
    for place, score in enumerate(every):
        places.setdefault(score.arrow, []).append(place)
    means: dict[base.Arrow, dict[str, float]] = {arrow: {} for arrow in places}
    for name, value_N in metrics.items():
        for arrow, at in places.items():
            known = value_N[at][~np.isnan(value_N[at])]
            means[arrow][name] = float(known.mean()) if len(known) else float("nan")
    return means


def _beside(table: quiver.Arrows, choice: Choice) -> tuple[Beside, ...]:
    """The quiver with a random SAE's arrows (of the quiver's k), and with all baselines."""
    used = {arrow.k for arrow in choice.saes}
    random = [arrow for arrow in reversed(choice.random) if arrow.k in used]
    sets = [("random SAE (control)", choice.baselines, random)]
    if choice.extended:
        both = (*choice.baselines, *choice.extended)
        sets.append(("extended baselines", choice.baselines, list(choice.extended)))
        sets.append(("SAE probes (all baselines)", both, list(choice.saes)))
    found = []
    for label, baselines, guests in sets:
        if baselines and guests:
            comparison = quiver.compare(table.only(baselines, guests), FIRST_RULE)
            found.append(Beside(label=label, comparison=comparison, effect=effect(comparison)))
    return tuple(found)


def _levels(comparisons: Mapping[str, quiver.Comparison]) -> tuple[Level, ...]:
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
