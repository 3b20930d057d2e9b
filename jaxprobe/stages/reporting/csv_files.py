"""Findings -> CSV files: the quiver, and the numbers behind the page's tables and figures."""

import csv
import io
from collections.abc import Iterable, Sequence

from jaxprobe import outgoing, quiver
from jaxprobe.stages.reporting import findings

QUIVER_COLUMNS = ("regime", "tie_rule", *quiver.Summary._fields)
BESIDE = ("quiver.csv", "quiver_dedup.csv")
INSIDE = ("probes.csv", "datasets.csv", "levels.csv")
WHERE = ("regime", "protocol")
SPAN = ("low", "high", "num_datasets", "num_cases")


def beside(found: findings.Findings) -> dict[str, str]:
    """`quiver.csv` of the first protocol, and of the second one its own file."""
    return {
        "quiver.csv" if place == 0 else f"quiver_{protocol}.csv": _quiver(found, protocol)
        for place, protocol in enumerate(found.protocols)
    }


def inside(found: findings.Findings) -> dict[str, str]:
    """`probes.csv`, `datasets.csv` and, where a regime has levels, `levels.csv`."""
    files = {"probes.csv": _probes(found), "datasets.csv": _datasets(found)}
    if any(part.levels for part in found.parts):
        files["levels.csv"] = _levels(found)
    return files


def _quiver(found: findings.Findings, protocol: str) -> str:
    return _text(
        QUIVER_COLUMNS,
        (
            (part.regime, rule, *quiver.summarise(comparison))
            for part in found.parts
            if part.protocol == protocol
            for rule, comparison in part.comparisons.items()
        ),
    )


def _probes(found: findings.Findings) -> str:
    columns = (*WHERE, "kind", "features", "method", "num_latents", "test_auroc", *SPAN)
    gaps = ("minus", "minus_mean", "minus_low", "minus_high")
    joins = ("joined_mean", "joined_low", "joined_high")
    rows = []
    for part in found.parts:
        for mean in part.means:
            gap, joined = mean.gap, mean.joined
            rows.append(
                (
                    *(part.regime, part.protocol, mean.kind, mean.features, mean.method),
                    *(mean.num_latents, mean.auroc.mean, *_span(mean.auroc)),
                    *(part.reference, gap.mean, gap.low, gap.high),
                    *((joined.mean, joined.low, joined.high) if joined else ("", "", "")),
                )
            )
    return _text((*columns, *gaps, *joins), rows)


def _datasets(found: findings.Findings) -> str:
    kinds = list(dict.fromkeys(k for p in found.parts for line in p.lines for k in line.controls))
    columns = (*WHERE, "dataset", "baseline", "baseline_method", "sae_probe", "sae_arrow")
    rows = (
        (
            *(part.regime, part.protocol, line.dataset, line.base, line.base_method),
            *(line.sae, line.sae_arrow, line.sae - line.base),
            *(line.controls.get(kind, "") for kind in kinds),
        )
        for part in found.parts
        for line in part.lines
    )
    return _text((*columns, "difference", *(kind.replace(" ", "_") for kind in kinds)), rows)


def _levels(found: findings.Findings) -> str:
    columns = (*WHERE, "level", "tie_rule", "base", "delta", *SPAN)
    rows = (
        (
            *(part.regime, part.protocol, level.level, rule, level.base.mean),
            *(effect.mean, *_span(effect)),
        )
        for part in found.parts
        for level in part.levels
        for rule, effect in level.effects.items()
    )
    return _text(columns, rows)


def _span(effect: quiver.Effect) -> tuple[float, float, int, int]:
    return effect.low, effect.high, effect.num_datasets, effect.num_cases


def _text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(outgoing.cells(columns))
    writer.writerows(outgoing.cells(row) for row in rows)
    return text.getvalue()
