"""Quiver of arrows: does a set of probes get better when SAE probes are added to it?

An arrow is one way to probe: a baseline method, or an SAE with its number of latents. For each case (a
dataset, or, in a regime with levels, a dataset at a level) the arrow with the best valid AUROC is shot, that
is, chosen, and its test AUROC is the score. The baselines alone are compared with the baselines plus the SAE
arrows, case by case. Valid AUROC is often exactly 1, so the rule that breaks ties is part of the answer: both
rules are always computed.

Axes: G cases, A arrows.

References:
    Kantamneni et al., Are Sparse Autoencoders Useful? A Case Study in Sparse Probing, 2025, section 3.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxprobe import base, checks
from jaxprobe.base import RANDOM_SAE as RANDOM_SAE
from jaxprobe.base import SAE_METHOD as SAE_METHOD
from jaxprobe.base import Arrow

BASELINES = ("logistic", "pca", "knn", "xgboost", "mlp")  # the paper's order: ties go to the first
SAE_NUM_LATENTS = (128, 16)
TIE_RULES = ("baselines_first", "saes_first")


def is_control(features: str, method: str) -> bool:
    """Whether rows with these names are a control and not an arrow; for an `Arrow`, see `Arrow.control`."""
    return bool(base.control_of(features, method))


class Score(NamedTuple):
    """The score of one arrow on one case. `level` is NaN where the regime has none."""

    dataset: str
    level: float
    seed: int
    arrow: Arrow
    valid: float
    test: float
    test_set: str = "test"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrows:
    """The scores of A arrows on G cases.

    Attributes:
        arrows: A arrows; the baselines first, in the order in which ties are broken.
        is_sae_A: Which arrows are added to the baselines: SAE probes, or their replacements.
        datasets: G dataset names; one name occurs once per level, seed and test set.
        level_G: Levels, NaN where the regime has none.
        valid_GA: Valid AUROC; NaN where it or the arrow is missing.
        test_GA: Test AUROC; NaN marks a missing arrow.
    """

    arrows: tuple[Arrow, ...]
    is_sae_A: np.ndarray
    datasets: tuple[str, ...]
    level_G: np.ndarray
    valid_GA: np.ndarray
    test_GA: np.ndarray

    @property
    def names(self) -> tuple[str, ...]:
        """The arrows' names."""
        return tuple(map(str, self.arrows))

    def only(self, baselines: Sequence[Arrow], saes: Sequence[Arrow]) -> "Arrows":
        """The same scores for these arrows only, on the cases that have at least one of them."""
        column = {arrow: place for place, arrow in enumerate(self.arrows)}
        kept_A = np.array([column[arrow] for arrow in (*baselines, *saes)], int)
        kept_G = np.flatnonzero(~np.isnan(self.test_GA[:, kept_A]).all(axis=1))
        return Arrows(
            arrows=(*baselines, *saes),
            is_sae_A=np.arange(len(kept_A)) >= len(baselines),
            datasets=tuple(self.datasets[case] for case in kept_G),
            level_G=self.level_G[kept_G],
            valid_GA=self.valid_GA[np.ix_(kept_G, kept_A)],
            test_GA=self.test_GA[np.ix_(kept_G, kept_A)],
        )


def gather(
    scores: Iterable[Score], baselines: Sequence[Arrow], saes: Sequence[Arrow] = ()
) -> Arrows:
    """Arranges scores as cases by arrows.

    Args:
        scores: In any order; those of arrows not named below are left out.
        baselines: The baselines; the first wins ties.
        saes: The SAE arrows, likewise.

    Returns:
        Arrows, with cases in the order of their first score.

    Raises:
        ValueError: Two scores for one arrow on one case.
    """
    arrows = (*baselines, *saes)
    column = {arrow: place for place, arrow in enumerate(arrows)}
    case_of: dict[tuple, int] = {}
    cells: dict[tuple[int, int], tuple[float, float]] = {}
    for score in scores:
        place = column.get(score.arrow)
        if place is None:
            continue
        level = None if math.isnan(score.level) else round(score.level, 6)
        key = (score.dataset, level, score.seed, score.test_set)
        cell = (case_of.setdefault(key, len(case_of)), place)
        if cell in cells:
            raise ValueError(
                f"`scores` must hold each arrow once per case, got {str(score.arrow)!r} twice for"
                f" dataset {score.dataset!r}, level {level}, seed {score.seed}; the results of two"
                " different runs may be mixed: report them from separate work directories"
            )
        cells[cell] = (score.valid, score.test)
    both_2GA = np.full((2, len(case_of), len(arrows)), np.nan)
    for (case, arrow), pair in cells.items():
        both_2GA[:, case, arrow] = pair
    return Arrows(
        arrows=arrows,
        is_sae_A=np.arange(len(arrows)) >= len(baselines),
        datasets=tuple(dataset for dataset, *_ in case_of),
        level_G=np.array([math.nan if level is None else level for _, level, *_ in case_of]),
        valid_GA=both_2GA[0],
        test_GA=both_2GA[1],
    )


