"""One regime's section of the page: figures, levels, datasets, each probe by itself, controls."""

import itertools
import math
from collections.abc import Mapping, Sequence

from jaxprobe import quiver
from jaxprobe.stages.reporting import figures, findings, per_dataset, probe_means, words
from jaxprobe.stages.reporting.html_table import (
    NOTHING,
    Cell,
    difference,
    escape,
    number,
    table,
    text,
)
from jaxprobe.stages.reporting.verdict import effect_cells, interval_cell


def section(found: findings.Findings, regime: str, leaks: Mapping[str, float]) -> str:
    """A regime under every protocol.

    Args:
        found: The findings.
        regime: Its name.
        leaks: Leak rate of the paper's split by dataset, where it was measured.
    """
    parts = found.of_regime(regime)
    # The same figure of both protocols stands side by side.
    rows = itertools.zip_longest(*(_figures(part, parts) for part in parts), fillvalue="")
    drawn = "".join(figure for row in rows for figure in row)
    table_id = f"{regime}-datasets"
    levels = level_table(regime, parts)
    return (
        f'<div class="figures">{drawn}</div>'
        f"{f'<h3>Level by level</h3>{levels}' if levels else ''}<h3>Dataset by dataset</h3>"
        f"{search(table_id)}{dataset_table(regime, parts, table_id, leaks)}"
        '<p class="small">Baseline: the method with the best valid AUROC. SAE probe: the SAE and number'
        " of latents k with the best valid AUROC, the smaller k among equals. Means over levels.</p>"
        f"<h3>Each probe by itself</h3>{search(f'{regime}-probes', 'Find a probe', 'probes')}"
        f"{probe_table(regime, parts)}"
        '<p class="small">Intervals here are not corrected for the number of probes: they say how far a'
        " mean is known, not which probe is best.</p>"
        f"{_controls(regime, parts)}"
    )


def search(table_id: str, label: str = "Find a dataset", unit: str = "datasets") -> str:
    """A search box for a table. Hidden until the script, which makes it work, shows it."""
    return (
        f'<div class="search" hidden data-table="{table_id}" data-unit="{unit}"><label'
        f' for="{table_id}-search">{label}</label><input id="{table_id}-search" type="search"'
        ' autocomplete="off" spellcheck="false"><span role="status" aria-live="polite"></span></div>'
    )


# --- figures


def _figures(part: findings.Part, beside: Sequence[findings.Part]) -> list[str]:
    """A part's figures; the parts that stand beside it share its axes."""
    name, tag = words.PROTOCOL_NAMES[part.protocol], f"{part.regime}-{part.protocol}"
    drawn = []
    if part.levels:
        drawn += _level_figures(part, beside, name, tag)
    if part.curve is not None:
        title = f"{name}: AUROC by number of latents"
        figure = figures.curve_figure(part.curve, f"{tag}-curve", title)
        caption = f"{title}. Mean over datasets, band: 95 % interval; thin lines: single datasets."
        drawn.append(_figure(figure, caption, _curve_legend(part.curve)))
    if any(not math.isnan(line.base + line.sae) for line in part.lines):
        scaled = [line for other in beside for line in other.lines]
        title = f"{name}: best SAE probe against best baseline"
        figure = figures.scatter_figure(part.lines, f"{tag}-scatter", title, scaled)
        drawn.append(_figure(figure, f"{title}. One dot per dataset.", tone="scatter"))
    return drawn


def _level_figures(
    part: findings.Part, beside: Sequence[findings.Part], name: str, tag: str
) -> list[str]:
    axis = words.LEVEL_NAMES.get(part.regime, "Level")
    every = [level for other in beside for level in other.levels]
    title = f"{name}: change when SAE probes join, by level"
    changes = [
        figures.Series(
            f"ties: {words.RULE_NAMES[rule]}", tone, [x.effects[rule] for x in part.levels]
        )
        for rule, tone in zip(quiver.TIE_RULES, ("sae sae0", "sae sae1 dashed"), strict=True)
    ]
    scaled = [effect for level in every for effect in level.effects.values()]
    at = [level.level for level in part.levels]
    figure = figures.level_figure(at, changes, f"{tag}-levels", title, axis, scaled, signed=True)
    drawn = [_figure(figure, f"{title}. Bands: 95 % intervals.", _legend(changes))]
    title = f"{name}: test AUROC by level"
    both = [
        figures.Series("best baseline", "base", [level.base for level in part.levels]),
        figures.Series("with SAE probes", "sae sae0", [level.with_sae for level in part.levels]),
    ]
    scaled = [effect for level in every for effect in (level.base, level.with_sae)]
    figure = figures.level_figure(at, both, f"{tag}-auroc", title, axis, scaled, signed=False)
    return [*drawn, _figure(figure, f"{title}. Bands: 95 % intervals.", _legend(both))]


