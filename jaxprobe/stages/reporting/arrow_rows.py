"""Which result row is which arrow of the quiver, and in which order arrows stand."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jaxprobe import base, checks, quiver

NUM_SHOWN_LATENTS = 2  # arrows per SAE where neither 128 nor 16 was run
# Which method's rows are the SAE arrows: the first of these that was run.
SAE_METHODS = (quiver.SAE_METHOD, "logistic_l1_saga", "logistic_l2")


class Choice(NamedTuple):
    """The arrows of a set of rows.

    Attributes:
        baselines: The quiver's baselines, first wins ties.
        extended: Other probes of activations, which stand beside.
        sae_method: Whose rows on SAE latents are arrows.
        saes: The quiver's SAE arrows, first wins ties.
        wide: The SAE arrows of every k, small k first: among equals the smaller wins.
        notes: What is unusual about them.
    """

    baselines: tuple[str, ...]
    extended: tuple[str, ...]
    sae_method: str
    saes: tuple[str, ...]
    wide: tuple[str, ...]
    notes: tuple[str, ...]


def is_control(row: base.ResultRow) -> bool:
    """Whether a row is a control, which is never an arrow of the comparison."""
    return quiver.is_control(row.features, row.method)


def choose(rows: Sequence[base.ResultRow], wanted: Sequence[str] = ()) -> Choice:
    """Says which rows are arrows.

    Args:
        rows: Of one regime and protocol.
        wanted: The quiver's baselines; the paper's five where empty.
    """
    notes: list[str] = []
    found = activation_methods(rows)
    baselines = tuple(name for name in wanted or quiver.BASELINES if name in found)
    if not baselines and found and not wanted:
        baselines = found
        notes.append(
            "None of the paper's five baselines was run; the quiver's baselines are"
            f" {', '.join(found)}."
        )
    method = _sae_method(rows)
    saes, sae_notes = _sae_arrows(rows, method)
    return Choice(
        baselines=baselines,
        extended=tuple(name for name in found if name not in baselines),
        sae_method=method,
        saes=saes,
        wide=all_arrows(rows, sae_ids(rows), method),
        notes=(*notes, *sae_notes),
    )


def check_baselines(rows: Iterable[base.ResultRow], wanted: Iterable[str]) -> None:
    """Raises ValueError for a baseline that no row has, with the ones there, nearest first."""
    known = activation_methods(rows)
    for name in wanted:
        checks.check_choice("baseline", name, known)


def activation_methods(rows: Iterable[base.ResultRow]) -> tuple[str, ...]:
    """Methods on activations, controls left out, in the order of their first row."""
    return tuple(
        dict.fromkeys(
            row.method for row in rows if row.features == base.ACTIVATIONS and not is_control(row)
        )
    )


def sae_ids(rows: Iterable[base.ResultRow]) -> tuple[str, ...]:
    """SAE ids in the order of their first row; the random control is none of them."""
    kept = (
        row.features for row in rows if row.features not in (base.ACTIVATIONS, quiver.RANDOM_SAE)
    )
    return tuple(dict.fromkeys(kept))


def arrow_name(row: base.ResultRow) -> str:
    """A baseline's method, or an SAE's id and k (and its method where that is not the usual one)."""
    if row.features == base.ACTIVATIONS:
        return row.method
    tail = "" if row.method == quiver.SAE_METHOD else f" {row.method}"
    return f"{row.features} k={row.num_latents}{tail}"


def score(row: base.ResultRow) -> quiver.Score:
    """The row as the score of its arrow."""
    arrow = arrow_name(row)
    return quiver.Score(row.dataset, row.level, row.seed, arrow, row.valid_auroc, row.test_auroc)


def all_arrows(
    rows: Iterable[base.ResultRow], features: Sequence[str], method: str
) -> tuple[str, ...]:
    """A method's arrows on these features with every k, small k first."""
    place = {name: i for i, name in enumerate(features)}
    kept = {
        (row.num_latents, place[row.features]): arrow_name(row)
        for row in rows
        if row.method == method and row.features in place
    }
    return tuple(kept[key] for key in sorted(kept))


def _sae_method(rows: Iterable[base.ResultRow]) -> str:
    found = dict.fromkeys(
        row.method for row in rows if row.features != base.ACTIVATIONS and not is_control(row)
    )
    known = [method for method in SAE_METHODS if method in found]
    return next(iter([*known, *found]), quiver.SAE_METHOD)


def _sae_arrows(rows: Sequence[base.ResultRow], method: str) -> tuple[tuple[str, ...], list[str]]:
    """Per SAE k = 128, then k = 16; else the largest k that were run."""
    run: dict[str, dict[int, str]] = {sae: {} for sae in sae_ids(rows)}
    for row in rows:
        if row.features in run and row.method == method:
            run[row.features][row.num_latents] = arrow_name(row)
    names: list[str] = []
    notes: list[str] = []
    if any(run.values()) and method != quiver.SAE_METHOD:
        notes.append(f"No {quiver.SAE_METHOD} probe was run; the SAE arrows are {method} probes.")
    for sae, by_k in run.items():
        used = [k for k in quiver.SAE_NUM_LATENTS if k in by_k]
        if by_k and len(used) < len(quiver.SAE_NUM_LATENTS):
            used = used or sorted(by_k, reverse=True)[:NUM_SHOWN_LATENTS]
            shown = ", ".join(map(str, used))
            notes.append(
                f"{sae}: of k = 128 and 16 not all were run; its quiver arrows are k = {shown}."
            )
        names += [by_k[k] for k in used]
    return tuple(names), notes
