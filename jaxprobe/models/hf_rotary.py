"""Rotary embeddings as `config.json` writes them: two generations of fields, per kind of block."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxprobe.models import fields
from jaxprobe.models.hf_scaling import Contexts, scaled
from jaxprobe.models.rotary import Rotary

_KINDS = ("sliding_attention", "full_attention")


def rotary_of_blocks(
    kind: str,
    read: Mapping[str, Any],
    d_head: int,
    windows: Sequence[int | None],
    context: Any,
) -> tuple[Rotary, ...]:
    """The rotation of every block.

    Args:
        kind: The file's `model_type`.
        read: Its fields, defaults among them.
        d_head: Width of a head.
        windows: Per block: its window; in Gemma 3 blocks with one turn by a base of their own.
        context: `max_position_embeddings`.

    Raises:
        ValueError: A scaling that is not supported, or a field of it that is not understood.
    """
    given = fields.table("rope_parameters", read.get("rope_parameters"))
    scaling = fields.table("rope_scaling", read.get("rope_scaling"))
    if given and scaling:
        raise ValueError(
            "config.json must have `rope_parameters` or the older `rope_scaling`, got both"
        )
    contexts = Contexts(whole=context, first=read.get("original_max_position_embeddings"))
    if given and set(given) & set(_KINDS):
        unknown = sorted(set(given) - set(_KINDS))
        if unknown:
            raise ValueError(f"`rope_parameters.{unknown[0]}` of config.json is not supported")
        per_kind = {
            name: fields.table(f"rope_parameters.{name}", given[name])
            for name in _KINDS
            if name in given
        }
        _check_nested(per_kind, contexts)
    elif kind == "gemma3_text":
        if given:
            raise ValueError(
                "`rope_parameters` of a gemma3_text config.json must have an entry for each of"
                f" {', '.join(_KINDS)}"
            )
        per_kind = {
            "sliding_attention": {"rope_theta": read["rope_local_base_freq"]},
            "full_attention": {"rope_theta": read["rope_theta"], **scaling},
        }
        _check_nested(per_kind, contexts)
    else:
        per_kind = {name: dict(given or scaling) for name in _KINDS}
    base, share = _base_and_share(kind, read)
    names = ["full_attention" if window is None else "sliding_attention" for window in windows]
    made = {
        name: _rotary(kind, per_kind.get(name, {}), base, share, d_head, contexts)
        for name in sorted(set(names))
    }
    return tuple(made[name] for name in names)


def _base_and_share(kind: str, read: Mapping[str, Any]) -> tuple[float, float]:
    """The rotary base and the part of a head that turns, where no table says them."""
    if kind != "gpt_neox":
        return read.get("rope_theta", 10_000.0), read.get("partial_rotary_factor", 1.0)
    found = read.get("rotary_emb_base", 10_000.0), read.get("rotary_pct", 0.25)
    # transformers writes these two as well, and reads them nowhere.
    for name, value in zip(("rope_theta", "partial_rotary_factor"), found, strict=True):
        if read.get(name, value) != value:
            raise ValueError(
                f"`{name}` of a gpt_neox config.json must be {value}, what `rotary_emb_base` and"
                f" `rotary_pct` say, got {read[name]}; take it out"
            )
    return found


def _check_nested(per_kind: Mapping[str, Mapping[str, Any]], contexts: Contexts) -> None:
    """Raises ValueError for what transformers reads only where all blocks turn alike."""
    if contexts.first is not None:
        raise ValueError(
            "`original_max_position_embeddings` of a config.json whose blocks turn in different ways"
            " must stand among the rotary fields of each kind"
        )
    for given in per_kind.values():
        if given.get("truncate") is False:
            raise ValueError(
                "`truncate` = False is not understood where blocks turn in different ways"
            )


def _rotary(
    kind: str,
    given: Mapping[str, Any],
    base: Any,
    share: Any,
    d_head: int,
    contexts: Contexts,
) -> Rotary:
    own_base, own_share = given.get("rope_theta"), given.get("partial_rotary_factor")
    base = fields.real("rope_theta", base if own_base is None else own_base, above=1.0)
    share = fields.real("partial_rotary_factor", share if own_share is None else own_share)
    if share != 1.0 and kind != "gpt_neox":
        raise ValueError(f"`partial_rotary_factor` of a {kind} model must be 1, got {share}")
    width = int(d_head * share)
    if width % 2 or not 0 < width <= d_head:
        raise ValueError(f"the rotary share {share} of {d_head} must be an even width, got {width}")
    return scaled(given, base, width, contexts)
