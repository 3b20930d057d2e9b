"""Which result row is which arrow of the quiver, and in which order arrows stand."""

from collections.abc import Iterable, Sequence

from jaxprobe import base, quiver

NUM_SHOWN_LATENTS = 2  # arrows per SAE where neither 128 nor 16 was run


def saes(rows: Iterable[base.ResultRow]) -> tuple[str, ...]:
    """SAE ids in the order of their first row."""
    kept = (
        row.features for row in rows if row.features not in (base.ACTIVATIONS, quiver.RANDOM_SAE)
    )
    return tuple(dict.fromkeys(kept))


def baselines(rows: Iterable[base.ResultRow]) -> tuple[str, ...]:
    """Baseline methods: the paper's in its order, then others in the order of their first row."""
    found = dict.fromkeys(
        row.method
        for row in rows
        if row.features == base.ACTIVATIONS and not quiver.is_control(row.features, row.method)
    )
    known = [method for method in quiver.BASELINES if method in found]
    return (*known, *(method for method in found if method not in known))


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


def all_arrows(rows: Iterable[base.ResultRow], features: Sequence[str]) -> tuple[str, ...]:
    """L1 arrows of these features with every k, small k first: among equals the smaller wins."""
    place = {name: i for i, name in enumerate(features)}
    kept = [row for row in rows if row.method == quiver.SAE_METHOD and row.features in place]
    kept.sort(key=lambda row: (row.num_latents, place[row.features]))
    return tuple(dict.fromkeys(arrow_name(row) for row in kept))


def sae_arrows(rows: Sequence[base.ResultRow]) -> tuple[tuple[str, ...], list[str]]:
    """The quiver's SAE arrows: per SAE k = 128, then k = 16; else the largest k that were run."""
    names, notes = [], []
    for sae in saes(rows):
        run = {
            row.num_latents
            for row in rows
            if row.features == sae and row.method == quiver.SAE_METHOD
        }
        used = [k for k in quiver.SAE_NUM_LATENTS if k in run]
        if len(used) < len(quiver.SAE_NUM_LATENTS):
            used = used or sorted(run, reverse=True)[:NUM_SHOWN_LATENTS]
            shown = ", ".join(map(str, used)) or "none"
            notes.append(
                f"{sae}: of k = 128 and 16 not all were run; its quiver arrows are k = {shown}."
            )
        names += [f"{sae} k={k}" for k in used]
    return tuple(names), notes
