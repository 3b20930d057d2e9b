"""The arrows of the quiver, and their order."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jaxprobe import base, quiver
from jaxprobe.base import Arrow

NUM_SHOWN_LATENTS = 2  # arrows per SAE where neither 128 nor 16 was run
# The method whose probes of latents are the SAE arrows: the first of these that was run.
SAE_METHODS = (quiver.SAE_METHOD, "logistic_l1_saga", "logistic_l2")


class Choice(NamedTuple):
    """The arrows of a regime and protocol.

    Attributes:
        baselines: The quiver's baselines, of which the first wins ties.
        extended: Other probes of activations, which are not in the quiver.
        sae_method: The method whose probes of SAE latents are arrows.
        saes: The quiver's SAE arrows, of which the first wins ties.
        wide: The SAE arrows of every k, small k first: the smaller wins ties.
        random: The random SAE's arrows of every k, small k first.
        notes: What is unusual about them.
    """

    baselines: tuple[Arrow, ...]
    extended: tuple[Arrow, ...]
    sae_method: str
    saes: tuple[Arrow, ...]
    wide: tuple[Arrow, ...]
    random: tuple[Arrow, ...]
    notes: tuple[str, ...]


def choose(arrows: Sequence[Arrow], wanted: Sequence[str] = ()) -> Choice:
    """Chooses the role of each arrow.

    Args:
        arrows: All arrows that were run, in the order of their first row.
        wanted: Methods of the quiver's baselines; the paper's five where empty.
    """
    notes: list[str] = []
    found = [arrow for arrow in arrows if arrow.kind == "baseline"]
    pooling = _pooling(found)
    by_method = {arrow.method: arrow for arrow in found if arrow.pooling == pooling}
    baselines = tuple(by_method[name] for name in wanted or quiver.BASELINES if name in by_method)
    if not baselines and found and not wanted:
        baselines = tuple(by_method.values())
        notes.append(
            "None of the paper's five baselines were run; the quiver's baselines are"
            f" {', '.join(by_method)}."
        )
    sae_arrows = [arrow for arrow in arrows if arrow.kind == "sae"]
    method = _sae_method(sae_arrows)
    of_method = [arrow for arrow in sae_arrows if arrow.method == method]
    saes, sae_notes = _sae_arrows(of_method, method)
    random = (a for a in arrows if a.control == base.RANDOM_SAE and a.method == method)
    return Choice(
        baselines=baselines,
        extended=tuple(arrow for arrow in found if arrow not in baselines),
        sae_method=method,
        saes=saes,
        wide=_by_k(of_method, sae_ids(arrows)),
        random=_by_k(random, (base.RANDOM_SAE,)),
        notes=(*notes, *sae_notes),
    )


def sae_ids(arrows: Iterable[Arrow]) -> tuple[str, ...]:
    """SAE ids in the order of their first arrow, without the random control."""
    return tuple(dict.fromkeys(arrow.features for arrow in arrows if arrow.kind == "sae"))


def _pooling(arrows: Sequence[Arrow]) -> str:
    """The pooling of the quiver's baselines: `last` where it was run."""
    found = [arrow.pooling for arrow in arrows]
    return base.POOLINGS[0] if base.POOLINGS[0] in found else next(iter(found), "")


def _by_k(arrows: Iterable[Arrow], features: Sequence[str]) -> tuple[Arrow, ...]:
    place = {name: i for i, name in enumerate(features)}
    return tuple(sorted(arrows, key=lambda arrow: (arrow.k, place.get(arrow.features, 0))))


def _sae_method(arrows: Iterable[Arrow]) -> str:
    found = dict.fromkeys(arrow.method for arrow in arrows)
    known = [method for method in SAE_METHODS if method in found]
    return next(iter([*known, *found]), quiver.SAE_METHOD)


def _sae_arrows(arrows: Sequence[Arrow], method: str) -> tuple[tuple[Arrow, ...], list[str]]:
    """Per SAE k = 128, then k = 16; if not both were run, the largest values of k that were."""
    kept: list[Arrow] = []
    notes: list[str] = []
    if arrows and method != quiver.SAE_METHOD:
        notes.append(f"No {quiver.SAE_METHOD} probe was run; the SAE arrows are {method} probes.")
    for sae in sae_ids(arrows):
        mine = [arrow for arrow in arrows if arrow.features == sae]
        by_k = {arrow.k: arrow for arrow in mine if arrow.pooling == _pooling(mine)}
        used = [k for k in quiver.SAE_NUM_LATENTS if k in by_k]
        if len(used) < len(quiver.SAE_NUM_LATENTS):
            used = used or sorted(by_k, reverse=True)[:NUM_SHOWN_LATENTS]
            shown = ", ".join(map(str, used))
            notes.append(
                f"{sae}: k = 128 and 16 were not both run; its quiver arrows are k = {shown}."
            )
        kept += [by_k[k] for k in used]
    return tuple(kept), notes
