"""How activations are made: everything that changes their numbers, and whether a store matches."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax

from jaxprobe import tokens
from jaxprobe.extraction.settings import Extract
from jaxprobe.place import Place
from jaxprobe.sites import Site
from jaxprobe.store import ActivationStore


class Identity(Protocol):
    """What identifies a model's numbers, without its weights."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def dtype(self) -> str: ...  # noqa: D102
    @property
    def d_model(self) -> int: ...  # noqa: D102
    @property
    def widths(self) -> Mapping[str, int]: ...  # noqa: D102
    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    def stored(self, site: Site) -> Site: ...  # noqa: D102


class ExtractModel(Identity, Protocol):
    """What extraction needs of a model; `models.Model` has it."""

    @property
    def tokenizer(self) -> Any: ...  # noqa: D102


def fingerprint(settings: Extract, bos: str, model: ExtractModel) -> dict[str, Any]:
    """Everything that changes the numbers; the sites and poolings are the arrays' names.

    Args:
        settings: How prompts become activations.
        bos: Whether prompts begin with BOS, as in a config.
        model: The model.
    """
    by_files, tokenizer = model.tokenizer.bos_id, model.tokenizer.fingerprint
    opening = _opening(tokens.opening_id(model.tokenizer, bos), by_files)
    return _fingerprint(settings, model) | opening | {"tokenizer": tokenizer}


def open_made_so(settings: Extract, bos: str, identity: Identity, place: Place) -> ActivationStore:
    """The store of a place, if it was made with these settings.

    Raises:
        StoreError: It was made with other settings; names the ones that differ.
    """
    have = ActivationStore.open(place).fingerprint
    # The tokenizer is in the file whose hash is compared; building it would take seconds.
    inside = _wanted_opening(have, bos) | {"tokenizer": have.get("tokenizer")}
    return ActivationStore.open(place, _fingerprint(settings, identity) | inside)


def _fingerprint(settings: Extract, model: Identity) -> dict[str, Any]:
    return {
        "model": model.name,
        "weights": model.fingerprint,
        "dtype": model.dtype,
        "d_model": model.d_model,
        "widths": dict(model.widths),  # of streams that are not d_model wide
        "max_length": settings.max_length,
        "truncation": "left, BOS kept",
        "last": "last real token",
        "tokens": "every real token but the first",
        "token_dtype": settings.token_dtype,
        # A compiled shape decides the order of its sums, and so the last bits.
        "buckets": sorted(settings.buckets),
        "batch_tokens": settings.batch_tokens,
        "device": jax.default_backend(),
    } | ({} if settings.mesh == (1, 1) else {"mesh": list(settings.mesh)})


def _opening(bos: int | str | None, by_files: int | None) -> dict[str, Any]:
    """The id that opens prompts, and the id by the files' own rule where that differs."""
    return {"bos": bos} | ({} if bos == by_files else {"bos_by_files": by_files})


def _wanted_opening(have: Mapping[str, Any], bos: str) -> dict[str, Any]:
    """`_opening` of a setting, as far as it can be derived from a store's own fingerprint."""
    by_files = have.get("bos_by_files", have.get("bos"))
    if bos == "auto":
        return _opening(by_files, by_files)
    if bos == "off":
        return _opening(None, by_files)
    known = by_files if by_files is not None else have.get("bos")
    return _opening("the token that bos=on puts in front" if known is None else known, by_files)
