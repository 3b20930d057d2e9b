"""A regime's tables: its levels, datasets, probes and controls."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from jaxprobe.experiments.probing.report import per_dataset, probe_means, words
from jaxprobe.experiments.probing.report.columns import (
    DIFFERENCE,
    SIGNED,
    SIX,
    effect_cells,
    effect_columns,
    stacked,
)
from jaxprobe.experiments.probing.report.parts import Part
from jaxprobe.rendering import Cell, Column, Table, forms

MAX_IN_TERMINAL = 20  # datasets; a longer table is only on the page
MAX_PROBES = 12  # in the terminal


def level_table(regime: str, parts: Sequence[Part]) -> Table | None:
    """Per level and protocol the quiver's means and differences; None without levels."""
    by_protocol = [{level.level: level for level in part.levels} for part in parts]
    values = sorted({value for levels in by_protocol for value in levels})
    if not values:
        return None
    columns = [Column(title=words.LEVEL_NAMES.get(regime, "Level"), form=forms.SHORT)]
    for part in parts:
        group = words.PROTOCOL_NAMES[part.protocol]
        columns.append(Column(title="n", form=forms.COUNT, group=group))
        columns.append(Column(title="Baselines", form=forms.AUROC, group=group))
        columns.append(Column(title="With SAEs", form=forms.AUROC, group=group))
        columns.append(Column(title="Difference", form=SIGNED, group=group))
        columns.append(Column(title="Ties to SAEs", form=SIGNED, group=group))
    rows = []
    for value in values:
        cells: list[object] = [value]
        for level in (levels.get(value) for levels in by_protocol):
            if level is None:
                cells += [None] * 5
                continue
            cells += [level.base.num_cases, level.base.mean, level.with_sae.mean]
            cells += [stacked(effect, claim=False) for effect in level.effects.values()]
        rows.append(cells)
    return Table(
        caption=f"{words.regime_name(regime)}: the quiver at each level, with 95 % intervals",
        columns=columns,
        rows=rows,
        tone="compact wrap",
        only="page",
    )


# --- datasets


def dataset_table(
    regime: str, parts: Sequence[Part], name: str, leaks: Mapping[str, float]
) -> Table:
    """Per dataset and protocol: best baseline, best SAE probe, difference, controls, leak rate.

    Args:
        regime: The regime's name.
        parts: One per protocol.
        name: The table's unique name.
        leaks: Leak rate of the paper's split by dataset, where it was measured.
    """
    by_protocol = [{line.dataset: line for line in part.lines} for part in parts]
    datasets = list(dict.fromkeys(dataset for lines in by_protocol for dataset in lines))
    kinds = [list(part.lines[0].controls) if part.lines else [] for part in parts]
    leaking = any(dataset in leaks for dataset in datasets)
    columns = [Column(title="Dataset")]
    if leaking:
        columns.append(Column(title="Leak rate", form=forms.PERCENT, only="page"))
    for part, mine in zip(parts, kinds, strict=True):
        columns += _line_columns(words.PROTOCOL_NAMES[part.protocol], mine)
    short = words.short_names(arrow.features for part in parts for arrow in part.choice.wide)
    several = len({line.baseline.arrow for part in parts for line in part.lines}) > 1
    rows, feet = [], [[_mean([leaks[d] for d in datasets if d in leaks])] if leaking else []]
    for dataset in datasets:
        cells: list[object] = [dataset, *([leaks.get(dataset, math.nan)] if leaking else [])]
        for lines, mine in zip(by_protocol, kinds, strict=True):
            cells += _line_cells(lines.get(dataset), mine, short, several=several)
        rows.append(cells)
    feet += [_mean_cells(part.lines, mine) for part, mine in zip(parts, kinds, strict=True)]
    return Table(
        caption=f"{words.regime_name(regime)}: test AUROC per dataset",
        columns=columns,
        rows=rows,
        name=name,
        foot=["Mean", *(value for foot in feet for value in foot)],
        search="dataset",
        sortable=True,
        tone="wrap",
        only="page" if len(datasets) > MAX_IN_TERMINAL else "",
    )


def _line_columns(group: str, kinds: Sequence[str]) -> list[Column]:
    controls = [per_dataset.CONTROLS[kind] for kind in kinds]
    return [
        Column(title="Baseline", form=forms.AUROC, group=group),
        Column(title="SAE probe", form=forms.AUROC, group=group),
        Column(title="Difference", form=DIFFERENCE, group=group),
        *(
            Column(title=name[0].upper() + name[1:], form=forms.AUROC, group=group, only="page")
            for name in controls
        ),
    ]


def _line_cells(
    line: per_dataset.Line | None, kinds: Sequence[str], short: Mapping[str, str], *, several: bool
) -> list[object]:
    if line is None:
        return [None] * (3 + len(kinds))
    baseline, probe = line.baseline.arrow, line.probe.arrow
    of = f"{short.get(probe.features, '')} k {probe.k}".strip() if probe else ""
    return [
        Cell(line.baseline.auroc, note=words.arrow_name(baseline) if several and baseline else ""),
        Cell(line.probe.auroc, note=of),
        line.difference,
        *(line.controls.get(kind, math.nan) for kind in kinds),
    ]


