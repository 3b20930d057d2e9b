"""Result rows -> findings: everything the page, the terminal and `quiver.csv` show, as numbers.

The two split protocols are separate analyses; each regime of a protocol is a `Part`. Controls are
never arrows.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxprobe import base, quiver
from jaxprobe.stages.reporting import arrow_rows, per_dataset


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One regime under one protocol.

    Attributes:
        regime: One of `base.REGIMES`.
        protocol: One of `base.PROTOCOLS`.
        arrow_names: The quiver's SAE arrows.
        comparisons: By tie rule, the quiver of arrows.
        effects: By tie rule, its effect, Holm-corrected over the protocol's regimes.
        alone: Best SAE probe over all k against the best baseline.
        alone_effect: Its effect, corrected likewise.
        level_effects: Per level, the effect with `baselines_first`; empty without levels.
        lines: One per dataset.
        curve: AUROC by k; None where fewer than three k were run.
        controls: One per kind of control.
    """

    regime: str
    protocol: str
    arrow_names: tuple[str, ...]
    comparisons: dict[str, quiver.Comparison]
    effects: dict[str, quiver.Effect]
    alone: quiver.Comparison
    alone_effect: quiver.Effect
    level_effects: tuple[tuple[float, quiver.Effect], ...]
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
    flagged: tuple[base.ResultRow, ...]
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


def find(rows: Sequence[base.ResultRow], model: str = "", site: str = "") -> Findings:
    """Analyses result rows.

    Args:
        rows: Result rows, in any order.
        model: Which model's rows to report; "" for that of the first row.
        site: Which site's; "" for that of the first of the model's rows.

    Raises:
        ValueError: No rows, or none of that model and site, or rows of two runs mixed.
    """
    settings = list(dict.fromkeys((row.model, row.site) for row in rows))
    fitting = [s for s in settings if model in ("", s[0]) and site in ("", s[1])]
    if not fitting:
        known = ", ".join(f"{m} at {s}" for m, s in settings) or "no rows at all"
        raise ValueError(
            f"`rows` must hold results of model {model or '(any)'} at site {site or '(any)'}, got {known}"
        )
    chosen = [row for row in rows if (row.model, row.site) == fitting[0]]
    notes = []
    if len(settings) > 1:
        others = ", ".join(f"{m} at {s}" for m, s in settings if (m, s) != fitting[0])
        notes.append(
            f"results.parquet also holds results of {others}; name a site to report those."
        )
    parts, part_notes = _parts(chosen)
    return Findings(
        model=fitting[0][0],
        site=fitting[0][1],
        saes=arrow_rows.saes(chosen),
        num_rows=len(chosen),
        parts=parts,
        flagged=tuple(row for row in chosen if not row.converged),
        notes=(*notes, *part_notes),
    )


def _parts(rows: Sequence[base.ResultRow]) -> tuple[tuple[Part, ...], list[str]]:
    groups: dict[tuple[str, str], list[base.ResultRow]] = {}
    for row in rows:
        groups.setdefault((row.regime, row.protocol), []).append(row)
    parts, notes = [], []
    for protocol in base.PROTOCOLS:
        family = []
        for regime in base.REGIMES:
            if (regime, protocol) in groups:
                part, more = _part(groups[regime, protocol], regime, protocol)
                family.append(part)
                notes += more
        parts += _corrected(family)
    order = {regime: place for place, regime in enumerate(base.REGIMES)}
    parts.sort(key=lambda part: order[part.regime])
    return tuple(parts), list(dict.fromkeys(notes))


def _corrected(family: Sequence[Part]) -> list[Part]:
    """Holm's correction over the regimes of one protocol, for each question asked of them."""
    by_rule = {
        rule: quiver.holm([part.effects[rule] for part in family]) for rule in quiver.TIE_RULES
    }
    alone = quiver.holm([part.alone_effect for part in family])
    return [
        dataclasses.replace(
            part,
            effects={rule: by_rule[rule][i] for rule in quiver.TIE_RULES},
            alone_effect=alone[i],
        )
        for i, part in enumerate(family)
    ]


def _part(rows: Sequence[base.ResultRow], regime: str, protocol: str) -> tuple[Part, list[str]]:
    baselines = arrow_rows.baselines(rows)
    arrow_names, notes = arrow_rows.sae_arrows(rows)
    scores = [arrow_rows.score(row) for row in rows]
    arrows = quiver.gather(scores, baselines, arrow_names)
    comparisons = {rule: quiver.compare(arrows, rule) for rule in quiver.TIE_RULES}
    all_saes = arrow_rows.all_arrows(rows, arrow_rows.saes(rows))
    wide = quiver.gather(scores, baselines, all_saes)
    alone = quiver.compare_alone(wide)
    random = quiver.gather(scores, (), arrow_rows.all_arrows(rows, (quiver.RANDOM_SAE,)))
    if skipped := comparisons["baselines_first"].num_skipped:
        notes.append(
            f"{regime}, {protocol}: {skipped} cases lack a baseline or an SAE arrow and are left out"
            " of the comparison."
        )
    part = Part(
        regime=regime,
        protocol=protocol,
        arrow_names=arrow_names,
        comparisons=comparisons,
        effects={rule: _effect(comparisons[rule]) for rule in quiver.TIE_RULES},
        alone=alone,
        alone_effect=_effect(alone),
        level_effects=_by_level(comparisons["baselines_first"]),
        lines=per_dataset.lines(wide, random),
        curve=per_dataset.curve(rows, wide),
        controls=per_dataset.controls(rows, wide),
    )
    return part, notes


def _effect(comparison: quiver.Comparison) -> quiver.Effect:
    return quiver.estimate(comparison.delta_G, comparison.datasets)


def _by_level(comparison: quiver.Comparison) -> tuple[tuple[float, quiver.Effect], ...]:
    found = []
    for level in np.unique(comparison.level_G[~np.isnan(comparison.level_G)]):
        at_G = np.flatnonzero(comparison.level_G == level)
        names = [comparison.datasets[case] for case in at_G]
        found.append((float(level), quiver.estimate(comparison.delta_G[at_G], names)))
    return tuple(found)
