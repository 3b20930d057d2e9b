"""Rotary embeddings as `config.json` writes them: two generations of fields, per kind of block."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxprobe.models.rotary import Rotary, linear_divisors, llama3_divisors

_KINDS = ("sliding_attention", "full_attention")
_FIELDS = {
    "default": set(),
    "linear": {"factor"},
    "llama3": {
        *("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    },
}


def rotary_of_blocks(
    kind: str,
    read: Mapping[str, Any],
    d_head: int,
    windows: Sequence[int | None],
    context: int | None,
) -> tuple[Rotary, ...]:
    """The rotation of every block.

    Args:
        kind: The file's `model_type`.
        read: Its fields, defaults among them.
        d_head: Width of a head.
        windows: Per block: its window; in Gemma 3 blocks with one turn by a base of their own.
        context: `max_position_embeddings`, which llama3 scaling falls back to.

    Raises:
        ValueError: A scaling that is not supported, or a field of it that is not understood.
    """
    given = read.get("rope_parameters")
    if given and set(given) & set(_KINDS):
        unknown = sorted(set(given) - set(_KINDS))
        if unknown:
            raise ValueError(f"`rope_parameters.{unknown[0]}` of config.json is not supported")
        per_kind = {name: dict(given[name] or {}) for name in _KINDS if name in given}
    elif kind == "gemma3_text":
        if given:
            raise ValueError(
                "`rope_parameters` of a gemma3_text config.json must have an entry for each of"
                f" {', '.join(_KINDS)}"
            )
        scaling = dict(read.get("rope_scaling") or {})
        per_kind = {
            "sliding_attention": {"rope_theta": read["rope_local_base_freq"]},
            "full_attention": {"rope_theta": read["rope_theta"], **scaling},
        }
    else:
        per_kind = {name: dict(given or read.get("rope_scaling") or {}) for name in _KINDS}
    default_base = read.get("rope_theta", read.get("rotary_emb_base", 10_000.0))
    share = read.get(
        "rotary_pct", read.get("partial_rotary_factor", 0.25 if kind == "gpt_neox" else 1.0)
    )
    names = ["full_attention" if window is None else "sliding_attention" for window in windows]
    made = {
        name: _rotary(
            kind, per_kind.get(name, {}), float(default_base), float(share), d_head, context
        )
        for name in sorted(set(names))
    }
    return tuple(made[name] for name in names)


def _rotary(
    kind: str,
    fields: Mapping[str, Any],
    base: float,
    share: float,
    d_head: int,
    context: int | None,
) -> Rotary:
    scaling = fields.get("rope_type", fields.get("type", "default")) or "default"
    if scaling not in _FIELDS:
        raise ValueError(
            f"the rotary scaling `rope_type` = {scaling!r} of config.json is not supported; supported"
            f" are {', '.join(_FIELDS)}"
        )
    known = {"rope_type", "type", "rope_theta", "partial_rotary_factor", *_FIELDS[scaling]}
    unknown = sorted(name for name in set(fields) - known if fields[name] is not None)
    if unknown:
        raise ValueError(
            f"`{unknown[0]}` = {fields[unknown[0]]!r} among the rotary fields of config.json is not"
            f" understood for rope_type {scaling!r}"
        )
    base = float(fields.get("rope_theta") or base)
    share = float(fields.get("partial_rotary_factor") or share)
    if share != 1.0 and kind != "gpt_neox":
        raise ValueError(f"`partial_rotary_factor` of a {kind} model must be 1, got {share}")
    width = int(d_head * share)
    if width % 2 or not 0 < width <= d_head:
        raise ValueError(f"the rotary share {share} of {d_head} must be an even width, got {width}")
    return Rotary(base=base, width=width, divisors=_divisors(scaling, fields, width, base, context))


def _divisors(
    scaling: str, fields: Mapping[str, Any], width: int, base: float, context: int | None
) -> tuple[float, ...] | None:
    if scaling == "default":
        return None
    fields = {"original_max_position_embeddings": context, **fields}
    absent = sorted(name for name in _FIELDS[scaling] if fields.get(name) is None)
    if absent:
        raise ValueError(f"rope_type {scaling!r} of config.json needs `{absent[0]}`")
    if scaling == "linear":
        return linear_divisors(width, float(fields["factor"]))
    return llama3_divisors(
        width,
        base,
        factor=float(fields["factor"]),
        low=float(fields["low_freq_factor"]),
        high=float(fields["high_freq_factor"]),
        context=int(fields["original_max_position_embeddings"]),
    )
