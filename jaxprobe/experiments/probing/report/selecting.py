"""Selects the result rows of a report, by setting; refuses unknown names and mixed runs."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from jaxprobe import base, checks
from jaxprobe.experiments.probing.report.inputs import Results

VALIDATION = "validation"  # how the paper chooses; rows chosen otherwise are left out


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """Which rows to report; an empty entry means all.

    Attributes:
        model: A model.
        site: A site.
        datasets: Names of datasets.
        regimes: Some of `base.REGIMES`.
        baselines: The quiver's baselines, of which the first wins ties; the paper's five where empty.
    """

    model: str = ""
    site: str = ""
    datasets: tuple[str, ...] = ()
    regimes: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ()


class Setting(NamedTuple):
    """One run's model at one site: a comparison of its own."""

    run: str
    model: str
    site: str

    def __str__(self) -> str:
        """`gemma-2-2b at blocks.12.resid_post`, and the run where it has a name."""
        return f"{self.model} at {self.site}" + (f" ({self.run})" if self.run else "")


class Chosen(NamedTuple):
    """The rows of a setting, their positions in the run's rows, and the run."""

    setting: Setting
    rows: list[base.ResultRow]
    places: list[int]
    results: Results


def select(runs: Sequence[Results], selection: Selection) -> tuple[list[Chosen], list[str]]:
    """The selected rows by setting, and sentences about the ones left out.

    Raises:
        ValueError: A name that no row has (the message lists the known ones, nearest first), rows of two
            different runs mixed, no rows, or two runs of the same name.
    """
    if not any(results.rows for results in runs):
        raise ValueError("`rows` must hold results, got no rows at all; run the fit stage first")
    every = [row for results in runs for row in results.rows]
    _check_known(every, selection)
    names = [results.name for results in runs]
    if len({*names}) < len(names):
        raise ValueError(f"`runs` must have distinct names, got {', '.join(map(repr, names))}")
    groups: dict[Setting, Chosen] = {}
    left_out: dict[Setting, None] = {}
    for results in runs:
        for place, row in enumerate(results.rows):
            setting = Setting(results.name, row.model, row.site)
            if not _is_wanted(row, selection):
                left_out.setdefault(setting)
                continue
            group = groups.setdefault(setting, Chosen(setting, [], [], results))
            group.rows.append(row)
            group.places.append(place)
    _check_baselines(list(groups.values()), selection.baselines)
    for group in groups.values():
        _check_one_run(group.rows)
    others = [str(setting) for setting in left_out if setting not in groups]
    notes = []
    if others:
        notes.append(
            f"The table also holds results of {', '.join(others)}; this report leaves them out."
        )
    return list(groups.values()), notes


def _is_wanted(row: base.ResultRow, selection: Selection) -> bool:
    return (
        row.selection == VALIDATION
        and selection.model in ("", row.model)
        and selection.site in ("", row.site)
        and (not selection.datasets or row.dataset in selection.datasets)
        and (not selection.regimes or row.regime in selection.regimes)
    )


def _check_known(rows: Sequence[base.ResultRow], selection: Selection) -> None:
    for field, known in (("regime", base.REGIMES), ("protocol", base.PROTOCOLS)):
        for value in dict.fromkeys(getattr(row, field) for row in rows):
            checks.check_choice(field, value, known)
    kept: Sequence[base.ResultRow] = rows
    for field, wanted in (
        ("model", (selection.model,) if selection.model else ()),
        ("site", (selection.site,) if selection.site else ()),
        ("dataset", selection.datasets),
        ("regime", selection.regimes),
    ):
        if not wanted:
            continue
        known = tuple(dict.fromkeys(getattr(row, field) for row in kept))
        for value in wanted:
            checks.check_choice(field, value, known)
        kept = [row for row in kept if getattr(row, field) in wanted]


def _check_baselines(groups: Sequence[Chosen], wanted: Sequence[str]) -> None:
    if not wanted:
        return
    arrows = {row.arrow for group in groups for row in group.rows if row.kind == "baseline"}
    known = tuple(dict.fromkeys(arrow.method for arrow in arrows))
    for name in wanted:
        checks.check_choice("baseline", name, known)


def _check_one_run(rows: Sequence[base.ResultRow]) -> None:
    """Refuses results of the same probe on the same split with different fingerprints."""
    seen: dict[tuple, str] = {}
    for row in rows:
        key = (row.features, row.method, row.pooling, row.dataset, row.regime, row.protocol)
        other = seen.setdefault(key, row.fingerprint)
        if other != row.fingerprint:
            raise ValueError(
                f"the results of {row.method} on {row.features}, dataset {row.dataset!r}, regime"
                f" {row.regime}, have two fingerprints, {other} and {row.fingerprint}: two different"
                " runs are mixed; report them from separate work directories, or delete"
                " results.parquet and run the fit stage again"
            )
