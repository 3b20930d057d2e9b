"""Which result rows a report is about; unknown names and mixed runs are refused."""

import dataclasses
from collections.abc import Sequence

from jaxprobe import base, checks
from jaxprobe.stages.reporting import arrow_rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """What to report of the rows; an empty entry means all there is.

    Attributes:
        model: A model; that of the first row where empty.
        site: A site; the first of that model where empty.
        datasets: Names of datasets.
        regimes: Some of `base.REGIMES`.
        baselines: The quiver's baselines, first wins ties; the paper's five where empty.
    """

    model: str = ""
    site: str = ""
    datasets: tuple[str, ...] = ()
    regimes: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ()


def select(
    rows: Sequence[base.ResultRow], selection: Selection
) -> tuple[list[base.ResultRow], list[str]]:
    """The selected rows, and what is said of those left out.

    Raises:
        ValueError: A name that no row has, with the known ones, nearest first; rows of two runs.
    """
    if not rows:
        raise ValueError("`rows` must hold results, got no rows at all; run the fit stage first")
    for field, known in (("regime", base.REGIMES), ("protocol", base.PROTOCOLS)):
        for value in dict.fromkeys(getattr(row, field) for row in rows):
            checks.check_choice(field, value, known)
    settings = list(dict.fromkeys((row.model, row.site) for row in rows))
    if selection.model:
        checks.check_choice("model", selection.model, dict(settings))
        settings = [setting for setting in settings if setting[0] == selection.model]
    if selection.site:
        checks.check_choice("site", selection.site, [site for _, site in settings])
    chosen = next(s for s in settings if selection.site in ("", s[1]))
    kept = [row for row in rows if (row.model, row.site) == chosen]
    for field, name in (("dataset", "datasets"), ("regime", "regimes")):
        if wanted := getattr(selection, name):
            known = list(dict.fromkeys(getattr(row, field) for row in kept))
            for value in wanted:
                checks.check_choice(field, value, known)
            kept = [row for row in kept if getattr(row, field) in wanted]
    arrow_rows.check_baselines(kept, selection.baselines)
    _check_one_run(kept)
    others = [f"{model} at {site}" for model, site in settings if (model, site) != chosen]
    notes = []
    if others:
        notes.append(
            f"The table also holds results of {', '.join(others)}; this report leaves them out."
        )
    return kept, notes


def _check_one_run(rows: Sequence[base.ResultRow]) -> None:
    """Refuses probes of one kind on one dataset that were made in two ways."""
    seen: dict[tuple, str] = {}
    for row in rows:
        key = (row.features, row.method, row.dataset, row.regime, row.protocol)
        other = seen.setdefault(key, row.fingerprint)
        if other != row.fingerprint:
            raise ValueError(
                f"the results of {row.method} on {row.features}, dataset {row.dataset!r}, regime"
                f" {row.regime}, have two fingerprints, {other} and {row.fingerprint}: two different"
                " runs are mixed; report them from separate work directories, or delete"
                " results.parquet and run the fit stage again"
            )
