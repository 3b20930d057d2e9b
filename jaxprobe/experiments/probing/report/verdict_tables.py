"""The tables behind the answers: the quiver, the cost of choosing, what the answer depends on."""

from jaxprobe import quiver
from jaxprobe.experiments.probing.report import words
from jaxprobe.experiments.probing.report.columns import (
    INTERVAL,
    P_VALUE,
    SIGNED,
    SIGNED_SIX,
    SIX,
    effect_cells,
    effect_columns,
    stacked,
)
from jaxprobe.experiments.probing.report.findings import Findings
from jaxprobe.experiments.probing.report.parts import FIRST_RULE, Part
from jaxprobe.rendering import Cell, Column, Table, forms


def quiver_table(found: Findings) -> Table:
    """The quiver of arrows: every regime, protocol and tie rule, and the comparisons next to it."""
    rows = []
    for part in found.parts:
        for rule, comparison in part.comparisons.items():
            rows.append(_quiver_row(part, "SAE probes", rule, comparison, part.effects[rule]))
        for one in part.beside:
            rows.append(_quiver_row(part, one.label, FIRST_RULE, one.comparison, one.effect))
    columns = [
        Column(title="Regime"),
        Column(title="Split", form=forms.WORD),
        Column(title="Added"),
        Column(title="Ties to", form=forms.WORD),
        Column(title="n", form=forms.COUNT),
        Column(title="Baselines", form=forms.AUROC),
        Column(title="Joined", form=forms.AUROC),
        *effect_columns("Difference"),
        Column(title="p (Holm)", form=P_VALUE),
        Column(title="Chosen", form=forms.COUNT),
        Column(title="Win / tie / loss", form=forms.WORD),
    ]
    caption = "Quiver of arrows: the baselines against the baselines plus other probes"
    return Table(caption=caption, columns=columns, rows=rows, tone="compact wrap", only="page")


def _quiver_row(
    part: Part, label: str, rule: str, comparison: quiver.Comparison, effect: quiver.Effect
) -> list[object]:
    summary = quiver.summarise(comparison)
    return [
        words.regime_name(part.regime),
        part.protocol,
        label,
        words.RULE_NAMES[rule],
        summary.n,
        summary.base,
        summary.with_sae,
        *effect_cells(effect),
        effect.p_value,
        summary.sae_chosen,
        f"{summary.wins} / {summary.ties} / {summary.losses}",
    ]


def quiver_in_brief(found: Findings) -> Table:
    """`quiver.csv` with six decimals, as needed to compare published tables."""
    rows = []
    for protocol in found.protocols:
        for part in found.parts:
            for rule, comparison in part.comparisons.items() if part.protocol == protocol else ():
                x = quiver.summarise(comparison)
                record = f"{x.wins}/{x.ties}/{x.losses}"
                names = [part.regime, protocol, words.RULE_NAMES[rule]]
                rows.append([*names, x.n, x.base, x.with_sae, x.delta, x.se, x.sae_chosen, record])
    columns = [
        Column(title="quiver"),
        Column(title="split", form=forms.WORD),
        Column(title="ties to", form=forms.WORD),
        Column(title="n", form=forms.Form(str)),
        Column(title="base", form=SIX),
        Column(title="with SAE", form=SIX),
        Column(title="delta", form=SIGNED_SIX),
        Column(title="se", form=SIX),
        Column(title="SAE", form=forms.Form(str)),
        Column(title="win/tie/loss", form=forms.WORD),
    ]
    return Table(
        caption="The quiver: the best baseline against the best of baselines and SAE probes",
        columns=columns,
        rows=rows,
        only="terminal",
    )


def choosing_table(found: Findings) -> Table:
    """The cost of choosing by validation, compared with the best single method."""
    rows = [
        [
            f"{words.regime_name(part.regime)}, {cost.block}",
            part.protocol,
            cost.chosen,
            words.arrow_name(cost.single),
            cost.single_mean,
            *effect_cells(cost.effect),
        ]
        for part in found.parts
        for cost in part.choosing
    ]
    columns = [
        Column(title="Chosen among"),
        Column(title="Split", form=forms.WORD),
        Column(title="Chosen", form=forms.AUROC),
        Column(title="Best single method"),
        Column(title="Its AUROC", form=forms.AUROC),
        Column(title="Chosen minus single", form=SIGNED),
        Column(title="95 % interval", form=INTERVAL, only="page"),
    ]
    caption = (
        "The cost of choosing by validation: the method chosen on each dataset, against the one method that"
        " is best on average over the same test sets, which is not known beforehand"
    )
    return Table(caption=caption, columns=columns, rows=rows, tone="compact wrap")


def sensitivity_table(found: Findings) -> Table:
    """The quiver's difference under each tie rule and protocol, and how far these are apart."""
    columns = [Column(title="Regime"), Column(title="Reading")]
    for protocol in found.protocols:
        group = words.PROTOCOL_NAMES[protocol]
        columns += [
            Column(title=f"ties to {words.RULE_NAMES[rule]}", form=SIGNED, group=group)
            for rule in quiver.TIE_RULES
        ]
    both, moves = len(found.protocols) > 1, "Change with"
    columns.append(Column(title="ties to SAEs", form=SIGNED, group=moves))
    columns += [Column(title="dedup split", form=SIGNED, group=moves)] if both else []
    rows = []
    for reading in found.readings:
        cells: list[Cell] = [Cell(words.regime_name(reading.regime)), Cell(reading.sentence())]
        for protocol in found.protocols:
            for rule in quiver.TIE_RULES:
                cells.append(stacked(reading.effects.get((protocol, rule)), claim=True))
        cells.append(stacked(next(iter(reading.rule_gaps.values())), claim=False))
        if both:
            cells.append(stacked(reading.protocol_gaps.get(FIRST_RULE), claim=False))
        rows.append(cells)
    caption = (
        "What the answer depends on: change of the mean test AUROC under both tie rules and both split"
        " protocols, with 95 % intervals"
    )
    return Table(caption=caption, columns=columns, rows=rows, tone="compact wrap", only="page")
