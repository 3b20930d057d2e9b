"""Names and sentences that several parts of the report share."""

import collections
import math
import re
from collections.abc import Callable, Iterable, Sequence

from jaxprobe import base, quiver
from jaxprobe.base import Arrow
from jaxprobe.experiments.probing.report import per_dataset
from jaxprobe.experiments.probing.report.findings import Findings
from jaxprobe.experiments.probing.report.parts import Part

RULE_NAMES = {"baselines_first": "baselines", "saes_first": "SAEs"}
PROTOCOL_NAMES = {"paper": "Paper split", "dedup": "Dedup split"}
LEVEL_NAMES = {
    "scarcity": "Training rows",
    "imbalance": "Fraction of positives",
    "label_noise": "Fraction of flipped training labels",
}


# --- names and numbers


def regime_name(regime: str) -> str:
    """`label_noise` as `Label noise`."""
    return regime.replace("_", " ").capitalize()


def interval(effect: quiver.Effect) -> str:
    """`-0.006 to +0.001`, or `n/a`."""
    if math.isnan(effect.low):
        return "n/a"
    return f"{quiver.signed(effect.low)} to {quiver.signed(effect.high)}"


def p_value(p: float) -> str:
    """`0.041` or `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def some(names: Sequence[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def count(number: int, noun: str) -> str:
    """`1 dataset`, `8 datasets`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def arrow_name(arrow: Arrow) -> str:
    """An arrow by its name, with its pooling where that is not the usual one."""
    usual = arrow.pooling == base.POOLINGS[0]
    return str(arrow) if usual else f"{arrow} ({arrow.pooling} of tokens)"


def control_name(arrow: Arrow) -> str:
    """A description of a control, such as `shuffled labels, logistic on activations`."""
    if arrow.control == base.RANDOM_SAE:
        kind = per_dataset.CONTROLS[arrow.control]
        return kind if arrow.method == quiver.SAE_METHOD else f"{kind}, {arrow.method}"
    kind = per_dataset.CONTROLS.get(arrow.control, arrow.control)
    if arrow.control == "shuffled_labels":
        return f"{kind}, {arrow.method} on {arrow.features}"
    tail = "" if arrow.method == quiver.SAE_METHOD else f", {arrow.method}"
    return f"{kind} of {arrow.features}{tail}"


def short_names(ids: Iterable[str]) -> dict[str, str]:
    """A short name that distinguishes each SAE from the others; none for a single SAE."""
    ids = list(dict.fromkeys(ids))
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
    return {sae: shortened(name, 24) for sae, name in short.items()}


def shortened(name: str, most: int) -> str:
    """A name with its middle left out where it is too long."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most // 2) :]}"


# --- sentences


def alone_verdict(effect: quiver.Effect) -> str:
    """The verdict on the best SAE probe against the best baseline."""
    return quiver.verdict(effect, "using the best SAE probe in place of the best baseline")


def tie_sentence(part: Part) -> str:
    """How the answer changes when ties go to the SAE probes."""
    other = part.effects["saes_first"]
    if other.num_datasets == 0:
        return ""
    same = quiver.direction(other) == quiver.direction(part.joined)
    then = (
        "the verdict is the same" if same else "the verdict changes, so it depends on the tie rule"
    )
    between = f" ({interval(other)})" if other.num_datasets > 1 else ""
    return f"With ties given to the SAE probes: {quiver.signed(other.mean)}{between}; {then}."


def headline(part: Part) -> str:
    """The answers to both questions, for a reader who knows neither the project nor its terms."""
    alone, joined = part.alone_effect, part.joined
    if not alone.num_datasets:
        return quiver.verdict(alone)
    one = alone.num_datasets == 1
    where = "On this 1 dataset" if one else f"On these {alone.num_datasets} datasets"
    subject = "the SAE probe was" if one else "the SAE probes were"
    said = f"{where} {subject} {_compared(alone, 'than the baselines')}."
    if joined.num_datasets:
        said += f" Adding SAE probes to the baselines made the result {_compared(joined, '')}."
    if one:
        said += " One dataset gives no interval, so nothing follows for others."
    return said


def _compared(effect: quiver.Effect, than: str) -> str:
    """`worse than the baselines by 0.014 AUROC (95 % interval of the difference ...)`."""
    size = quiver.signed(abs(effect.mean)).removeprefix("+")
    if effect.mean == 0:
        return f"neither better nor worse {than}".rstrip()
    way = f"{'better' if effect.mean > 0 else 'worse'} {than}".rstrip()
    if effect.num_datasets < 2:
        return f"{way} by {size} AUROC"
    told = quiver.direction(effect) != 0
    end = f", p {_equals(effect.p_value)}" if told else ", which chance alone could explain"
    return f"{way} by {size} AUROC (95 % interval of the difference {interval(effect)}{end})"


def _equals(p: float) -> str:
    return p_value(p) if p < 0.001 else f"= {p_value(p)}"


def overall(found: Findings) -> list[str]:
    """A sentence per question over all regimes of the first protocol; none for a single regime."""
    parts = [found.of_regime(regime)[0] for regime in found.regimes]
    if len(parts) < 2:
        return []
    moved = [
        f"in {regime_name(reading.regime).lower()} it depends on {' and '.join(reading.rests_on())}"
        for reading in found.readings
        if reading.rests_on()
    ]
    rules = "the protocol or the tie rule" if len(found.protocols) > 1 else "the tie rule"
    rests = f"{'; '.join(moved)}." if moved else f"no regime's answer depends on {rules}."
    return [
        f"SAE probes added to the baselines: {_over_regimes(parts, lambda part: part.joined)}. This is"
        f" the {found.protocols[0]} split with ties to the baselines; {rests}",
        f"SAE probes alone: {_over_regimes(parts, lambda part: part.alone_effect)}.",
    ]


def _over_regimes(parts: Sequence[Part], effect_of: Callable[[Part], quiver.Effect]) -> str:
    """In which regimes the mean test AUROC goes up, down, or neither."""
    said: dict[int, list[str]] = collections.defaultdict(list)
    for part in parts:
        effect = effect_of(part)
        if effect.num_datasets > 1:
            said[quiver.direction(effect)].append(regime_name(part.regime).lower())
    words = {-1: "they lower the mean test AUROC", 1: "they raise the mean test AUROC"}
    words[0] = "no difference can be told apart from chance"
    found = [f"{words[way]} in {_and(said[way])}" for way in words if said[way]]
    return "; ".join(found) or "there are too few datasets for a verdict"


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def flagged_sentence(found: Findings) -> str:
    """How many fits stopped before they converged, by method."""
    if found.flagged is None:
        return "The published files do not say which fits converged."
    if not found.flagged:
        return f"All {found.num_rows:,} fits converged."
    counts = collections.Counter(f"{row.method} on {row.features}" for row in found.flagged)
    shown = ", ".join(f"{name}: {number}" for name, number in counts.most_common(4))
    more = ", ..." if len(counts) > 4 else ""
    return (
        f"{len(found.flagged):,} of {found.num_rows:,} fits did not converge and are kept, flagged"
        f" ({shown}{more})."
    )
