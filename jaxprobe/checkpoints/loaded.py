"""What loading an SAE file gives: the SAE and what the file says about it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxprobe.base import Site
from jaxprobe.saes.jump_relu import JumpReluSae


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedSae:
    """An SAE with its origin.

    Attributes:
        sae: The weights.
        id: Short name, what the `features` column of result rows says.
        site: Where it reads the model, or None if its source does not say.
        expected_l0: Published mean number of active latents, or None.
        source: What was loaded.
        metadata: Everything else that the file says; JSON types only.
    """

    sae: JumpReluSae
    id: str
    site: Site | None
    expected_l0: float | None
    source: str
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