def shoot(arrows: Arrows, order_A: np.ndarray) -> np.ndarray:
    """The arrow with the best valid AUROC of each case, the first in `order_A` among equals.

    Args:
        arrows: Their scores. An arrow without valid AUROC is chosen only where it is the only one:
            published covariate-shift results have only test AUROC.
        order_A: Numbers of the arrows that may be chosen, most preferred first.

    Returns:
        int [G], the chosen arrow's column; -1 where no arrow can be chosen.
    """
    if not len(order_A):
        return np.full(len(arrows.datasets), -1)
    there_GA = ~np.isnan(arrows.test_GA[:, order_A])
    valid_GA = arrows.valid_GA[:, order_A]
    seen_GA = np.where(there_GA & ~np.isnan(valid_GA), valid_GA, -np.inf)
    only_G = there_GA.sum(axis=1) == 1
    seen_GA[only_G] = np.where(there_GA[only_G], 0.0, -np.inf)
    first_G = np.argmax(seen_GA, axis=1)  # argmax returns the first of equals
    return np.where(np.isneginf(seen_GA.max(axis=1)), -1, order_A[first_G])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two ways to choose an arrow, side by side on the G cases where both have one.

    Attributes:
        datasets: G dataset names.
        level_G: Levels, NaN where the regime has none.
        base_G: Test AUROC of the best baseline.
        with_sae_G: Test AUROC of the arrow chosen when SAE arrows take part.
        base_arrow_G: Which baseline arrow it was.
        arrow_G: Which arrow was chosen when SAE arrows take part.
        sae_chosen_G: Whether that was an SAE arrow.
        num_skipped: Cases left out because they have no baseline or no SAE arrow.
    """

    datasets: tuple[str, ...]
    level_G: np.ndarray
    base_G: np.ndarray
    with_sae_G: np.ndarray
    base_arrow_G: np.ndarray
    arrow_G: np.ndarray
    sae_chosen_G: np.ndarray
    num_skipped: int

    @property
    def delta_G(self) -> np.ndarray:
        """Paired differences of test AUROC, positive where SAE arrows help."""
        return self.with_sae_G - self.base_G


def compare(arrows: Arrows, tie_rule: str) -> Comparison:
    """Compares the baselines with the baselines plus the SAE arrows.

    Args:
        arrows: Baselines and SAE arrows, each in order of preference.
        tie_rule: `baselines_first` or `saes_first`: which group wins ties.

    Returns:
        The comparison over the cases that have a baseline and an SAE arrow.
    """
    checks.check_choice("tie rule", tie_rule, TIE_RULES)
    sae_A, baseline_A = np.flatnonzero(arrows.is_sae_A), np.flatnonzero(~arrows.is_sae_A)
    blocks = (baseline_A, sae_A) if tie_rule == "baselines_first" else (sae_A, baseline_A)
    base_arrow_G = shoot(arrows, baseline_A)
    arrow_G = shoot(arrows, np.concatenate(blocks))
    # A baseline that was chosen without valid AUROC cannot compete with SAE arrows that have one.
    known_G = ~np.isnan(arrows.valid_GA[np.arange(len(arrow_G)), base_arrow_G])
    return _pair(arrows, base_arrow_G, arrow_G, known_G & (shoot(arrows, sae_A) >= 0))


def compare_alone(arrows: Arrows) -> Comparison:
    """Compares the best baseline with the best SAE arrow, the baselines left out."""
    sae_A, baseline_A = np.flatnonzero(arrows.is_sae_A), np.flatnonzero(~arrows.is_sae_A)
    arrow_G = shoot(arrows, sae_A)
    return _pair(arrows, shoot(arrows, baseline_A), arrow_G, arrow_G >= 0)


def _pair(
    arrows: Arrows, base_arrow_G: np.ndarray, arrow_G: np.ndarray, both_G: np.ndarray
) -> Comparison:
    kept_G = np.flatnonzero(both_G & (base_arrow_G >= 0) & (arrow_G >= 0))
    base_arrow_G, arrow_G = base_arrow_G[kept_G], arrow_G[kept_G]
    return Comparison(
        datasets=tuple(arrows.datasets[case] for case in kept_G),
        level_G=arrows.level_G[kept_G],
        base_G=arrows.test_GA[kept_G, base_arrow_G],
        with_sae_G=arrows.test_GA[kept_G, arrow_G],
        base_arrow_G=base_arrow_G,
        arrow_G=arrow_G,
        sae_chosen_G=arrows.is_sae_A[arrow_G],
        num_skipped=len(arrows.datasets) - len(kept_G),
    )


class Summary(NamedTuple):
    """One line of `quiver.csv` without its regime and tie rule; means are NaN without cases."""

    n: int
    base: float
    with_sae: float
    delta: float
    se: float
    sae_chosen: int
    wins: int
    ties: int
    losses: int


def summarise(comparison: Comparison) -> Summary:
    """Means over the cases; `se` is the population standard deviation of the differences / sqrt(n)."""
    delta_G, n = comparison.delta_G, len(comparison.datasets)
    mean = (lambda x_G: float(np.mean(x_G))) if n else (lambda x_G: math.nan)
    return Summary(
        n=n,
        base=mean(comparison.base_G),
        with_sae=mean(comparison.with_sae_G),
        delta=mean(delta_G),
        se=float(np.std(delta_G) / math.sqrt(n)) if n else math.nan,
        sae_chosen=int(comparison.sae_chosen_G.sum()),
        wins=int((delta_G > 0).sum()),
        ties=int((delta_G == 0).sum()),
        losses=int((delta_G < 0).sum()),
    )
