"""Findings -> the table that the terminal shows, at most 100 columns wide."""

import collections
import math
import textwrap
from collections.abc import Sequence

import numpy as np

from jaxprobe import quiver
from jaxprobe.outgoing import printable
from jaxprobe.stages.reporting import findings, per_dataset, probe_means, words

WIDTH = 100
NAME_WIDTH = 30
MAX_DATASETS = 20  # with more of them the table of datasets is on the page alone
MAX_PROBES = 12
CELLS = "{:>9}{:>8}{:>5}{:>8}"  # baseline, SAE, k, difference of one protocol
GAP = "   "


def render(found: findings.Findings, solver: str) -> str:
    """The terminal's report.

    Args:
        found: What the rows say.
        solver: How the probes were solved, for the heading.

    Returns:
        Lines of at most 100 columns: per regime the datasets, means and controls, then verdicts.
    """
    heading = (
        f"{found.model} at {found.site}; SAE {words.some(found.saes)}; solver {solver};"
        f" {found.num_rows:,} probes."
    )
    blocks = [_wrap(heading), _wrap("Test AUROC; every choice is made by valid AUROC.")]
    for regime in found.regimes:
        parts = found.of_regime(regime)
        if max(len(part.lines) for part in parts) <= MAX_DATASETS:
            blocks += ["", *_dataset_table(regime, parts)]
        blocks += ["", *_probe_table(regime, parts), ""]
        for part in parts:
            blocks += _verdicts(part)
        blocks += _controls(parts)
    blocks += ["", *_quiver_table(found), ""]
    blocks += [*(_wrap(note) for note in found.notes), _wrap(flagged_sentence(found))]
    lines = "\n".join(blocks).rstrip().split("\n")
    return "\n".join(map(printable, lines)) + "\n"


def flagged_sentence(found: findings.Findings) -> str:
    """How many fits stopped before they converged, by method."""
    if found.published:
        return "The published files do not say which fits converged."
    if not found.flagged:
        return f"All {found.num_rows:,} fits converged."
    counts = collections.Counter(f"{row.method} on {row.features}" for row in found.flagged)
    shown = ", ".join(f"{name}: {count}" for name, count in counts.most_common(4))
    more = ", ..." if len(counts) > 4 else ""
    return (
        f"{len(found.flagged):,} of {found.num_rows:,} fits did not converge and are kept, flagged"
        f" ({shown}{more})."
    )


