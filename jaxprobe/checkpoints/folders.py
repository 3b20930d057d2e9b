"""What `load_sae` was asked for, against the files that are there: one SAE, and options that mean something."""

import fnmatch
import numbers
from collections.abc import Sequence
from pathlib import Path

from jaxprobe import boundary, checks
from jaxprobe.base import Site
from jaxprobe.checkpoints import names
from jaxprobe.checkpoints.places import Options, Place

GATES = ("official", "saelens")
WEIGHTS = (".npz", ".safetensors", ".pt", ".pth")
# Files that lie beside weights and hold none, by library: SAELens, Gemma Scope 2, jaxprobe, training.
BESIDE = (
    *("sparsity.safetensors", "activation_whitening.safetensors", "trainer_state.pt"),
    *("activations_store_state.safetensors", "examples.safetensors", "training_state.safetensors"),
    *(
        "*optimizer*",
        "*scheduler*",
        "*rng_state*",
        "training_args.*",
        "state.pt",
        "rank_*_state.pt",
    ),
)


def checked_options(
    id: str | None, site: Site | str | None, gate: str, factor: float | None, groups: int | None
) -> Options:
    """What `load_sae` was told; raises ValueError for options that mean nothing."""
    if id is not None:
        names.check_id(id)
    if site is not None:
        if not isinstance(site, Site | str):
            raise ValueError(f"`site` must be a Site or its text, got {site!r:.80}")
        site = str(Site.parse(str(site)))
    checks.check_choice("llama_scope_gate", gate, GATES)
    is_number = isinstance(factor, numbers.Real) and not isinstance(factor, bool)
    if factor is not None and not (is_number and 1e-37 < factor < 3.4e38):
        raise ValueError(f"`norm_scaling_factor` must be a finite number above 0, got {factor!r}")
    is_count = isinstance(groups, numbers.Integral) and not isinstance(groups, bool)
    if groups is not None and not (is_count and groups > 0):
        raise ValueError(f"`active_groups` must be a whole number above 0, got {groups!r}")
    return Options(
        id=id,
        site=site,
        llama_scope_gate=gate,
        norm_scaling_factor=None if factor is None else float(factor),
        active_groups=None if groups is None else int(groups),
    )


def check_used(place: Place, layout: str, architecture: str) -> None:
    """Raises ValueError for an option that has no meaning for the SAE that was loaded.

    Args:
        place: With the options.
        layout: The last word of the layout's module.
        architecture: What the SAE is.
    """
    options = place.options
    wrong = {
        "llama_scope_gate": options.llama_scope_gate != GATES[0] and layout != "llama_scope",
        "norm_scaling_factor": options.norm_scaling_factor is not None
        and layout not in ("sae_lens", "llamascopium"),
        "active_groups": options.active_groups is not None and architecture != "matryoshka",
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            raise refused(place, name, f"it is a {architecture} SAE in the layout {layout}")


def refused(place: Place, option: str, reason: str) -> boundary.FileError:
    """The error for an option that would change nothing."""
    return boundary.FileError(
        f"`{option}` means nothing for {place.source}: {reason}; leave it out, or name another SAE"
    )


def check_alone(place: Place, file_names: Sequence[str]) -> None:
    """Raises FileError where a folder holds other weights beside the layout's file.

    Which of them was meant, or whether they are parts of one SAE, only the user can know.
    """
    there = [place.folder / name for name in file_names if (place.folder / name).is_file()]
    if not there:
        return  # layouts whose files have many names count them themselves
    known = there[0]
    others = sorted(path.name for path in _others(known))
    if others:
        more = f" and {len(others) - 8} more" if len(others) > 8 else ""
        raise boundary.FileError(
            f"{place.source} must hold the weights of one SAE in one file, got {known.name} and"
            f" {', '.join(others[:8])}{more}; name the file, or move the others away"
        )


def check_not_several(place: Place) -> None:
    """Raises FileError for a folder of several weight files, none of which names a layout."""
    there = [path.name for path in place.folder.iterdir() if path.suffix in WEIGHTS]
    if place.file is None and len(there) > 1:
        there.sort(key=lambda name: (len(name), name))  # layer9 before layer10
        more = f" and {len(there) - 8} more" if len(there) > 8 else ""
        raise boundary.FileError(
            f"{place.source} must hold the weights of one SAE, got a folder that holds"
            f" {', '.join(there[:8])}{more}; name one of them, for example {place.source}/{there[0]}"
        )


def _others(known: Path) -> list[Path]:
    return [
        path
        for path in known.parent.iterdir()
        if path != known
        and (path.suffix in WEIGHTS or path.name.endswith(".index.json"))
        and not any(fnmatch.fnmatch(path.name, pattern) for pattern in BESIDE)
    ]
