"""Names and sentences that several parts of the report share."""

import math
import re
from collections.abc import Iterable, Sequence

from jaxprobe import quiver
from jaxprobe.stages.reporting import findings

RULE_NAMES = {"baselines_first": "baselines first", "saes_first": "SAEs first"}
PROTOCOL_NAMES = {"paper": "Paper split", "dedup": "Dedup split"}
LEVEL_NAMES = {
    "scarcity": "Training rows",
    "imbalance": "Fraction of positives",
    "label_noise": "Fraction of flipped training labels",
}


def regime_name(regime: str) -> str:
    """`label_noise` as `Label noise`."""
    return regime.replace("_", " ").capitalize()


def interval(effect: quiver.Effect) -> str:
    """`-0.006 to +0.001`, or `n/a`."""
    if math.isnan(effect.low):
        return "n/a"
    return f"{quiver.signed(effect.low)} to {quiver.signed(effect.high)}"


def span(effect: quiver.Effect) -> str:
    """An interval of AUROCs, which have no sign: `.912 to .945`."""
    return "n/a" if math.isnan(effect.low) else f"{effect.low:.3f} to {effect.high:.3f}"


def p_value(p: float) -> str:
    """`0.041`, `< 0.001`, or `n/a`."""
    if math.isnan(p):
        return "n/a"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def some(names: Sequence[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def alone_verdict(effect: quiver.Effect) -> str:
    """The verdict on the best SAE probe against the best baseline."""
    return quiver.verdict(effect, "using the best SAE probe in place of the best baseline")


def short_names(arrows: Iterable[str]) -> dict[str, str]:
    """A word for each SAE arrow that tells its SAE from the others; none where there is one SAE."""
    sae_of = {arrow: arrow.rpartition(" k=")[0] for arrow in arrows}
    ids = list(dict.fromkeys(sae_of.values()))
    if len(ids) < 2:
        return {}
    short = dict(zip(ids, ids, strict=True))
    for separators in ("/", "[-_/]"):
        pieces = [re.split(separators, name) for name in ids]
        same_length = len({len(parts) for parts in pieces}) == 1 < len(pieces[0])
        # The first part that differs in all of them.
        columns = zip(*pieces, strict=True) if same_length else ()
        telling = next((column for column in columns if len(set(column)) == len(ids)), None)
        if telling is not None:
            short = dict(zip(ids, telling, strict=True))
            break
    return {arrow: shortened(short[sae], 24) for arrow, sae in sae_of.items()}


def shortened(name: str, most: int) -> str:
    """A name with its middle left out where it is too long."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most // 2) :]}"


def overall(found: findings.Findings) -> str:
    """One sentence over all regimes of the first protocol: which way each one's interval points."""
    said: dict[int, list[str]] = {1: [], -1: [], 0: []}
    for regime in found.regimes:
        part = found.of_regime(regime)[0]
        effect = part.alone_effect if alone_only(part) else part.effects[findings.FIRST_RULE]
        if effect.num_datasets > 1:
            said[quiver.direction(effect)].append(regime_name(regime).lower())
    parts = [
        f"{what} in {' and '.join(filter(None, [', '.join(names[:-1]), names[-1]]))}"
        for what, names in (
            ("SAE probes raise the mean test AUROC", said[1]),
            ("SAE probes lower the mean test AUROC", said[-1]),
            ("no difference can be told apart from chance", said[0]),
        )
        if names
    ]
    if not parts:
        return "There are too few datasets for a verdict."
    sentence = "; ".join(parts) + "."
    moved = [
        f"in {regime_name(reading.regime).lower()} it rests on {' and '.join(reading.rests_on())}"
        for reading in found.readings
        if reading.rests_on()
    ]
    first = found.protocols[0]
    under = f"This is the {first} split with ties to the baselines"
    rules = "either" if len(found.protocols) > 1 else "the tie rule"
    other = f"; {', '.join(moved)}." if moved else f"; no regime's answer rests on {rules}."
    return f"{sentence[0].upper()}{sentence[1:]} {under}{other}"


def alone_only(part: findings.Part) -> bool:
    """Whether there is no quiver, but baselines and SAE probes can be compared with each other."""
    joined = part.effects[findings.FIRST_RULE]
    return joined.num_datasets == 0 and part.alone_effect.num_datasets > 0


def tie_sentence(part: findings.Part) -> str:
    """How the answer moves when ties go to the SAE probes."""
    other = part.effects["saes_first"]
    if other.num_datasets == 0:
        return ""
    same = quiver.direction(other) == quiver.direction(part.effects["baselines_first"])
    then = "the verdict is the same" if same else "the verdict changes, so it rests on the tie rule"
    between = f" ({interval(other)})" if other.num_datasets > 1 else ""
    return f"With ties given to the SAE probes: {quiver.signed(other.mean)}{between}; {then}."