def _mean_cells(lines: Sequence[per_dataset.Line], kinds: Sequence[str]) -> list[float]:
    both = [line for line in lines if not math.isnan(line.difference)]
    ends = [_mean([line.baseline.auroc for line in both]), _mean([x.probe.auroc for x in both])]
    controls = [_mean([line.controls.get(kind, math.nan) for line in lines]) for kind in kinds]
    return [*ends, ends[1] - ends[0], *controls]


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


# --- probes


def probe_table(regime: str, parts: Sequence[Part], name: str) -> Table:
    """Each probe by itself: mean, difference from the reference, what it adds, further metrics."""
    references = dict.fromkeys(words.arrow_name(p.reference) for p in parts if p.reference)
    minus = f"Minus {' or '.join(references)}" if references else "Minus the reference"
    metrics = list(dict.fromkeys(m for p in parts for mean in p.means for m in mean.metrics))
    columns = [
        Column(title="Probe"),
        Column(title="Kind", form=forms.WORD, only="page"),
        Column(title="Split", form=forms.WORD, only="page"),
        Column(title="n", form=forms.COUNT, only="page"),
        Column(title="mean", form=forms.AUROC, group="Test AUROC"),
        Column(title="95 % interval", form=forms.SPAN, group="Test AUROC"),
        *effect_columns("mean", minus),
        *effect_columns("mean", "Added to the baselines"),
        *(Column(title=x.replace("_", " "), form=forms.AUROC, group="Further") for x in metrics),
    ]
    rows = [
        _probe_cells(part, mean, metrics)
        for kind in probe_means.KINDS
        for part in parts
        for mean in part.means
        if mean.kind == kind
    ]
    return Table(
        caption=f"{words.regime_name(regime)}: mean test AUROC of each probe, controls included",
        columns=columns,
        rows=rows,
        name=name,
        search="probe",
        sortable=True,
        tone="wrap",
        only="page",
    )


def _probe_cells(part: Part, mean: probe_means.ProbeMean, metrics: Sequence[str]) -> list[object]:
    is_reference = mean.arrow == part.reference
    return [
        words.arrow_name(mean.arrow),
        mean.kind,
        part.protocol,
        mean.auroc.num_cases,
        mean.auroc.mean,
        (mean.auroc.low, mean.auroc.high),
        *(["", ""] if is_reference else effect_cells(mean.gap, claim=False)),
        *(["", ""] if mean.joined is None else effect_cells(mean.joined, claim=False)),
        *(mean.metrics.get(name, math.nan) for name in metrics),
    ]


def probe_table_in_brief(regime: str, parts: Sequence[Part]) -> Table:
    """Mean test AUROC of each probe without controls, a column per protocol, for the terminal."""
    means = [{mean.arrow: mean for mean in part.means} for part in parts]
    arrows = dict.fromkeys(arrow for of in means for arrow, mean in of.items() if not arrow.control)
    columns = [Column(title="Probe")]
    for part in parts:
        columns.append(Column(title=part.protocol, form=SIX))
        columns.append(Column(title="cases", form=forms.COUNT))
    rows = []
    for arrow in arrows:
        found = [of.get(arrow) for of in means]
        pairs = [(m.auroc.mean, m.auroc.num_cases) if m else (None, None) for m in found]
        rows.append([words.arrow_name(arrow), *(value for pair in pairs for value in pair)])
    return Table(
        caption=f"{words.regime_name(regime)}: mean test AUROC of each probe by itself",
        columns=columns,
        rows=rows,
        most=MAX_PROBES,
        only="terminal",
    )


# --- controls


def control_table(regime: str, parts: Sequence[Part]) -> Table | None:
    """Each kind of control, and how far the best SAE probe is above it; None without controls."""
    rows = [
        [
            words.control_name(control.arrow),
            part.protocol,
            control.auroc.num_datasets,
            control.auroc.mean,
            control.standard_error,
            (control.lowest, control.highest),
            "0.5" if control.arrow.control == "shuffled_labels" else "below the SAE probe",
            *effect_cells(control.sae_minus_control),
        ]
        for part in parts
        for control in part.controls
    ]
    columns = [
        Column(title="Control"),
        Column(title="Split", form=forms.WORD),
        Column(title="Datasets", form=forms.COUNT),
        Column(title="Mean AUROC", form=forms.AUROC),
        Column(title="Standard error", form=forms.AUROC),
        Column(title="Lowest to highest", form=forms.SPAN),
        Column(title="Expected", only="page"),
        *effect_columns("SAE probe minus control", only="page"),
    ]
    caption = (
        f"{words.regime_name(regime)}: controls. Each is one random draw per dataset, so a mean may be"
        " off by about two standard errors"
    )
    return Table(caption=caption, columns=columns, rows=rows, tone="wrap") if rows else None
