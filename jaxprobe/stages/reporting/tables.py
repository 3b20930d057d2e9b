"""Findings -> HTML tables. Every table has a caption, header scopes and a container that scrolls.

A header cell with `data-sort` becomes a sort button where JavaScript runs; cells carry the sort
value in `data-value` where their text is not it. All text is escaped here.
"""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from jaxprobe import base, quiver
from jaxprobe.stages.reporting import findings, per_dataset

MAX_FLAGGED = 100
NOTHING = '<span class="none">n/a</span>'

RULE_NAMES = {"baselines_first": "baselines first", "saes_first": "SAEs first"}
PROTOCOL_NAMES = {"paper": "Paper split", "dedup": "Dedup split"}


class Cell(NamedTuple):
    """One cell: its HTML, its sort value, its class."""

    body: str
    value: str = ""
    tone: str = ""


def text(words: object) -> Cell:
    """A cell of plain text."""
    return Cell(html.escape(str(words), quote=True))


def number(x: float, decimals: int = 3, sign: str = "", tone: str = "") -> Cell:
    """A cell of one number, right-aligned; NaN is shown as n/a and sorts last."""
    if math.isnan(x):
        return Cell(NOTHING, "", "num")
    return Cell(f"{x:{sign}.{decimals}f}", repr(float(x)), f"num {tone}".strip())


def difference(x: float, decimals: int = 3, *, told_apart: bool = True) -> Cell:
    """A signed number, coloured unless it cannot be told apart from zero."""
    if math.isnan(x) or round(x, decimals) == 0:
        return number(abs(x), decimals)
    tone = ("up" if x > 0 else "down") if told_apart else ""
    return number(x, decimals, "+", tone)


def table(
    caption: str,
    heads: Sequence[tuple[str, str]],
    rows: Iterable[Sequence[Cell]],
    *,
    groups: Sequence[tuple[str, int]] = (),
    table_id: str = "",
    tone: str = "",
    sortable: bool = False,
    foot: Sequence[Cell] = (),
) -> str:
    """A table in its own scrolling container.

    Args:
        caption: What the table shows.
        heads: Per column its name and class ("num" or "").
        rows: Cells; the first of each row is its header.
        groups: Names above the columns with the number of columns each spans.
        table_id: Id of the table.
        tone: Class of the table.
        sortable: Whether headers become sort buttons.
        foot: A last row of means.
    """
    above = ""
    if groups:
        spans = (
            f'<th scope="colgroup" colspan="{span}">{_escape(name)}</th>'
            if name
            else f'<td colspan="{span}"></td>'
            for name, span in groups
        )
        above = f"<tr>{''.join(spans)}</tr>"
    sort = " data-sort" if sortable else ""
    titles = "".join(
        f'<th scope="col"{_class(tone)}{sort}>{_escape(name)}</th>' for name, tone in heads
    )
    body = "".join(_row(cells) for cells in rows)
    end = f"<tfoot>{_row(foot)}</tfoot>" if foot else ""
    name = f' id="{table_id}"' if table_id else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_escape(caption)}">'
        f"<table{name}{_class(tone)}><caption>{_escape(caption)}</caption><thead>{above}<tr>{titles}</tr></thead>"
        f"<tbody>{body}</tbody>{end}</table></div>"
    )


def _row(cells: Sequence[Cell]) -> str:
    first, *rest = cells
    shown = [f'<th scope="row">{first.body}</th>']
    for cell in rest:
        value = f' data-value="{_escape(cell.value)}"' if cell.value else ""
        shown.append(f"<td{_class(cell.tone)}{value}>{cell.body}</td>")
    return f"<tr>{''.join(shown)}</tr>"


def _class(tone: str) -> str:
    return f' class="{tone}"' if tone else ""


def _escape(words: object) -> str:
    return html.escape(str(words), quote=True)


# --- the report's tables


def quiver_table(found: findings.Findings) -> str:
    """The quiver of arrows: every regime, protocol and tie rule, with interval and p-value."""
    heads = [("Regime", ""), ("Split", ""), ("Ties", "")]
    heads += [(name, "num") for name in ("n", "Baselines", "With SAEs", "Difference")]
    heads += [("95 % interval", "num"), ("p (Holm)", "num"), ("SAE chosen", "num")]
    heads += [("Win / tie / loss", "num")]
    rows = []
    for part in found.parts:
        for rule, comparison in part.comparisons.items():
            effect, summary = part.effects[rule], quiver.summarise(comparison)
            record = f"{summary.wins} / {summary.ties} / {summary.losses}"
            rows.append(
                [
                    *(
                        text(regime_name(part.regime)),
                        text(part.protocol),
                        text(RULE_NAMES[rule])._replace(tone="key"),
                    ),
                    number(summary.n, 0),
                    *(number(summary.base), number(summary.with_sae)),
                    _effect_cell(effect),
                    Cell(interval(effect), tone="num"),
                    number(effect.p_value),
                    *(number(summary.sae_chosen, 0), Cell(record, tone="num")),
                ]
            )
    caption = "Quiver of arrows: the baselines against the baselines plus SAE probes"
    return table(caption, heads, rows, tone="compact")


def _effect_cell(effect: quiver.Effect) -> Cell:
    return difference(effect.mean, told_apart=quiver.direction(effect) != 0)


def interval(effect: quiver.Effect) -> str:
    """`-0.006 to +0.001`, or n/a."""
    if math.isnan(effect.low):
        return NOTHING
    return f"{quiver.signed(effect.low)} to {quiver.signed(effect.high)}"


