"""Findings -> the tables of the CSV files: the quiver, and the numbers behind tables and figures."""

from collections.abc import Mapping, Sequence

from jaxprobe import quiver
from jaxprobe.base import Arrow
from jaxprobe.experiments.probing.report import per_dataset, words
from jaxprobe.experiments.probing.report.findings import Findings
from jaxprobe.rendering import Column, Table

QUIVER_COLUMNS = ("regime", "tie_rule", *quiver.Summary._fields)
SETTING_COLUMNS = ("run", "model", "site")
WHERE = ("regime", "protocol")
SPAN = ("low", "high", "num_datasets", "num_cases")
BESIDE = ("quiver.csv", "quiver_dedup.csv")
INSIDE = ("probes.csv", "datasets.csv", "levels.csv", "settings.csv")


def beside(found: Findings) -> dict[str, Table]:
    """`quiver.csv` for the first protocol, and a file of its own for the second."""
    return {
        "quiver.csv" if place == 0 else f"quiver_{protocol}.csv": _table(
            QUIVER_COLUMNS, _quiver_rows(found, protocol)
        )
        for place, protocol in enumerate(found.protocols)
    }


def inside(found: Sequence[Findings]) -> dict[str, Table]:
    """`probes.csv`, `datasets.csv`; with levels `levels.csv`, with several settings `settings.csv`.

    With several settings, the columns run, model and site come first.
    """
    several = len(found) > 1
    files = {"probes.csv": _probes(found), "datasets.csv": _datasets(found)}
    if any(part.levels for one in found for part in one.parts):
        files["levels.csv"] = _levels(found)
    if several:
        rows = [
            [protocol, *row]
            for one in found
            for protocol in one.protocols
            for row in _quiver_rows(one, protocol)
        ]
        settings = [
            one.setting
            for one in found
            for protocol in one.protocols
            for _ in _quiver_rows(one, protocol)
        ]
        columns = (*SETTING_COLUMNS, "protocol", *QUIVER_COLUMNS)
        marked = [[*setting, *row] for setting, row in zip(settings, rows, strict=True)]
        files["settings.csv"] = _table(columns, marked)
    return files


def _quiver_rows(found: Findings, protocol: str) -> list[list[object]]:
    return [
        [part.regime, rule, *quiver.summarise(comparison)]
        for part in found.parts
        if part.protocol == protocol
        for rule, comparison in part.comparisons.items()
    ]


def _probes(found: Sequence[Findings]) -> Table:
    parts = [part for one in found for part in one.parts]
    metrics = list(dict.fromkeys(name for p in parts for mean in p.means for name in mean.metrics))
    columns = (*WHERE, "kind", "features", "method", "num_latents", "test_auroc", *SPAN)
    columns += ("minus", "minus_mean", "minus_low", "minus_high")
    columns += ("joined_mean", "joined_low", "joined_high", *metrics)
    rows = []
    for one in found:
        for part in one.parts:
            for mean in part.means:
                arrow, gap, joined = mean.arrow, mean.gap, mean.joined
                name = words.arrow_name(part.reference) if part.reference else ""
                rows.append(
                    [
                        *_setting(one, found),
                        *(part.regime, part.protocol, mean.kind, arrow.features),
                        *(arrow.row_method, arrow.k, mean.auroc.mean, *_span(mean.auroc)),
                        *(name, gap.mean, gap.low, gap.high),
                        *((joined.mean, joined.low, joined.high) if joined else ("", "", "")),
                        *(mean.metrics.get(metric, "") for metric in metrics),
                    ]
                )
    return _table(_headed(columns, found), rows)


def _datasets(found: Sequence[Findings]) -> Table:
    lines = [(one, part, line) for one in found for part in one.parts for line in part.lines]
    kinds = list(dict.fromkeys(kind for *_, line in lines for kind in line.controls))
    columns = (*WHERE, "dataset", "baseline", "baseline_method", "sae_probe", "sae_arrow")
    columns += ("difference", *(per_dataset.CONTROLS[kind].replace(" ", "_") for kind in kinds))
    rows = [
        [
            *_setting(one, found),
            *(part.regime, part.protocol, line.dataset),
            *(line.baseline.auroc, _name(line.baseline.arrow)),
            *(line.probe.auroc, _name(line.probe.arrow), line.difference),
            *(line.controls.get(kind, "") for kind in kinds),
        ]
        for one, part, line in lines
    ]
    return _table(_headed(columns, found), rows)


def _levels(found: Sequence[Findings]) -> Table:
    rows = [
        [
            *_setting(one, found),
            *(part.regime, part.protocol, level.level, rule, level.base.mean),
            *(effect.mean, *_span(effect)),
        ]
        for one in found
        for part in one.parts
        for level in part.levels
        for rule, effect in level.effects.items()
    ]
    return _table(_headed((*WHERE, "level", "tie_rule", "base", "delta", *SPAN), found), rows)


def _setting(one: Findings, found: Sequence[Findings]) -> Sequence[str]:
    return one.setting if len(found) > 1 else ()


def _headed(columns: Sequence[str], found: Sequence[Findings]) -> Sequence[str]:
    return (*SETTING_COLUMNS, *columns) if len(found) > 1 else columns


def _name(arrow: Arrow | None) -> str:
    return words.arrow_name(arrow) if arrow else ""


def _span(effect: quiver.Effect) -> tuple[float, float, int, int]:
    return effect.low, effect.high, effect.num_datasets, effect.num_cases


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    return Table(caption="", columns=[Column(title=name) for name in columns], rows=rows)


def all_files(found: Sequence[Findings]) -> Mapping[str, Table]:
    """Every file by name."""
    return beside(found[0]) | inside(found)
