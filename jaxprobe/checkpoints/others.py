"""Single files of other projects: Qwen Scope's `layerN.sae.pt` and Goodfire's `.pt` and `.pth`."""

import re
from typing import Any

from jaxprobe import boundary
from jaxprobe.base import Site
from jaxprobe.checkpoints import arrays
from jaxprobe.checkpoints.loaded import LoadedSae
from jaxprobe.checkpoints.places import Place, number, site_of
from jaxprobe.saes import ReluSae, TopKSae, check_sae

NAME = "Qwen Scope (layerN.sae.pt) or Goodfire (NAME-SAE-lN.pth)"
QWEN = {"W_enc": "W_enc_DS", "b_enc": "b_enc_S", "W_dec": "W_dec_SD", "b_dec": "b_dec_D"}
FILE_NAME = "layerN.sae.pt"
GOODFIRE = {
    "encoder_linear.weight": "W_enc_DS",
    "encoder_linear.bias": "b_enc_S",
    "decoder_linear.weight": "W_dec_SD",
    "decoder_linear.bias": "b_dec_D",
}


def matches(place: Place) -> bool:
    """Whether the files there may have this layout."""
    if place.file is not None:
        return place.file.suffix in (".pt", ".pth") and place.file.name != "ae.pt"
    return len(_files(place)) == 1


def load(place: Place) -> LoadedSae:
    """Reads one file.

    Raises:
        ValueError: Other arrays than those of the two projects, a pickle of more than tensors, or
            a path that does not tell k.
    """
    path = place.file or _files(place)[0]
    found = arrays.read_arrays(path)
    is_goodfire = "encoder_linear.weight" in found
    keys = GOODFIRE if is_goodfire else QWEN
    if not {*keys} & {*found}:
        raise boundary.FileError(
            f"{path} must hold the arrays of Qwen Scope ({', '.join(QWEN)}) or Goodfire"
            f" ({', '.join(GOODFIRE)}), whose files need no config, got {', '.join(found)!s:.200}; if a"
            " config belongs to it, put both into a folder under the names of their library, those of"
            " dictionary_learning as ae.pt and config.json"
        )
    arrays.check_keys(found, keys, path)
    weights: dict[str, Any] = arrays.fields(found, keys, path, transposed=keys)
    if is_goodfire:
        core, project, pattern = ReluSae(**weights), "goodfire", r".*-SAE-l(\d+)\.pth?"
    else:
        where = place.text(r"-L0_\d+")
        k = number(r"-L0_(\d+)", where)
        if k is None:
            raise ValueError(
                f"{path} does not say how many latents are kept: that stands in its repository's"
                " name (...-L0_50); put the file into a folder of that name, or name it by hf://"
            )
        core = TopKSae(**weights, k=int(k))
        project, pattern = "qwen_scope", r"layer(\d+)\.sae\.pt"
    check_sae(core, f"{path} is not an SAE of {project}")
    layer = re.fullmatch(pattern, path.name)
    site = Site(block=int(layer[1]), stream="resid_post") if layer else None
    return LoadedSae(
        sae=core,
        id=place.id(),
        site=site_of(place, site),
        expected_l0=float(core.k) if isinstance(core, TopKSae) else None,
        source=place.source,
        metadata={"format": project},
    )


def _files(place: Place) -> list:
    return sorted(p for p in place.folder.glob("*.pt*") if p.suffix in (".pt", ".pth"))
