"""jaxprobe's own SAE file: safetensors, with one JSON text in its header.

The header has a single entry, because safetensors does not promise an order for several, and
equal SAEs shall be equal files. An array's name is its field's without axis letters.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from jaxprobe import boundary
from jaxprobe.base import Site
from jaxprobe.checkpoints import atomic, training_settings
from jaxprobe.checkpoints.loaded import LoadedSae
from jaxprobe.checkpoints.places import Place, site_of
from jaxprobe.saes import FramedSae, architecture, check_sae, core_of, encoding, frame

NAME = "jaxprobe (sae.safetensors)"
FILE_NAME = "sae.safetensors"
FORMAT_VERSION = 1
HEADER = "jaxprobe"  # the header entry that holds the JSON text
FRAME = {"shift": "shift_D", "W_skip": "W_skip_DE"}  # arrays of the frame


def matches(place: Place) -> bool:
    """Whether this is the layout of what lies there."""
    if place.file is not None:
        return place.file.suffix == ".safetensors"
    return place.has(FILE_NAME)


def save(path: Path, sae, metadata: Mapping[str, object]) -> None:
    """Writes an SAE, whole or not at all.

    Args:
        path: The file to write.
        sae: An autoencoder of any architecture.
        metadata: JSON types: `id`, `site` (text), `model`, `expected_l0`, `prepend_bos`,
            `training` and more.

    Raises:
        ValueError: Arrays that do not fit together.
    """
    kind, core = architecture(sae), core_of(sae)
    check_sae(sae, d_out=core.b_dec_D.shape[-1])
    arrays = {key: np.asarray(getattr(core, name), order="C") for key, name in _keys(core).items()}
    header: dict[str, Any] = {
        **metadata,
        "format_version": FORMAT_VERSION,
        "architecture": kind.name,
        "d_model": sae.d_model,
        "d_sae": sae.d_sae,
    }
    settings = {name: getattr(core, name) for name in _settings(type(core))}
    if settings:
        header["settings"] = settings
    if isinstance(sae, FramedSae):
        header["frame"] = {"normalisation": sae.normalisation, "restores": sae.restores}
        there = {key: getattr(sae, name) for key, name in FRAME.items()}
        arrays |= {k: np.asarray(a, order="C") for k, a in there.items() if a is not None}
    text = json.dumps(header, sort_keys=True)
    atomic.write_bytes(path, safetensors.numpy.save(arrays, metadata={HEADER: text}))


def load(place: Place) -> LoadedSae:
    """Reads an SAE that `save` wrote.

    Raises:
        ValueError: Not such a file, another format version, or arrays that do not fit together.
    """
    path = place.file or place.folder / FILE_NAME
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = _header(path, file.metadata())
            kind = _kind(header, path)
            keys = _keys(kind)
            missing = set(keys) - set(file.keys())
            if missing:
                raise ValueError(
                    f"{path} must hold the arrays {', '.join(keys)}; it lacks"
                    f" {', '.join(sorted(missing))} and has {', '.join(file.keys()) or 'none'}"
                )
            arrays = {name: jnp.asarray(file.get_tensor(name)) for name in file.keys()}
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} must be a safetensors file, and cannot be read as one ({error}); was it cut"
            " short while being copied?"
        ) from None
    values = {field: arrays[key] for key, field in keys.items()}
    core = kind(**values, **header.get("settings", {}))
    hint = f"{path} is not an SAE as jaxprobe writes it"
    check_sae(core, hint, core.b_dec_D.shape[-1])  # a transcoder's may differ from d_model
    around = {field: arrays.get(key) for key, field in FRAME.items()}
    sae = frame(core, **around, **header["frame"]) if "frame" in header else core
    return LoadedSae(
        sae=sae,
        id=header.get("id") or path.stem,
        site=site_of(place, Site.parse(header["site"]) if header.get("site") else None),
        expected_l0=header.get("expected_l0"),
        source=place.source,
        metadata=header,
        bos=training_settings.bos_setting(header, path),
    )


def bos(place: Place) -> str:
    """Whether an SAE was trained with BOS, from its header alone; see `LoadedSae.bos`."""
    path = place.file or place.folder / FILE_NAME
    with boundary.reader(path, "a safetensors file", "copy it again"):
        with safetensors.safe_open(path, framework="numpy") as file:
            return training_settings.bos_setting(_header(path, file.metadata()), path)


def _keys(core) -> dict[str, str]:
    """Names in the file, and the fields that they fill, of an architecture or one of it."""
    fields = (field.name for field in dataclasses.fields(core) if not _is_static(field))
    return {re.sub(r"_[A-Z]+$", "", name): name for name in fields}


def _settings(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if _is_static(field)]


def _is_static(field: dataclasses.Field) -> bool:
    return bool(field.metadata.get("static"))


def _kind(header: Mapping[str, Any], path: Path) -> type:
    """The class of the architecture that a header names."""
    by_name = {known.name: kind for kind, known in encoding.ARCHITECTURES.items()}
    name = header.get("architecture", "jump_relu")
    if name not in by_name:
        raise ValueError(f"{path} must have an architecture of {', '.join(by_name)}, got {name!r}")
    return by_name[name]


def _header(path: Path, metadata: Mapping[str, str] | None) -> dict:
    """The JSON text of the header, of a version that can be read."""
    metadata = metadata or {}
    if HEADER not in metadata:
        raise ValueError(
            f"{path} must have a safetensors header entry {HEADER!r}, got"
            f" {sorted(metadata)}; it was not written by jaxprobe, and its name and neighbours fit"
            " no other layout that is read"
        )
    header = json.loads(metadata[HEADER])
    if header.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} must have format version {FORMAT_VERSION}, got"
            f" {header.get('format_version')}; use the jaxprobe that wrote it, or train it again"
        )
    return header
