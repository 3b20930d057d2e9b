"""The first section: the answers to both questions, the quiver, and the evidence behind them."""

from collections.abc import Sequence

from jaxprobe import quiver
from jaxprobe.experiments.probing.report import effect_figures, figures, verdict_tables, words
from jaxprobe.experiments.probing.report.columns import TONES
from jaxprobe.experiments.probing.report.findings import Findings
from jaxprobe.experiments.probing.report.parts import Part
from jaxprobe.rendering import Block, Figure, Grid, Headline, Prose


def answers(found: Findings) -> list[Block]:
    """The answers in words and numbers, what is wrong with the SAEs, notes."""
    first = found.parts[0]
    said = words.headline(first)
    if len(found.regimes) > 1:
        said = f"{words.regime_name(first.regime)} regime: {said[0].lower()}{said[1:]}"
    blocks: list[Block] = [Prose(text=said, tone="overall")]
    blocks += warnings(found)
    blocks += [Prose(text=sentence) for sentence in words.overall(found)]
    cards = [card for regime in found.regimes for card in _cards(found.of_regime(regime))]
    blocks.append(Grid(kind="cards", blocks=cards))
    blocks += [Prose(text=note, tone="note") for note in found.notes]
    return blocks


def warnings(found: Findings) -> list[Prose]:
    """Warnings about broken SAEs, for reading the verdict."""
    said = (health.warning() for health in found.health)
    return [Prose(text=warning, tone="warning") for warning in said if warning]


def evidence(found: Findings, prefix: str = "") -> list[Block]:
    """Figures and tables behind the answers; `prefix` makes the figures' names unique."""
    drawn = [_quiver_figure(part, found, prefix) for part in found.of_regime(found.regimes[0])]
    drawn += [_effect_figure(found, protocol, prefix) for protocol in found.protocols]
    return [
        Grid(kind="figures", blocks=[figure for figure in drawn if figure]),
        Prose(text=_which_k(found), tone="small", only="page"),
        verdict_tables.quiver_table(found),
        verdict_tables.quiver_in_brief(found),
        *(
            [verdict_tables.choosing_table(found)]
            if any(part.choosing for part in found.parts)
            else []
        ),
        verdict_tables.sensitivity_table(found),
    ]


# --- cards


def _cards(parts: Sequence[Part]) -> list[Headline]:
    """A card for each question that a regime answers."""
    first, *others = parts
    name = f"{words.regime_name(first.regime)}, {first.protocol} split"
    joined = _card(
        f"{name}: SAE probes added to the baselines",
        "AUROC when SAE probes are added",
        first.joined,
        quiver.verdict(first.joined),
        [
            words.tie_sentence(first),
            *(f"{words.PROTOCOL_NAMES[x.protocol]}: {quiver.verdict(x.joined)}" for x in others),
        ],
    )
    alone = _card(
        f"{name}: SAE probes alone",
        "AUROC when they replace the baseline",
        first.alone_effect,
        words.alone_verdict(first.alone_effect),
        [
            f"{words.PROTOCOL_NAMES[x.protocol]}: {words.alone_verdict(x.alone_effect)}"
            for x in others
        ],
    )
    return [alone] if first.is_alone else [joined, alone]


def _card(
    title: str, unit: str, effect: quiver.Effect, sentence: str, points: Sequence[str]
) -> Headline:
    span = words.count(effect.num_datasets, "dataset")
    around = f"95 % interval {words.interval(effect)}" if effect.num_datasets > 1 else "no interval"
    return Headline(
        title=title,
        value=quiver.signed(effect.mean),
        unit=unit,
        span=f"{around}, {span}",
        sentence=sentence,
        points=[point for point in points if point],
        tone=TONES[quiver.direction(effect)],
    )


# --- figures


def _quiver_figure(part: Part, found: Findings, prefix: str) -> Figure | None:
    if not part.shots:
        return None
    scaled = [shot for other in found.of_regime(part.regime) for shot in other.shots]
    title = f"{words.PROTOCOL_NAMES[part.protocol]}: the quiver, {words.regime_name(part.regime).lower()}"
    drawing = figures.quiver_figure(part.shots, f"{prefix}quiver-{part.protocol}", title, scaled)
    caption = (
        f"{title}. An arrow per dataset, from the best baseline's test AUROC to that of the best probe"
        " when SAE probes are added; a dot where it stays the same. Ties go to the baselines."
    )
    return Figure(drawing=drawing, caption=caption, dots=True)


def _effect_figure(found: Findings, protocol: str, prefix: str) -> Figure | None:
    """One protocol's effects, on an axis that all protocols share."""
    bars = []
    for part in found.parts:
        if part.protocol != protocol:
            continue
        labels = [(f"ties to {words.RULE_NAMES[rule]}", "sae sae0") for rule in part.effects]
        labels.append(("SAE alone", "alone"))
        for (label, tone), effect in zip(labels, _all_effects(part), strict=True):
            if effect.num_datasets:
                bars.append((f"{words.regime_name(part.regime)}, {label}", tone, effect))
    if not bars:
        return None
    title = f"{words.PROTOCOL_NAMES[protocol]}: change of the mean test AUROC"
    scaled = [effect for part in found.parts for effect in _all_effects(part)]
    drawing = effect_figures.effect_figure(bars, f"{prefix}effects-{protocol}", title, scaled)
    caption = (
        f"{title}, with 95 % intervals. Round: SAE probes are added to the baselines, both tie rules."
        " Square: the best SAE probe replaces the best baseline."
    )
    return Figure(drawing=drawing, caption=caption)


def _all_effects(part: Part) -> list[quiver.Effect]:
    return [*part.effects.values(), part.alone_effect]


def _which_k(found: Findings) -> str:
    """Which k the quiver uses, and which the tables use."""
    choice = found.parts[0].choice
    used = sorted({arrow.k for arrow in choice.saes})
    run = sorted({arrow.k for arrow in choice.wide})
    if not used:
        return "No SAE probe was run, so there is no quiver."
    return (
        f"The quiver has SAE probes of k = {' and '.join(map(str, used))} latents, as in the paper; the"
        f" best SAE probe alone and the other tables use every k that was run ({', '.join(map(str, run))})."
    )
