"""What a user says of an SAE that is saved: in JSON's types, and what a layout has no place for."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from jaxprobe.base import Site
from jaxprobe.checkpoints.training_settings import BOS

# What each layout of others keeps; jaxprobe's own keeps everything.
_KEPT = {"sae_lens": ("model", "site", "output_site", BOS), "gemma_scope": ()}
# What a loaded SAE says of the file that it is from, which the weights say again.
_OF_THE_FILE = {"format_version", "architecture", "d_model", "d_sae", "settings", "frame", "format"}


def plain(metadata: Mapping[str, object] | None) -> dict[str, Any]:
    """Metadata with the words that jaxprobe reads in JSON's types.

    Raises:
        ValueError: No mapping.
    """
    if not isinstance(metadata, Mapping | None):
        raise ValueError(f"`metadata` must be a mapping or None, got {type(metadata).__name__}")
    return {name: _plain(name, value) for name, value in (metadata or {}).items()}


def warn_of_lost(metadata: Mapping[str, object], layout: str) -> None:
    """Names the metadata that do not come back from a layout."""
    kept = _KEPT.get(layout, metadata)
    lost = [
        str(name)
        for name, value in metadata.items()
        if name not in kept and name not in _OF_THE_FILE and value is not None
    ]
    if lost:
        logging.warning(
            "the layout %s has no place for %.200s, which `load_sae` will not give back; save in the"
            " layout jaxprobe to keep it",
            *(layout, ", ".join(f"`{name}`" for name in sorted(lost))),
        )


def _plain(name: str, value: object) -> object:
    if name in ("site", "output_site") and isinstance(value, Site):
        return str(value)
    if name in (BOS, "expected_l0") and isinstance(value, np.generic):
        return value.item()
    return value
