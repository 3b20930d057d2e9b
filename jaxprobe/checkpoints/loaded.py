"""What loading an SAE file gives: the SAE and what the file says about it."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxprobe.base import Site
from jaxprobe.saes import architecture


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LoadedSae:
    """An SAE with its origin.

    Attributes:
        sae: The weights, one of the types of `saes`.
        id: Short name, what the `features` column of result rows says.
        site: Where it reads the model, or None if its source does not say.
        expected_l0: Published mean number of active latents, or None.
        source: What was loaded.
        metadata: Everything else that the file says; JSON types only.
        bos: Whether it was trained on prompts that open with BOS: `on`, `off`, or `auto` where its files
            do not say. `jp.extract(..., bos=sae.bos)` reads the model so.
        centred: Whether it was trained on activations less their mean over d_model. Its weights say so
            already: it reads the model's own.
    """

    sae: Any
    id: str
    site: Site | None
    expected_l0: float | None
    source: str
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    bos: str = "auto"
    centred: bool = False

    def __repr__(self) -> str:
        """One line: arrays by type and shape, metadata by the number of entries."""
        return (
            f"LoadedSae(id={self.id!r}, site={str(self.site) if self.site else None!r}, sae={self.sae!r},"
            f" expected_l0={self.expected_l0}, source={self.source!r},"
            f" metadata=<{len(self.metadata)} entries>)"
        )

    def __eq__(self, other: object) -> bool:
        """Whether weights and origin are the same."""
        if not isinstance(other, LoadedSae):
            return NotImplemented
        return _Origin(self) == _Origin(other) and bool(self.sae == other.sae)

    def __hash__(self) -> int:
        """By its name: weights are too many."""
        return hash(_Origin(self))

    @functools.cached_property
    def digest(self) -> str:
        """Hex SHA-256 of the weights and settings, taken once: large dictionaries are gigabytes."""
        arrays, structure = jax.tree.flatten(self.sae)
        digest = hashlib.sha256(str(structure).encode())
        for array in arrays:
            rows = np.atleast_1d(array)
            for start in range(0, len(rows), 256):  # in parts: a large encoder is not copied whole
                digest.update(np.ascontiguousarray(rows[start : start + 256]).tobytes())
        return digest.hexdigest()

    @property
    def architecture(self) -> str:
        """For example `jump_relu` or `topk`."""
        return architecture(self.sae).name

    @property
    def d_model(self) -> int:
        """Width of the activations that it reads."""
        return self.sae.d_model

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.sae.d_sae


class _Origin:
    """Everything but the weights: what JAX compares when it looks for a compiled program."""

    def __init__(self, loaded: LoadedSae):
        self.fields = {name: getattr(loaded, name) for name in _ORIGIN}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Origin) and self.fields == other.fields

    def __hash__(self) -> int:
        return hash((self.fields["id"], self.fields["source"]))


_ORIGIN = ("id", "site", "expected_l0", "source", "metadata", "bos", "centred")

# A pytree, so that it passes through jit and vmap as an argument.
jax.tree_util.register_pytree_node(
    LoadedSae,
    lambda loaded: ((loaded.sae,), _Origin(loaded)),
    lambda origin, children: LoadedSae(sae=children[0], **origin.fields),
)
