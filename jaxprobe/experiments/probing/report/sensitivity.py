"""Does the answer depend on a rule? Both tie rules and both protocols, side by side."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxprobe import quiver


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """One regime under both protocols and both tie rules.

    Attributes:
        regime: The regime's name.
        effects: The quiver's effect by (protocol, tie rule).
        protocol_gaps: By tie rule, the dedup difference minus the paper's on the cases that both
            protocols have; empty where only one protocol was run.
        rule_gaps: By protocol, the difference with ties to the SAEs minus that with ties to the
            baselines.
    """

    regime: str
    effects: Mapping[tuple[str, str], quiver.Effect]
    protocol_gaps: Mapping[str, quiver.Effect]
    rule_gaps: Mapping[str, quiver.Effect]

    def rests_on(self) -> list[str]:
        """What the direction of the answer depends on: the protocol, the tie rule, both or neither."""
        directions = self._directions()
        named = ((0, "the protocol"), (1, "the tie rule"))
        return [name for place, name in named if _moves(directions, place)]

    def sentence(self) -> str:
        """What changes with the rule and the protocol, and what does not."""
        directions = self._directions()
        if not directions:
            return "There are too few datasets to tell."
        if moved := self.rests_on():
            return f"The answer depends on {' and '.join(moved)}: read all rows before quoting one."
        words = {
            0: "no difference can be told apart from chance",
            1: "SAE probes raise the mean test AUROC",
            -1: "SAE probes lower the mean test AUROC",
        }[next(iter(directions.values()))]
        readings = {1: "The one reading", 2: "Both readings"}.get(
            len(directions), f"All {len(directions)} readings"
        )
        return f"{readings}: {words}."

    def _directions(self) -> dict[tuple[str, str], int]:
        told = {key: effect for key, effect in self.effects.items() if effect.num_datasets > 1}
        return {key: quiver.direction(effect) for key, effect in told.items()}


def _moves(directions: Mapping[tuple[str, str], int], place: int) -> bool:
    """Whether the direction differs between two readings that differ in this part of their key."""
    return any(
        directions[one] != directions[other]
        for one in directions
        for other in directions
        if one[1 - place] == other[1 - place]
    )


def read(
    regime: str,
    comparisons: Mapping[tuple[str, str], quiver.Comparison],
    effects: Mapping[tuple[str, str], quiver.Effect],
) -> Reading:
    """Collects one regime's comparisons.

    Args:
        regime: The regime's name.
        comparisons: Comparisons by (protocol, tie rule).
        effects: Their effects, corrected as elsewhere.
    """
    protocols = list(dict.fromkeys(protocol for protocol, _ in comparisons))
    protocol_gaps = {}
    if len(protocols) > 1:
        one, other = protocols[:2]
        for rule in quiver.TIE_RULES:
            pair = comparisons[other, rule], comparisons[one, rule]
            protocol_gaps[rule] = _difference(*pair)
    first, second = quiver.TIE_RULES
    rule_gaps = {
        protocol: _difference(comparisons[protocol, second], comparisons[protocol, first])
        for protocol in protocols
    }
    return Reading(regime=regime, effects=effects, protocol_gaps=protocol_gaps, rule_gaps=rule_gaps)


def _difference(one: quiver.Comparison, other: quiver.Comparison) -> quiver.Effect:
    """Effect of `one.delta - other.delta` over the cases that both have."""
    ones, others = _by_case(one), _by_case(other)
    shared = [case for case in ones if case in others]
    delta_G = np.array([ones[case] - others[case] for case in shared])
    return quiver.estimate(delta_G, [dataset for dataset, *_ in shared])


def _by_case(comparison: quiver.Comparison) -> dict[tuple[str, object, int], float]:
    found: dict[tuple[str, object, int], float] = {}
    keys: Sequence = [
        (dataset, None if np.isnan(level) else round(float(level), 6))
        for dataset, level in zip(comparison.datasets, comparison.level_G, strict=True)
    ]
    for key, delta in zip(keys, comparison.delta_G, strict=True):
        nth = 0  # several seeds of one case, in order
        while (*key, nth) in found:
            nth += 1
        found[*key, nth] = float(delta)
    return found
