"""A regime's tables: its levels, datasets, probes and controls."""

import math
from collections.abc import Mapping, Sequence

from jaxprobe.stages.reporting import findings, per_dataset, probe_means, words
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


def control_table(regime: str, parts: Sequence[findings.Part]) -> str:
    """Each kind of control, and how far the best SAE probe stands above it."""
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
        return '<p class="small">No control was run.</p>'
    heads = [("Control", ""), ("Split", ""), ("Datasets", "num"), ("Mean AUROC", "num")]
    heads += [("Lowest to highest", "num"), ("Expected", ""), ("SAE probe minus control", "num")]
    heads.append(("95 % interval", "num"))
    return table(f"{words.regime_name(regime)}: controls", heads, rows)