def _wrap(text: str, indent: str = "") -> str:
    return textwrap.fill(printable(text), WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def _quiver_table(found: findings.Findings) -> list[str]:
    """`quiver.csv` with six decimals, the digits that published tables are compared in."""
    table = []
    for protocol in found.protocols:
        table.append(
            f"{f'quiver, {protocol}':<17}{'ties to':<11}{'n':>5}{'base':>10}{'with SAE':>10}"
            f"{'delta':>11}{'se':>10}{'SAE':>6}{'win/tie/loss':>17}"
        )
        for part in found.parts:
            if part.protocol != protocol:
                continue
            for rule, comparison in part.comparisons.items():
                x = quiver.summarise(comparison)
                record, delta = f"{x.wins}/{x.ties}/{x.losses}", _six(x.delta, "+")
                table.append(
                    f"{part.regime:<17}{rule.removesuffix('_first'):<11}{x.n:>5}{_six(x.base):>10}"
                    f"{_six(x.with_sae):>10}{delta:>11}{_six(x.se):>10}{x.sae_chosen:>6}{record:>17}"
                )
    return table


def _probe_table(regime: str, parts: Sequence[findings.Part]) -> list[str]:
    """Mean test AUROC of each probe by itself."""
    names = list(dict.fromkeys(mean.name for part in parts for mean in part.means))
    kept = [
        name
        for name in names
        if any(m.name == name and m.kind != probe_means.CONTROL for p in parts for m in p.means)
    ]
    heads = "".join(f"{part.protocol:>10}{'cases':>7}" for part in parts)
    table = [f"{f'{regime}, each probe by itself':<66}{heads}"]
    for name in kept[:MAX_PROBES]:
        cells = ""
        for part in parts:
            mean = next((m for m in part.means if m.name == name), None)
            cells += f"{mean.auroc.mean:>10.6f}{mean.auroc.num_cases:>7}" if mean else f"{'-':>17}"
        shown = printable(name)
        shown = shown if len(shown) < 66 else ".." + shown[-62:]
        table.append(f"{shown:<66}{cells}")
    if len(kept) > MAX_PROBES:
        table.append(f"{len(kept) - MAX_PROBES} more in report/probes.csv")
    return table


def _dataset_table(regime: str, parts: Sequence[findings.Part]) -> list[str]:
    by_protocol = [{line.dataset: line for line in part.lines} for part in parts]
    datasets = list(dict.fromkeys(name for lines in by_protocol for name in lines))
    width = len(CELLS.format(*[""] * 4))
    titles = GAP.join(f" {part.protocol} ".center(width, "-") for part in parts)
    heads = GAP.join(CELLS.format("baseline", "SAE", "k", "diff") for _ in parts)
    table = [f"{regime:<{NAME_WIDTH}}{titles}", f"{'dataset':<{NAME_WIDTH}}{heads}"]
    for dataset in datasets:
        cells = GAP.join(_cells(lines.get(dataset)) for lines in by_protocol)
        table.append(f"{_short(dataset):<{NAME_WIDTH}}{cells}")
    means = GAP.join(_mean_cells(part) for part in parts)
    return [*table, f"{'mean':<{NAME_WIDTH}}{means}"]


def _cells(line: per_dataset.Line | None) -> str:
    if line is None:
        return CELLS.format("-", "-", "-", "-")
    k = str(line.num_latents) if line.num_latents else "-"
    return CELLS.format(_three(line.base), _three(line.sae), k, _three(line.sae - line.base, "+"))


def _mean_cells(part: findings.Part) -> str:
    both = [line for line in part.lines if not math.isnan(line.base + line.sae)]
    if not both:
        return CELLS.format("-", "-", "", "-")
    base, sae = (float(np.mean([getattr(line, name) for line in both])) for name in ("base", "sae"))
    return CELLS.format(_three(base), _three(sae), "", _three(sae - base, "+"))


def _verdicts(part: findings.Part) -> list[str]:
    indent = " " * (len(part.protocol) + 2)
    sentences = [
        "" if words.alone_only(part) else quiver.verdict(part.effects["baselines_first"]),
        words.tie_sentence(part),
        words.alone_verdict(part.alone_effect),
    ]
    first, *rest = [sentence for sentence in sentences if sentence]
    return [
        _wrap(f"{part.protocol}: {first}", indent),
        *(_wrap(indent + sentence, indent) for sentence in rest),
    ]


def _controls(parts: Sequence[findings.Part]) -> list[str]:
    lines = []
    for part in parts:
        for control in part.controls:
            span = f"{_three(control.lowest)} to {_three(control.highest)}"
            want = ", wanted 0.5" if control.chance else ""
            text = f"  {part.protocol}: {control.label}"
            lines.append(_wrap(f"{text}: {_three(control.auroc.mean)} ({span}{want})", "    "))
    return ["controls, mean test AUROC (lowest to highest dataset)", *lines] if lines else []


def _short(name: str) -> str:
    shown = printable(name)
    return shown if len(shown) < NAME_WIDTH else shown[: NAME_WIDTH - 3] + ".. "


def _three(x: float, sign: str = "") -> str:
    return "-" if math.isnan(x) else f"{x:{sign}.3f}"


def _six(x: float, sign: str = "") -> str:
    return "-" if math.isnan(x) else f"{x:{sign}.6f}"
