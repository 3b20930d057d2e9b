"""Findings -> the table that the terminal shows, at most 100 columns wide."""

import collections
import math
import textwrap
from collections.abc import Sequence

import numpy as np

from jaxprobe import quiver
from jaxprobe.stages.reporting import findings, per_dataset

WIDTH = 100
NAME_WIDTH = 30
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
        f"{found.model} at {found.site}; SAE {', '.join(found.saes) or 'none'};"
        f" solver {solver}; {found.num_rows:,} probes."
    )
    blocks = [_wrap(heading), _wrap("Test AUROC; every choice is made by valid AUROC.")]
    for regime in found.regimes:
        parts = found.of_regime(regime)
        blocks += ["", *_dataset_table(regime, parts), ""]
        for part in parts:
            blocks += _verdicts(part)
        blocks += _controls(parts)
    blocks += ["", *(_wrap(note) for note in found.notes), _wrap(flagged_sentence(found))]
    return "\n".join(blocks).rstrip() + "\n"


def flagged_sentence(found: findings.Findings) -> str:
    """How many fits stopped before they converged, by method."""
    if not found.flagged:
        return f"All {found.num_rows:,} fits converged."
    counts = collections.Counter(f"{row.method} on {row.features}" for row in found.flagged)
    shown = ", ".join(f"{name}: {count}" for name, count in counts.most_common(4))
    more = ", ..." if len(counts) > 4 else ""
    return (
        f"{len(found.flagged):,} of {found.num_rows:,} fits did not converge and are kept, flagged"
        f" ({shown}{more})."
    )


def alone_verdict(effect: quiver.Effect) -> str:
    """The verdict on the best SAE probe against the best baseline."""
    return quiver.verdict(effect, "using the best SAE probe in place of the best baseline")


def tie_sentence(part: findings.Part) -> str:
    """How the answer moves when ties go to the SAE probes."""
    other = part.effects["saes_first"]
    if other.num_datasets == 0:
        return ""
    same = quiver.direction(other) == quiver.direction(part.effects["baselines_first"])
    then = "the verdict is the same" if same else "the verdict changes, so it rests on the tie rule"
    interval = f" ({interval_text(other)})" if other.num_datasets > 1 else ""
    return f"With ties given to the SAE probes: {quiver.signed(other.mean)}{interval}; {then}."


def interval_text(effect: quiver.Effect) -> str:
    """`-0.006 to +0.001`."""
    return f"{quiver.signed(effect.low)} to {quiver.signed(effect.high)}"


def _wrap(text: str, indent: str = "") -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_on_hyphens=False)


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
        quiver.verdict(part.effects["baselines_first"]),
        tie_sentence(part),
        alone_verdict(part.alone_effect),
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
    printable = "".join(c if c.isprintable() else "?" for c in name)
    return printable if len(printable) < NAME_WIDTH else printable[: NAME_WIDTH - 3] + ".. "


def _three(x: float, sign: str = "") -> str:
    return "-" if math.isnan(x) else f"{x:{sign}.3f}"
