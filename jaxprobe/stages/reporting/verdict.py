"""The first section of the page: the verdict per regime, the quiver's numbers, what they rest on."""

import math
from collections.abc import Sequence

from jaxprobe import quiver
from jaxprobe.stages.reporting import figures, findings, words
from jaxprobe.stages.reporting.html_table import NOTHING, Cell, escape, number, table, text

RULE_TO = {"baselines_first": "baselines", "saes_first": "SAEs"}
TONES = {1: "up", -1: "down", 0: "even"}


def section(found: findings.Findings) -> str:
    """Cards, notes, figure and tables."""
    cards = "".join(_card(found.of_regime(regime)) for regime in found.regimes)
    effects = [effect for part in found.parts for effect in _all_effects(part)]
    figure = "".join(_effect_figure(found, protocol, effects) for protocol in found.protocols)
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in found.notes)
    return (
        f'<p class="overall">{escape(words.overall(found))}</p>'
        f'<div class="cards">{cards}</div>{notes}<div class="figures">{figure}</div>'
        f"{quiver_table(found)}<h3>What the answer rests on</h3>{sensitivity_table(found)}"
    )


def _all_effects(part: findings.Part) -> list[quiver.Effect]:
    return [*part.effects.values(), part.alone_effect]


def _card(parts: Sequence[findings.Part]) -> str:
    first, *others = parts
    joined = first.effects[findings.FIRST_RULE]
    alone_only = words.alone_only(first)
    effect = first.alone_effect if alone_only else joined
    what = "in place of the baseline" if alone_only else "when SAE probes join"
    sentence = words.alone_verdict(effect) if alone_only else quiver.verdict(effect)
    around = f"95 % interval {words.interval(effect)}" if effect.num_datasets > 1 else "no interval"
    said = (
        [] if alone_only else [words.tie_sentence(first), words.alone_verdict(first.alone_effect)]
    )
    for part in others:
        other = part.effects[findings.FIRST_RULE]
        told = words.alone_verdict(part.alone_effect) if alone_only else quiver.verdict(other)
        said.append(f"{words.PROTOCOL_NAMES[part.protocol]}: {told}")
    more = "".join(f"<li>{escape(one)}</li>" for one in said if one not in ("", sentence))
    return (
        f'<article class="card {TONES[quiver.direction(effect)]}">'
        f"<h3>{escape(words.regime_name(first.regime))}, {escape(first.protocol)} split</h3>"
        f'<p class="big">{quiver.signed(effect.mean)} <span>AUROC {what}</span></p>'
        f'<p class="span">{around}, {effect.num_datasets} datasets</p>'
        f'<p class="sentence">{escape(sentence)}</p>{f"<ul>{more}</ul>" if more else ""}</article>'
    )


def _effect_figure(found: findings.Findings, protocol: str, scaled: Sequence[quiver.Effect]) -> str:
    """One protocol's effects; `scaled` are all that share the axis."""
    bars = []
    for part in found.parts:
        if part.protocol != protocol:
            continue
        labels = [(f"ties to {RULE_TO[rule]}", "sae sae0") for rule in part.effects]
        labels.append(("SAE alone", "alone"))
        for (label, tone), effect in zip(labels, _all_effects(part), strict=True):
            if effect.num_datasets:
                bars.append((f"{words.regime_name(part.regime)}, {label}", tone, effect))
    if not bars:
        return ""
    title = f"{words.PROTOCOL_NAMES[protocol]}: change of the mean test AUROC"
    drawn = figures.effect_figure(bars, f"effects-{protocol}", title, scaled)
    caption = (
        f"{title}, with 95 % intervals. Round: SAE probes join the baselines, under both tie rules."
        " Square: the best SAE probe replaces the best baseline."
    )
    return f"<figure>{drawn}<figcaption>{escape(caption)}</figcaption></figure>"


