"""One regime's section of the page: figures and the order of its tables."""

import itertools
import math
from collections.abc import Mapping, Sequence

from jaxprobe import quiver
from jaxprobe.stages.reporting import figures, findings, per_dataset, regime_tables, words
from jaxprobe.stages.reporting.html_table import escape


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
    levels = regime_tables.level_table(regime, parts)
    return (
        f'<div class="figures">{drawn}</div>'
        f"{f'<h3>Level by level</h3>{levels}' if levels else ''}<h3>Dataset by dataset</h3>"
        f"{search(table_id)}{regime_tables.dataset_table(regime, parts, table_id, leaks)}"
        '<p class="small">Baseline: the method with the best valid AUROC. SAE probe: the SAE and number'
        " of latents k with the best valid AUROC, the smaller k among equals. Means over levels.</p>"
        f"<h3>Each probe by itself</h3>{search(f'{regime}-probes', 'Find a probe', 'probes')}"
        f"{regime_tables.probe_table(regime, parts)}"
        '<p class="small">Intervals here are not corrected for the number of probes: they say how far a'
        " mean is known, not which probe is best.</p>"
        f"<h3>Controls</h3>{regime_tables.control_table(regime, parts)}"
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