def _legend(series: Sequence[figures.Series]) -> str:
    return _legend_list([(f"mean {one.tone}", one.label) for one in series])


def _curve_legend(curve: per_dataset.Curve) -> str:
    trained = figures.shown_saes(curve)
    entries = [("baseline", "best baseline")]
    entries += [(f"mean sae sae{i % 4}", f"SAE {name}") for i, name in enumerate(trained)]
    if quiver.RANDOM_SAE in curve.auroc_GK:
        entries.append(("mean random", "random SAE (control)"))
    hidden = len(curve.auroc_GK) - len(trained) - (quiver.RANDOM_SAE in curve.auroc_GK)
    more = f'<li class="none">{hidden} more SAEs are in the table of probes</li>' if hidden else ""
    return _legend_list(entries, more)


def _legend_list(entries: Sequence[tuple[str, str]], more: str = "") -> str:
    items = "".join(
        f'<li><svg viewBox="0 0 30 10" aria-hidden="true"><path class="{tone}" d="M1 5H29"/></svg>'
        f"{escape(name)}</li>"
        for tone, name in entries
    )
    return f'<ul class="legend">{items}{more}</ul>'


def _figure(drawn: str, caption: str, before: str = "", tone: str = "") -> str:
    return (
        f'<figure class="{tone}">{before}{drawn}<figcaption>{escape(caption)}</figcaption></figure>'
    )


# --- tables


def level_table(regime: str, parts: Sequence[findings.Part]) -> str:
    """Per level and protocol the quiver's means and differences; "" without levels."""
    by_protocol = [{level.level: level for level in part.levels} for part in parts]
    values = sorted({value for levels in by_protocol for value in levels})
    if not values:
        return ""
    heads, groups = [(words.LEVEL_NAMES.get(regime, "Level"), "")], [("", 1)]
    for part in parts:
        heads += [("n", "num"), ("Baselines", "num"), ("With SAEs", "num")]
        heads += [("Difference", "num"), ("95 % interval", "num"), ("Ties to SAEs", "num")]
        heads += [("95 % interval", "num")]
        groups.append((words.PROTOCOL_NAMES[part.protocol], 7))
    rows = []
    for value in values:
        cells = [Cell(f"{value:g}", repr(value))]
        for levels in by_protocol:
            level = levels.get(value)
            if level is None:
                cells += [NOTHING] * 7
                continue
            cells += [number(level.base.num_cases, 0), number(level.base.mean)]
            cells.append(number(level.with_sae.mean))
            for effect in level.effects.values():
                cells += effect_cells(effect, claim=False)
        rows.append(cells)
    caption = f"{words.regime_name(regime)}: the quiver at each level"
    return table(caption, heads, rows, groups=groups, tone="compact")


def dataset_table(
    regime: str, parts: Sequence[findings.Part], table_id: str, leaks: Mapping[str, float]
) -> str:
    """Per dataset and protocol: best baseline, best SAE probe, difference, controls, leak rate."""
    by_protocol = [{line.dataset: line for line in part.lines} for part in parts]
    datasets = list(dict.fromkeys(name for lines in by_protocol for name in lines))
    several = len({line.base_method for part in parts for line in part.lines}) > 1
    leaking = any(name in leaks for name in datasets)
    heads, groups = [("Dataset", "")], [("", 1 + leaking)]
    if leaking:
        heads.append(("Leak rate", "num"))
    kinds = [
        [k for k in per_dataset.CONTROLS if any(k in line.controls for line in part.lines)]
        for part in parts
    ]
    for part, mine in zip(parts, kinds, strict=True):
        heads += [("Baseline", "num"), ("SAE probe", "num"), ("Difference", "num")]
        heads += [(kind.capitalize().replace("sae", "SAE"), "num") for kind in mine]
        groups.append((words.PROTOCOL_NAMES[part.protocol], 3 + len(mine)))
    rows, short = [], words.short_names(name for part in parts for name in part.choice.wide)
    for dataset in datasets:
        cells = [text(dataset), *([_percent(leaks.get(dataset, math.nan))] if leaking else [])]
        for lines, mine in zip(by_protocol, kinds, strict=True):
            cells += _line_cells(lines.get(dataset), several, mine, short)
        rows.append(cells)
    foot = [text("Mean")]
    if leaking:
        foot.append(_percent(_mean([leaks[name] for name in datasets if name in leaks])))
    for part, mine in zip(parts, kinds, strict=True):
        foot += _mean_cells(part.lines, mine)
    caption = f"{words.regime_name(regime)}: test AUROC per dataset"
    return table(
        caption,
        heads,
        rows,
        groups=groups,
        table_id=table_id,
        tone="wrap",
        sortable=True,
        foot=foot,
    )