def dataset_table(regime: str, parts: Sequence[findings.Part], table_id: str) -> str:
    """Per dataset and protocol: best baseline, best SAE probe, difference, random SAE."""
    by_protocol = [{line.dataset: line for line in part.lines} for part in parts]
    several = len({line.base_method for part in parts for line in part.lines}) > 1
    heads, groups = [("Dataset", "")], [("", 1)]
    for part in parts:
        heads += [("Baseline", "num"), ("SAE probe", "num"), ("Difference", "num")]
        heads += [("Random SAE", "num")]
        groups.append((PROTOCOL_NAMES[part.protocol], 4))
    datasets = dict.fromkeys(name for lines in by_protocol for name in lines)
    rows = []
    for dataset in datasets:
        cells = [text(dataset)]
        for lines in by_protocol:
            cells += _line_cells(lines.get(dataset), several)
        rows.append(cells)
    foot = [text("Mean")]
    for part in parts:
        foot += _mean_cells(part.lines)
    caption = f"{regime_name(regime)}: test AUROC per dataset"
    return table(caption, heads, rows, groups=groups, table_id=table_id, sortable=True, foot=foot)


def _line_cells(line: per_dataset.Line | None, several_methods: bool) -> list[Cell]:
    if line is None:
        return [Cell(NOTHING, "", "num")] * 4
    baseline, sae = number(line.base), number(line.sae)
    if several_methods and line.base_method:
        baseline = _remark(baseline, line.base_method)
    if line.num_latents:
        sae = _remark(sae, f"k {line.num_latents}")
    return [baseline, sae, difference(line.sae - line.base), number(line.random_sae)]


def _remark(cell: Cell, words: str) -> Cell:
    return cell._replace(body=f"<small>{_escape(words)}</small> {cell.body}")


def _mean_cells(lines: Sequence[per_dataset.Line]) -> list[Cell]:
    both = [line for line in lines if not math.isnan(line.base + line.sae)]
    random = [line.random_sae for line in lines if not math.isnan(line.random_sae)]
    baseline, sae = _mean([line.base for line in both]), _mean([line.sae for line in both])
    return [number(baseline), number(sae), difference(sae - baseline), number(_mean(random))]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def control_table(regime: str, parts: Sequence[findings.Part]) -> str:
    """Controls of a regime; "" where none was run."""
    rows = [
        [
            text(control.label),
            text(part.protocol),
            number(control.auroc.num_datasets, 0),
            number(control.auroc.mean),
            Cell(f"{control.lowest:.3f} to {control.highest:.3f}", tone="num"),
            text("0.5" if control.chance else "below the SAE probe"),
            _effect_cell(control.sae_minus_control),
            Cell(interval(control.sae_minus_control), tone="num"),
        ]
        for part in parts
        for control in part.controls
    ]
    if not rows:
        return ""
    heads = [("Control", ""), ("Split", ""), ("Datasets", "num"), ("Mean AUROC", "num")]
    heads += [("Lowest to highest", "num"), ("Expected", ""), ("SAE probe minus control", "num")]
    return table(f"{regime_name(regime)}: controls", [*heads, ("95 % interval", "num")], rows)


def flagged_table(rows: Sequence[base.ResultRow]) -> str:
    """The first fits that did not converge."""
    heads = [("Dataset", ""), ("Regime", ""), ("Level", "num"), ("Split", ""), ("Features", "")]
    heads += [("Method", ""), ("k", "num"), ("C", "num"), ("Test AUROC", "num")]
    cells = [
        [
            *(text(row.dataset), text(regime_name(row.regime)), _short_number(row.level)),
            *(
                Cell(cell.body, tone="key")
                for cell in map(text, (row.protocol, row.features, row.method))
            ),
            *(number(row.num_latents, 0), _short_number(row.best_c), number(row.test_auroc)),
        ]
        for row in rows[:MAX_FLAGGED]
    ]
    return table("Fits that did not converge", heads, cells)


def _short_number(x: float) -> Cell:
    return Cell(NOTHING if math.isnan(x) else f"{x:.4g}", "", "num")


def leak_table(leaks: Mapping[str, object]) -> str:
    """What `run.json` says of leaks, one row per dataset, one column per measure."""
    records = {
        name: leak if isinstance(leak, Mapping) else {"leak rate": leak}
        for name, leak in leaks.items()
    }
    measures = list(dict.fromkeys(str(key) for record in records.values() for key in record))
    heads = [("Dataset", ""), *((measure.replace("_", " "), "num") for measure in measures)]
    rows = [
        [text(name), *(_measure(measure, record.get(measure)) for measure in measures)]
        for name, record in records.items()
    ]
    return table(
        "Prompts that training and test rows share",
        heads,
        rows,
        table_id="leak-table",
        sortable=True,
    )


def _measure(name: str, value: object) -> Cell:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Cell(NOTHING, "", "num") if value is None else text(value)
    if isinstance(value, float) and any(word in name for word in ("rate", "fraction")):
        return Cell(f"{100 * value:.1f} %", repr(float(value)), "num")
    return number(value, 0 if isinstance(value, int) else 3)


def key_value_table(caption: str, mapping: Mapping[str, object]) -> str:
    """A nested mapping as two columns, inner keys joined with dots."""
    rows = [[text(key), text(value)] for key, value in flatten(mapping)]
    return table(caption, [("Name", ""), ("Value", "")], rows)


def flatten(mapping: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """Leaves of a nested mapping with dotted names; lists of plain values stay on one line."""
    leaves = []
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            leaves += flatten(value, f"{name}.")
        elif isinstance(value, list | tuple):
            leaves.append((name, ", ".join(map(str, value))))
        else:
            leaves.append((name, f"{value:.4g}" if isinstance(value, float) else str(value)))
    return leaves


def regime_name(regime: str) -> str:
    """`label_noise` as `Label noise`."""
    return regime.replace("_", " ").capitalize()
