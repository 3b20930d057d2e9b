"""Is an SAE broken? Dead latents, little variance explained, probes no better than a random SAE's."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxprobe import quiver
from jaxprobe.experiments.probing.report import inputs
from jaxprobe.experiments.probing.report.parts import Part

MOSTLY_DEAD = 0.5  # fraction of latents
LOW_VARIANCE = 0.5  # fraction explained; published SAEs explain .7 and more


class Health(NamedTuple):
    """Measurements that say whether an SAE works; NaN where unknown.

    Attributes:
        sae: Its id.
        dead: Fraction of latents that never fire on held-out tokens.
        variance_explained: Fraction of variance explained on held-out tokens.
        minus_random: AUROC of its probes minus the random SAE's, mean over k, each dataset a unit; None
            without a random SAE.
    """

    sae: str
    dead: float
    variance_explained: float
    minus_random: quiver.Effect | None

    def faults(self) -> list[str]:
        """What is wrong with the SAE, as clauses of a sentence."""
        said = []
        if self.dead > MOSTLY_DEAD:
            said.append(f"{100 * self.dead:.0f} % of its latents are dead (they never fire)")
        if self.variance_explained < LOW_VARIANCE:
            share = f"{100 * self.variance_explained:.0f} %"
            said.append(f"it explains only {share} of the activations' variance")
        gap = self.minus_random
        if gap is not None and gap.num_datasets and quiver.direction(gap) <= 0:
            between = ""
            if gap.num_datasets > 1:
                between = f", 95 % interval {quiver.signed(gap.low)} to {quiver.signed(gap.high)}"
            than = "are no better than" if gap.mean <= 0 else "score about the same as"
            said.append(
                f"its probes {than} those of a random SAE ({quiver.signed(gap.mean)} AUROC{between})"
            )
        return said

    def warning(self) -> str:
        """One sentence; empty where nothing is wrong."""
        faults = self.faults()
        if not faults:
            return ""
        return f"Read the verdict with care. SAE {self.sae}: {'; '.join(faults)}."


def examine(
    part: Part, saes: Sequence[str], records: Sequence[inputs.Record]
) -> tuple[Health, ...]:
    """The health of each SAE, with its probes' scores from one part.

    Args:
        part: The part whose probes are compared with the random SAE's.
        saes: Ids of the SAEs.
        records: Records that hold their measured quality.
    """
    found = []
    for sae in saes:
        known = inputs.quality(records, sae)
        gap = None
        if part.curve is not None and part.curve.random_GK is not None:
            gap = _gap(part.curve.auroc_GK.get(sae), part.curve.random_GK, part.curve.datasets)
        explained = known.get("variance_explained", math.nan)
        found.append(Health(sae, known.get("dead", math.nan), explained, gap))
    return tuple(found)


def _gap(
    sae_GK: np.ndarray | None, random_GK: np.ndarray, datasets: Sequence[str]
) -> quiver.Effect | None:
    """The difference of means over the k that both have: choosing a k by test scores would favour noise."""
    if sae_GK is None:
        return None
    both_GK = np.isfinite(sae_GK) & np.isfinite(random_GK)
    kept_G = np.flatnonzero(both_GK.any(axis=1)).tolist()
    delta_G = [float((sae_GK - random_GK)[case][both_GK[case]].mean()) for case in kept_G]
    return quiver.estimate(np.array(delta_G), [datasets[case] for case in kept_G])
