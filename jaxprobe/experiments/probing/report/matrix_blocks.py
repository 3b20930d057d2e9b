"""Several settings at once: layers by SAEs as a heat map and a table, and their k-curves side by side."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from jaxprobe import quiver
from jaxprobe.experiments.probing.report import heat_map, regime_blocks, words
from jaxprobe.experiments.probing.report.columns import (
    SIGNED,
    effect_cells,
    effect_columns,
    stacked,
)
from jaxprobe.experiments.probing.report.findings import Findings
from jaxprobe.experiments.probing.report.parts import Part
from jaxprobe.rendering import Block, Column, Figure, Grid, Prose, Section, Table, forms


class Matrix(NamedTuple):
    """Best SAE probe minus best baseline at the same place, mean test AUROC.

    Attributes:
        places: Names of the settings, L rows.
        kinds: Names of the SAEs without the part that names their layer, columns.
        effects: Per row and column; None where that SAE was not probed there.
    """

    places: tuple[str, ...]
    kinds: tuple[str, ...]
    effects: tuple[tuple[quiver.Effect | None, ...], ...]


def section(found: Sequence[Findings]) -> Section:
    """Layers by SAEs, of the first regime and protocol of each setting."""
    parts = [one.parts[0] for one in found]
    where = f"{words.regime_name(parts[0].regime)}, {parts[0].protocol} split"
    made = _matrix(found, parts)
    title = f"{where}: best SAE probe minus best baseline at the same place"
    blocks: list[Block] = [settings_table(found)]
    if made.kinds:
        drawing = heat_map.heat_map(*made, "matrix-map", title)
        caption = (
            f"{title}. Each cell is one SAE at one place; empty where it was not probed. Differences whose"
            " interval excludes zero are bold."
        )
        blocks.append(Figure(drawing=drawing, caption=caption, dots=True))
        blocks.append(_table(made, title))
    scaled = [part.curve for part in parts if part.curve is not None]
    curves = [
        regime_blocks.curve_figure(part, f"matrix-curve-{i}", f"{place}, {where.lower()}", scaled)
        for i, (place, part) in enumerate(zip(made.places, parts, strict=True))
        if part.curve is not None
    ]
    if curves:
        by_k = [Grid(kind="figures", blocks=curves, only="page")]
        name = "AUROC by number of latents, place by place"
        blocks.append(Section(name="matrix-by-k", title=name, blocks=by_k, only="page"))
    return Section(name="matrix", title="Layers and SAEs", blocks=blocks)


def headline(found: Sequence[Findings]) -> list[Block]:
    """How many settings give which answer to each question."""
    parts = [one.parts[0] for one in found]
    said = (
        f"Compared with baselines at the same place, SAE probes alone were"
        f" {_counted([part.alone_effect for part in parts])}. Adding SAE probes to the baselines made the"
        f" result {_counted([part.joined for part in parts])}."
    )
    note = (
        "A place is a model's layer in a run. Verdicts are not corrected for the number of places."
    )
    return [Prose(text=said, tone="overall"), Prose(text=note, tone="small")]


def _counted(effects: Sequence[quiver.Effect]) -> str:
    """`worse at 3 of 16 places, better at 0 and within what chance could explain at 13`."""
    ways = [quiver.direction(effect) for effect in effects]
    return (
        f"worse at {ways.count(-1)} of {words.count(len(ways), 'place')}, better at {ways.count(1)} and"
        f" within what chance could explain at {ways.count(0)}"
    )


def settings_table(found: Sequence[Findings]) -> Table:
    """The answers to both questions, a row per setting."""
    rows = []
    for one, place in zip(found, places(found), strict=True):
        part = one.parts[0]
        joined, alone = effect_cells(part.joined), effect_cells(part.alone_effect)
        rows.append([place, part.alone_effect.num_datasets, *joined, *alone])
    columns = [
        Column(title="Place"),
        Column(title="Datasets", form=forms.COUNT),
        *effect_columns("Change", "SAE probes added"),
        *effect_columns("Change", "SAE probes alone"),
    ]
    caption = "Both questions, place by place: change of the mean test AUROC"
    return Table(caption=caption, columns=columns, rows=rows, tone="wrap")


def places(found: Sequence[Findings]) -> tuple[str, ...]:
    """Short names of the settings: the site, with model and run where there are several."""
    fields = [i for i in range(2) if len({one.setting[i] for one in found}) > 1]
    return tuple(", ".join([*(one.setting[i] for i in fields), one.site]) for one in found)


def _matrix(found: Sequence[Findings], parts: Sequence[Part]) -> Matrix:
    by_kind = [
        {_kind(sae, one.site): effect for sae, effect in part.by_sae.items()}
        for one, part in zip(found, parts, strict=True)
    ]
    kinds = tuple(dict.fromkeys(kind for row in by_kind for kind in row))
    effects = tuple(tuple(row.get(kind) for kind in kinds) for row in by_kind)
    return Matrix(places(found), kinds, effects)


def _kind(sae: str, site: str) -> str:
    """An SAE's id without the parts that only name its layer."""
    parts = [
        part for part in sae.split("/") if part != site and not re.fullmatch(r"layer_\d+", part)
    ]
    return "/".join(parts) or sae


def _table(made: Matrix, caption: str) -> Table:
    columns = [Column(title="Place"), *(Column(title=kind, form=SIGNED) for kind in made.kinds)]
    rows = [
        [place, *(stacked(effect, claim=True) for effect in effects)]
        for place, effects in zip(made.places, made.effects, strict=True)
    ]
    return Table(caption=caption, columns=columns, rows=rows, tone="wrap")