def effect_cells(effect: quiver.Effect, *, claim: bool = True) -> list[Cell]:
    """A difference and its interval; coloured only where it may be claimed."""
    tone = TONES[quiver.direction(effect)] if claim else ""
    mean = number(effect.mean)
    if not math.isnan(effect.mean):
        mean = Cell(quiver.signed(effect.mean), repr(effect.mean), f"num {tone}".strip())
    return [mean, interval_cell(words.interval(effect), effect.low)]


def interval_cell(shown: str, low: float) -> Cell:
    """An interval, sorted by its lower end."""
    return NOTHING if math.isnan(low) else Cell(escape(shown), repr(float(low)), "num")


def quiver_table(found: findings.Findings) -> str:
    """The quiver of arrows: every regime, protocol and tie rule, and what stands beside it."""
    heads = [("Regime", ""), ("Split", ""), ("Who joins", ""), ("Ties to", "")]
    heads += [(name, "num") for name in ("n", "Baselines", "Joined", "Difference")]
    heads += [("95 % interval", "num"), ("p (Holm)", "num"), ("Chosen", "num")]
    heads += [("Win / tie / loss", "num")]
    rows = []
    for part in found.parts:
        lines = [
            ("SAE probes", rule, comparison, part.effects[rule])
            for rule, comparison in part.comparisons.items()
        ]
        lines += [
            (one.label, findings.FIRST_RULE, one.comparison, one.effect) for one in part.beside
        ]
        rows += [_quiver_row(part, *line) for line in lines]
    caption = "Quiver of arrows: the baselines against the baselines plus other probes"
    return table(caption, heads, rows, tone="compact")


def _quiver_row(
    part: findings.Part,
    label: str,
    rule: str,
    comparison: quiver.Comparison,
    effect: quiver.Effect,
) -> list[Cell]:
    summary = quiver.summarise(comparison)
    record = f"{summary.wins} / {summary.ties} / {summary.losses}"
    return [
        text(words.regime_name(part.regime)),
        text(part.protocol),
        text(label)._replace(tone="key"),
        text(RULE_TO[rule]),
        number(summary.n, 0),
        number(summary.base),
        number(summary.with_sae),
        *effect_cells(effect),
        Cell(escape(words.p_value(effect.p_value)), "", "num"),
        number(summary.sae_chosen, 0),
        Cell(record, "", "num"),
    ]


def sensitivity_table(found: findings.Findings) -> str:
    """The quiver's difference under each tie rule and protocol, and how far they lie apart."""
    heads, groups = [("Regime", ""), ("Reading", "")], [("", 2)]
    for protocol in found.protocols:
        heads += [(f"ties to {RULE_TO[rule]}", "num") for rule in quiver.TIE_RULES]
        groups.append((words.PROTOCOL_NAMES[protocol], len(quiver.TIE_RULES)))
    both = len(found.protocols) > 1
    heads += [("ties to SAEs", "num")]
    heads += [("dedup split", "num")] if both else []
    groups.append(("How far it moves with", 1 + both))
    rows = []
    for reading in found.readings:
        cells = [text(words.regime_name(reading.regime))]
        cells.append(text(reading.sentence())._replace(tone="wide"))
        for protocol in found.protocols:
            for rule in quiver.TIE_RULES:
                cells.append(_stacked(reading.effects.get((protocol, rule)), claim=True))
        cells.append(_stacked(next(iter(reading.rule_gaps.values())), claim=False))
        if both:
            cells.append(_stacked(reading.protocol_gaps.get(findings.FIRST_RULE), claim=False))
        rows.append(cells)
    caption = (
        "Change of the mean test AUROC under both tie rules and both split protocols, with 95 %"
        " intervals"
    )
    return table(caption, heads, rows, groups=groups, tone="compact wrap")


def _stacked(effect: quiver.Effect | None, *, claim: bool) -> Cell:
    """A difference above its interval."""
    if effect is None:
        return NOTHING
    mean, between = effect_cells(effect, claim=claim)
    if mean == NOTHING:
        return NOTHING
    return mean._replace(body=f"{mean.body}<br><small>{between.body}</small>")
