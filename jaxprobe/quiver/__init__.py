"""Quiver of arrows: do SAE probes help when added to the baselines, and how sure is that?

`arrows` chooses and compares; `effects` gives the interval, the test and the verdict.
"""

from jaxprobe.quiver.arrows import (
    BASELINES,
    RANDOM_SAE,
    SAE_METHOD,
    SAE_NUM_LATENTS,
    TIE_RULES,
    Arrows,
    Comparison,
    Score,
    Summary,
    compare,
    compare_alone,
    gather,
    is_control,
    shoot,
    summarise,
)
from jaxprobe.quiver.effects import Effect, direction, estimate, holm, signed, verdict

__all__ = [
    "BASELINES",
    "RANDOM_SAE",
    "SAE_METHOD",
    "SAE_NUM_LATENTS",
    "TIE_RULES",
    "Arrows",
    "Comparison",
    "Effect",
    "Score",
    "Summary",
    "compare",
    "compare_alone",
    "direction",
    "estimate",
    "gather",
    "holm",
    "is_control",
    "shoot",
    "signed",
    "summarise",
    "verdict",
]