def _line_cells(
    line: per_dataset.Line | None,
    several_methods: bool,
    kinds: Sequence[str],
    short: Mapping[str, str],
) -> list[Cell]:
    if line is None:
        return [NOTHING] * (3 + len(kinds))
    baseline, sae = number(line.base), number(line.sae)
    if several_methods and line.base_method:
        baseline = _remark(baseline, line.base_method)
    if line.num_latents:
        sae = _remark(sae, f"{short.get(line.sae_arrow, '')} k {line.num_latents}".strip())
    controls = [number(line.controls.get(kind, math.nan)) for kind in kinds]
    return [baseline, sae, difference(line.sae - line.base, told_apart=False), *controls]


def _remark(cell: Cell, remark: str) -> Cell:
    return cell._replace(body=f"<small>{escape(remark)}</small> {cell.body}")


def _percent(rate: float) -> Cell:
    if math.isnan(rate):
        return number(rate)
    return Cell(f"{100 * rate:.1f} %", repr(float(rate)), "num")


def _mean_cells(lines: Sequence[per_dataset.Line], kinds: Sequence[str]) -> list[Cell]:
    both = [line for line in lines if not math.isnan(line.base + line.sae)]
    baseline, sae = _mean([line.base for line in both]), _mean([line.sae for line in both])
    controls = [[line.controls.get(kind, math.nan) for line in lines] for kind in kinds]
    means = [_mean([x for x in values if not math.isnan(x)]) for values in controls]
    gap = difference(sae - baseline, told_apart=False)
    return [number(baseline), number(sae), gap, *(number(mean) for mean in means)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def probe_table(regime: str, parts: Sequence[findings.Part]) -> str:
    """Each probe by itself: mean, distance from the reference, and what it adds to the baselines."""
    heads = [("Probe", ""), ("Kind", ""), ("Split", ""), ("n", "num")]
    heads += [("mean", "num"), ("95 % interval", "num")] * 3
    references = dict.fromkeys(part.reference for part in parts if part.reference)
    minus = f"Minus {' or '.join(references)}" if references else "Minus the reference"
    groups = [("", 4), ("Test AUROC", 2), (minus, 2), ("Added to the baselines", 2)]
    nothing = [Cell("", "", "num")] * 2
    rows = [
        [
            text(mean.name),
            *(text(mean.kind)._replace(tone="key"), text(part.protocol)),
            *(number(mean.auroc.num_cases, 0), number(mean.auroc.mean)),
            interval_cell(words.span(mean.auroc), mean.auroc.low),
            *(nothing if mean.name == part.reference else effect_cells(mean.gap, claim=False)),
            *(nothing if mean.joined is None else effect_cells(mean.joined, claim=False)),
        ]
        for kind in probe_means.KINDS
        for part in parts
        for mean in part.means
        if mean.kind == kind
    ]
    caption = f"{words.regime_name(regime)}: mean test AUROC of each probe, controls among them"
    return table(caption, heads, rows, groups=groups, table_id=f"{regime}-probes", sortable=True)


def _controls(regime: str, parts: Sequence[findings.Part]) -> str:
    rows = [
        [
            text(control.label),
            text(part.protocol),
            number(control.auroc.num_datasets, 0),
            number(control.auroc.mean),
            Cell(f"{control.lowest:.3f} to {control.highest:.3f}", "", "num"),
            text("0.5" if control.chance else "below the SAE probe"),
            *effect_cells(control.sae_minus_control),
        ]
        for part in parts
        for control in part.controls
    ]
    if not rows:
        return '<h3>Controls</h3><p class="small">No control was run.</p>'
    heads = [("Control", ""), ("Split", ""), ("Datasets", "num"), ("Mean AUROC", "num")]
    heads += [("Lowest to highest", "num"), ("Expected", ""), ("SAE probe minus control", "num")]
    heads.append(("95 % interval", "num"))
    return f"<h3>Controls</h3>{table(f'{words.regime_name(regime)}: controls', heads, rows)}"
