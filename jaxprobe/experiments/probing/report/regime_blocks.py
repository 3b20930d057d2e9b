"""One regime's section: figures and the order of its tables."""

import itertools
import math
from collections.abc import Mapping, Sequence

from jaxprobe import quiver
from jaxprobe.experiments.probing.report import effect_figures, figures, per_dataset, tables, words
from jaxprobe.experiments.probing.report.findings import Findings
from jaxprobe.experiments.probing.report.parts import Part
from jaxprobe.rendering import Block, Figure, Grid, Prose, Section

DATASET_NOTE = (
    "Baseline: the method with the best valid AUROC. SAE probe: the SAE and number of latents k with the"
    " best valid AUROC, over every k that was run; ties go to the smaller k. Means over levels."
)
PROBE_NOTE = (
    "Intervals here are not corrected for the number of probes: they say how precisely a mean is known,"
    " not which probe is best."
)


def section(
    found: Findings, regime: str, leaks: Mapping[str, float], prefix: str = "", place: str = ""
) -> Section:
    """A regime under every protocol.

    Args:
        found: The findings.
        regime: The regime's name.
        leaks: Leak rate of the paper's split by dataset, where it was measured.
        prefix: Prefix of all names in the section, so that they are unique on the page.
        place: The setting's short name among others.
    """
    parts, name = found.of_regime(regime), f"{prefix}{regime}"
    # The same figure of both protocols is shown side by side.
    drawn = itertools.zip_longest(*(_figures(part, parts, prefix) for part in parts))
    blocks: list[Block] = [
        Grid(kind="figures", blocks=[figure for row in drawn for figure in row if figure])
    ]
    if levels := tables.level_table(regime, parts):
        blocks.append(Section(name=f"{name}-by-level", title="Level by level", blocks=[levels]))
    by_dataset = tables.dataset_table(regime, parts, f"{name}-datasets", leaks)
    note = Prose(text=DATASET_NOTE, tone="small", only="page")
    title = "Dataset by dataset"
    blocks.append(Section(name=f"{name}-by-dataset", title=title, blocks=[by_dataset, note]))
    by_probe = [
        tables.probe_table_in_brief(regime, parts),
        tables.probe_table(regime, parts, f"{name}-probes"),
        Prose(text=PROBE_NOTE, tone="small", only="page"),
    ]
    blocks.append(Section(name=f"{name}-by-probe", title="Each probe by itself", blocks=by_probe))
    controls = tables.control_table(regime, parts)
    shown = controls or Prose(text="No control was run.", tone="small", only="page")
    blocks.append(Section(name=f"{name}-controls", title="Controls", blocks=[shown]))
    title = f"{place}: {words.regime_name(regime).lower()}" if place else words.regime_name(regime)
    return Section(name=name, title=title, blocks=blocks)


def _figures(part: Part, beside: Sequence[Part], prefix: str) -> list[Figure]:
    """A part's figures; the parts in `beside` share its axes."""
    name, tag = words.PROTOCOL_NAMES[part.protocol], f"{prefix}{part.regime}-{part.protocol}"
    drawn = _level_figures(part, beside, name, tag) if part.levels else []
    if part.curve is not None:
        curves = [other.curve for other in beside if other.curve is not None]
        title = f"{name}: AUROC by number of latents"
        drawn.append(curve_figure(part, f"{tag}-curve", title, curves))
    if any(not math.isnan(line.difference) for line in part.lines):
        scaled = [line for other in beside for line in other.lines]
        title = f"{name}: best SAE probe against best baseline"
        figure = figures.scatter_figure(part.lines, f"{tag}-scatter", title, scaled)
        drawn.append(Figure(drawing=figure, caption=f"{title}. One dot per dataset.", dots=True))
    return drawn


def curve_figure(part: Part, name: str, title: str, scaled: Sequence[per_dataset.Curve]) -> Figure:
    """AUROC by k, with its legend; `scaled` are all curves that share its axis."""
    curve = part.curve
    if curve is None:
        raise ValueError(f"`part` must have a curve, got none for {part.regime}")
    series = figures.curve_series(curve)
    legend = [("baseline", "best baseline"), *((f"mean {x.tone}", x.label) for x in series[::-1])]
    hidden = len(curve.auroc_GK) - figures.MAX_CURVES
    if hidden > 0:
        legend.append(("", f"{words.count(hidden, 'more SAE')} in the table of probes"))
    thin = "; thin lines: single datasets" if len(curve.auroc_GK) == 1 else ""
    return Figure(
        drawing=figures.curve_figure(curve, name, title, scaled),
        caption=f"{title}. Mean over datasets, band: 95 % interval{thin}.",
        legend=legend,
    )


def _level_figures(part: Part, beside: Sequence[Part], name: str, tag: str) -> list[Figure]:
    every = [level for other in beside for level in other.levels]
    changes = [
        effect_figures.Series(
            f"ties to {words.RULE_NAMES[rule]}", tone, [x.effects[rule] for x in part.levels]
        )
        for rule, tone in zip(quiver.TIE_RULES, ("sae sae0", "sae sae1 dashed"), strict=True)
    ]
    scaled = [effect for level in every for effect in level.effects.values()]
    title = f"{name}: change when SAE probes are added, by level"
    first = _level_figure(part, changes, f"{tag}-levels", title, scaled, signed=True)
    both = [
        effect_figures.Series("best baseline", "base", [level.base for level in part.levels]),
        effect_figures.Series(
            "with SAE probes", "sae sae0", [level.with_sae for level in part.levels]
        ),
    ]
    scaled = [effect for level in every for effect in (level.base, level.with_sae)]
    title = f"{name}: test AUROC by level"
    return [first, _level_figure(part, both, f"{tag}-auroc", title, scaled, signed=False)]


def _level_figure(
    part: Part,
    series: Sequence[effect_figures.Series],
    name: str,
    title: str,
    scaled: Sequence[quiver.Effect],
    *,
    signed: bool,
) -> Figure:
    axis = words.LEVEL_NAMES.get(part.regime, "Level")
    at = [level.level for level in part.levels]
    drawing = effect_figures.level_figure(at, series, name, title, axis, scaled, signed=signed)
    legend = [(f"mean {one.tone}", one.label) for one in series]
    return Figure(drawing=drawing, caption=f"{title}. Bands: 95 % intervals.", legend=legend)
