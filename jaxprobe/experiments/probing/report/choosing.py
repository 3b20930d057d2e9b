"""The cost of choosing by validation: the method chosen on each dataset against the best single one."""

from typing import NamedTuple

import numpy as np

from jaxprobe import quiver
from jaxprobe.base import Arrow


class Choosing(NamedTuple):
    """A group of arrows, chosen by valid AUROC case by case, against its best single arrow.

    Attributes:
        block: `baselines` or `SAE probes`.
        chosen: Mean test AUROC of the chosen arrows.
        single: The arrow with the best mean test AUROC, which is not known beforehand.
        single_mean: That mean, over the same cases.
        effect: Chosen minus single.
    """

    block: str
    chosen: float
    single: Arrow
    single_mean: float
    effect: quiver.Effect


def costs(arrows: quiver.Arrows) -> tuple[Choosing, ...]:
    """The costs for baselines and for SAE arrows; none for a single arrow, as there is no choice."""
    blocks = (("baselines", ~arrows.is_sae_A), ("SAE probes", arrows.is_sae_A))
    found = (_cost(arrows, np.flatnonzero(of_A), name) for name, of_A in blocks)
    return tuple(cost for cost in found if cost is not None)


def _cost(arrows: quiver.Arrows, column_A: np.ndarray, block: str) -> Choosing | None:
    if len(column_A) < 2:
        return None
    chosen_G = quiver.shoot(arrows, column_A)
    case_G = np.flatnonzero(chosen_G >= 0)
    test_GA = arrows.test_GA[np.ix_(case_G, column_A)]
    whole_A = np.flatnonzero(~np.isnan(test_GA).any(axis=0))
    if not len(case_G) or not len(whole_A):
        return None
    best = whole_A[np.argmax(test_GA[:, whole_A].mean(axis=0))]
    got_G = arrows.test_GA[case_G, chosen_G[case_G]]
    datasets = [arrows.datasets[case] for case in case_G]
    return Choosing(
        block=block,
        chosen=float(got_G.mean()),
        single=arrows.arrows[column_A[best]],
        single_mean=float(test_GA[:, best].mean()),
        effect=quiver.estimate(got_G - test_GA[:, best], datasets),
    )
