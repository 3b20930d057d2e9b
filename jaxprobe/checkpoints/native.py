"""jaxprobe's own SAE file: safetensors, with one JSON text in its header.

The header has a single entry, because safetensors does not promise an order for several, and
equal SAEs shall be equal files. An array's name is its field's without axis letters. Since format
version 2 the JSON text holds a digest of the whole file, see `sealed`.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from jaxprobe import boundary, sealed
from jaxprobe.base import Site
from jaxprobe.checkpoints import arrays as stored
from jaxprobe.checkpoints import config, names, places, training_settings
from jaxprobe.checkpoints.config import Config
from jaxprobe.checkpoints.loaded import LoadedSae
from jaxprobe.checkpoints.places import site_of
from jaxprobe.place import Place
from jaxprobe.saes import FramedSae, architecture, check_sae, core_of, encoding, frame
from jaxprobe.saes.framed import NORMALISATIONS

NAME = "jaxprobe (sae.safetensors)"
FILE_NAME = "sae.safetensors"
FORMAT_VERSION = 2
READABLE = (1, FORMAT_VERSION)
HEADER = "jaxprobe"  # the header entry that holds the JSON text
# Words of the header that follow from the weights.
OWN = ("format_version", "architecture", "d_model", "d_sae", "settings", "frame")
MOST_TEXT = config.BYTES
FRAME = {"shift": "shift_D", "W_skip": "W_skip_DE"}  # arrays of the frame


def matches(place: places.Place) -> bool:
    """Whether the files there have this layout."""
    if place.file is not None:
        return place.file.suffix == ".safetensors"
    return place.has(FILE_NAME)


def save(where: Place, sae, metadata: Mapping[str, object]) -> None:
    """Writes an SAE, whole or not at all.

    Args:
        where: The file to write.
        sae: An autoencoder of any architecture.
        metadata: JSON types: `id`, `site` (text), `model`, `expected_l0`, `prepend_bos`,
            `training` and more.

    Raises:
        ValueError: Arrays that do not fit together.
    """
    kind, core = architecture(sae), core_of(sae)
    check_sae(sae, d_out=core.b_dec_D.shape[-1])
    arrays = {key: np.asarray(getattr(core, name), order="C") for key, name in _keys(core).items()}
    own: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "architecture": kind.name,
        "d_model": sae.d_model,
        "d_sae": sae.d_sae,
    }
    settings = {name: _plain(getattr(core, name)) for name in _settings(type(core))}
    if settings:
        own["settings"] = settings
    if isinstance(sae, FramedSae):
        own["frame"] = {"normalisation": sae.normalisation, "restores": sae.restores}
        there = {key: getattr(sae, name) for key, name in FRAME.items()}
        arrays |= {k: np.asarray(a, order="C") for k, a in there.items() if a is not None}
    record = json.loads(_text(metadata, own))
    where.replace(sealed.to_safetensors(arrays, HEADER, record))


def load(place: places.Place) -> LoadedSae:
    """Reads an SAE that `save` wrote.

    Raises:
        ValueError: Not such a file, another format version, or arrays that do not fit together.
    """
    path = _file(place)
    with stored.open_safetensors(path) as file:
        header = _header(path, file.metadata())
        _check_content(path, header)
        kind = _kind(header, path)
        keys = _keys(kind)
        around = FRAME if "frame" in header else {}
        stored.check_keys(dict.fromkeys(file.keys()), keys, path, optional=around)
        arrays = {name: file.get_tensor(name) for name in file.keys()}
    values = {
        field: _array(arrays[key], key, path)
        for key, field in (keys | around).items()
        if key in arrays
    }
    parts = {field: values.pop(field, None) for field in around.values()}
    core = kind(**values, **_said(header, _settings(kind), place))
    hint = f"{path} is not an SAE as jaxprobe writes it"
    check_sae(core, hint, core.b_dec_D.shape[-1])  # a transcoder's may differ from d_model
    header.check_same("d_model", core.d_model, "its header is another's")
    header.check_same("d_sae", core.d_sae, "its header is another's")
    sae = core
    if around:
        words = header.section("frame")
        sae = frame(
            core,
            **parts,
            normalisation=words.choice("normalisation", NORMALISATIONS),
            restores=words.flag("restores"),
        )
    site = header.text("site", None)
    return LoadedSae(
        sae=sae,
        id=header.get("id") or place.id(),
        site=site_of(place, Site.parse(site) if site else None),
        expected_l0=header.nonnegative("expected_l0", None),
        source=place.source,
        metadata=header.content,
        bos=training_settings.bos_setting(header, path),
    )


def _file(place: places.Place) -> Place | Path:
    return place.elsewhere or place.file or place.folder / FILE_NAME


def _array(array: np.ndarray, name: str, path: Place | Path) -> jax.Array:
    """float32, and whole numbers as they are."""
    if array.dtype.kind in "iu":
        return jnp.asarray(array)
    return stored.float32(array, name, path)


def _said(header: Config, settings: list[str], place: places.Place) -> dict[str, Any]:
    """The settings of an architecture, as the header or the user says."""
    said = dict(header.section("settings", {}))
    if sorted(said) != sorted(settings):
        raise header.error("settings", f"the entries {', '.join(settings) or 'of none'}")
    if "signed" in said:
        said["signed"] = header.section("settings").flag("signed")
    if "active_groups" in said and place.options.active_groups is not None:
        said["active_groups"] = place.options.active_groups
    return said


def _text(metadata: Mapping[str, object], own: Mapping[str, Any]) -> str:
    """The header: what the user says of an SAE, and what its weights say.

    Raises:
        ValueError: Metadata that JSON cannot hold, or that contradict the weights.
    """
    if metadata.get("format_version") in READABLE:  # of a loaded SAE, which is saved as this one
        metadata = {**metadata, "format_version": FORMAT_VERSION}
    for name in OWN:
        if name in metadata and metadata[name] != own.get(name):
            raise ValueError(
                f"`metadata` may not say {name} = {metadata[name]!r:.80}: that is the file's own word, here"
                f" {own.get(name)!r}; take another name"
            )
    if metadata.get("id") is not None:
        names.check_id(metadata["id"])
    header = Config({**metadata, **own}, Path("`metadata`"), "give another, or leave it out")
    site = header.text("site", None)
    if site:
        Site.parse(site)
    header.nonnegative("expected_l0", None)
    try:
        text = json.dumps(header.content, sort_keys=True, allow_nan=False)
        same = json.loads(text) == header.content
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"`metadata` must hold what JSON has words for ({error}); turn arrays into lists, leave NaN out"
        ) from None
    if not same:
        raise ValueError(
            "`metadata` must come back from JSON as it is; use texts as keys and lists, not tuples"
        )
    if len(text) > MOST_TEXT:
        raise ValueError(
            f"`metadata` must take at most {MOST_TEXT:,} characters, got {len(text):,}"
        )
    return text


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def bos(place: places.Place) -> str:
    """Whether an SAE was trained with BOS, from its header alone; see `LoadedSae.bos`."""
    path = _file(place)
    with stored.open_safetensors(path) as file:
        return training_settings.bos_setting(_header(path, file.metadata()), path)


def _keys(core) -> dict[str, str]:
    """File array name -> field, for an SAE class or an instance of one."""
    fields = (field.name for field in dataclasses.fields(core) if not _is_static(field))
    return {re.sub(r"_[A-Z]+$", "", name): name for name in fields}


def _settings(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if _is_static(field)]


def _is_static(field: dataclasses.Field) -> bool:
    return bool(field.metadata.get("static"))


def _kind(header: Config, path: Place | Path) -> type:
    """The class of the architecture that a header names."""
    by_name = {known.name: kind for kind, known in encoding.ARCHITECTURES.items()}
    name = header.text("architecture", "jump_relu")
    if name not in by_name:
        raise boundary.FileError(
            f"{path} must have an architecture of {', '.join(by_name)}, got {name!r:.80}"
        )
    return by_name[name]


def _header(path: Place | Path, metadata: Mapping[str, str] | None) -> Config:
    """The JSON text of the header, of a version that can be read."""
    metadata = metadata or {}
    if HEADER not in metadata:
        raise boundary.FileError(
            f"{path} must have a safetensors header entry {HEADER!r}, got"
            f" {sorted(metadata)!s:.200}; it was not written by jaxprobe, and its name and neighbours fit"
            " no other layout that is read: make an SAE of jaxprobe.saes of its arrays, and save that with"
            " save_sae"
        )
    header = config.parse(metadata[HEADER], path)
    if header.get("format_version") not in READABLE:
        raise boundary.FileError(
            f"{path} must have format version {' or '.join(map(str, READABLE))}, got"
            f" {header.get('format_version')!r:.40}; use the jaxprobe that wrote it, or train it again"
        )
    return header


def _check_content(path: Place | Path, header: Config) -> None:
    """Compares the file with the digest in its header, which is taken out."""
    version, digest = header["format_version"], header.content.pop(sealed.KEY, None)
    if not sealed.verify(path, digest, "copy it here again", needed=version > 1):
        logging.warning(
            "%s has format version 1, without a checksum: damage to it goes unnoticed; save it again"
            " with jaxprobe.checkpoints.save_sae to have one",
            path,
        )
