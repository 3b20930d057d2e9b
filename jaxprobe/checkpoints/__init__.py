"""SAE weight files: each published layout in its own module, one `load_sae` before them all."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from jaxprobe import arguments, assets, boundary, checks, saes
from jaxprobe.base import Site
from jaxprobe.checkpoints import (
    dictionary_learning,
    folders,
    gemma_scope,
    gemma_scope_2,
    gemma_scope_2_layers,
    llama_scope,
    llamascopium,
    names,
    native,
    others,
    places,
    sae_lens,
    sae_lens_export,
    saved_metadata,
    sparsify,
    training_settings,
)
from jaxprobe.checkpoints.ids import check_id as check_id
from jaxprobe.checkpoints.loaded import LoadedSae
from jaxprobe.place import Place
from jaxprobe.saes import JumpReluSae as JumpReluSae

NATIVE_FILE = native.FILE_NAME  # of an SAE of ours in its folder

# The first that fits is taken: those that ask for more files stand first.
LAYOUTS = (
    gemma_scope,
    gemma_scope_2,
    gemma_scope_2_layers,
    llama_scope,
    sae_lens,
    llamascopium,
    dictionary_learning,
    sparsify,
    native,
    others,
)
# Layouts whose files say whether BOS was there in training.
_TELL_BOS = {
    layout.NAME: layout.bos
    for layout in (sae_lens, native, llama_scope, llamascopium, dictionary_learning)
}
_ELSEWHERE = ("memory://", "gs://", "s3://")
SAVED_LAYOUTS = ("jaxprobe", "sae_lens", "gemma_scope")


def load_sae(
    source: str | Path | Place,
    *,
    id: str | None = None,
    site: Site | str | None = None,
    llama_scope_gate: str = "official",
    norm_scaling_factor: float | None = None,
    active_groups: int | None = None,
) -> LoadedSae:
    """Loads an SAE of any known layout; the layout is recognised by the names of its files.

    Args:
        source: `hf://OWNER/REPO/FOLDER`, or the path of a folder or weight file. On `memory://`, `gs://`
            or `s3://`, what `save_sae` wrote there in jaxprobe's own layout.
        id: What results call it, over what its files and folders say; `activations` and
            `random_sae` are taken.
        site: Where it reads the model, over what its files say.
        llama_scope_gate: `official`, or `saelens`: without the decoder's norms in the gate.
        norm_scaling_factor: What activations were multiplied by in training, where the files do
            not hold it (SAELens' `expected_average_only_in`: its registry does).
        active_groups: How many groups of a Matryoshka SAE to use; all unless given.

    Raises:
        ValueError: No such layout there, a damaged file, one that cannot be probed, or an option
            that has no meaning for it.
        AssetError: The source is unavailable.
    """
    options = folders.checked_options(
        id, site, llama_scope_gate, norm_scaling_factor, active_groups
    )
    path = _elsewhere(source) or assets.fetch(str(source))
    if isinstance(path, Path):
        assets.check_hub_files(path)
    name = str(source) if isinstance(path, Place) or "://" in str(source) else path.absolute()
    with boundary.reader(name, "an SAE", "fetch or save it again"):
        place = _place(path, str(source), options)
        layout = _layout(place)
        loaded = layout.load(place)
        folders.check_used(place, layout.__name__.rpartition(".")[2], loaded.architecture)
        # What is folded into weights may leave float32 where the weights did not.
        saes.check_finite(loaded.sae, f"{name} and its config do not belong together")
        return dataclasses.replace(loaded, id=names.id_of(place, loaded.id))


def load_labelled(entry: str) -> LoadedSae:
    """The SAE of an entry of a config's `saes`: a source, or NAME=SOURCE, which makes NAME its id."""
    label, source = assets.split_label(entry)
    return load_sae(source, id=label or None)


def bos_setting(source: str | Path | Place) -> str:
    """Whether an SAE was trained with BOS, as `LoadedSae.bos`, without reading its weights.

    Raises:
        ValueError, AssetError: As `load_sae`.
    """
    path = _elsewhere(source) or assets.fetch(str(source))
    place = _place(path, str(source), places.Options())
    tell = _TELL_BOS.get(_layout(place).NAME)
    return tell(place) if tell else "auto"


def encode(sae, x_ND):
    """Latents of activations, `z_NS`; see `saes.encode`. Traceable.

    Args:
        sae: What `load_sae` returned, or the weights alone.
        x_ND: float32 activations at the SAE's site; any leading axes.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxprobe as jp
        >>> sae = jp.JumpReluSae(W_enc_DS=jnp.eye(2, 3), b_enc_S=jnp.zeros(3), W_dec_SD=jnp.eye(3, 2),
        ...                      b_dec_D=jnp.zeros(2), threshold_S=jnp.full(3, 0.5))
        >>> jp.encode(sae, jnp.array([[0.4, 2.0]])).tolist()
        [[0.0, 2.0, 0.0]]
    """
    return saes.encode(_weights(sae), arguments.finite("x_ND", x_ND))


def decode(sae, z_NS, x_ND=None):
    """Activations that latents stand for, `x_ND`; see `saes.decode`. Traceable.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxprobe as jp
        >>> sae = jp.JumpReluSae(W_enc_DS=jnp.eye(2, 3), b_enc_S=jnp.zeros(3), W_dec_SD=jnp.eye(3, 2),
        ...                      b_dec_D=jnp.ones(2), threshold_S=jnp.full(3, 0.5))
        >>> jp.decode(sae, jnp.array([[0.0, 2.0, 0.0]])).tolist()
        [[1.0, 3.0]]
    """
    x_ND = None if x_ND is None else arguments.finite("x_ND", x_ND)
    return saes.decode(_weights(sae), arguments.finite("z_NS", z_NS), x_ND)


def _weights(sae):
    return sae.sae if isinstance(sae, LoadedSae) else sae


def save_sae(
    path: str | Path | Place,
    sae,
    metadata: Mapping[str, object] | None = None,
    *,
    layout: str = "jaxprobe",
) -> Path | Place:
    """Saves an SAE, atomically.

    Args:
        path: The folder, or the file where the layout is one file; a path, or a place.
        sae: The weights, of any architecture that the layout has a word for.
        metadata: JSON types; `id`, `site` (a `Site` or its text) and `expected_l0` come back from
            `load_sae`. An `output_site` says that this is a transcoder, `prepend_bos` (true or false)
            whether it was trained on prompts that open with BOS; those of a loaded SAE need not be
            repeated. What the layout has no place for is named in a warning.
        layout: `jaxprobe` (`sae.safetensors`), `sae_lens` (`cfg.json` and
            `sae_weights.safetensors`) or `gemma_scope` (`params.npz`).

    Returns:
        The weight file: a path, or a place where one was named.

    Raises:
        ValueError: An SAE that the layout cannot express.
    """
    checks.check_choice("layout", layout, SAVED_LAYOUTS)
    saes.architecture(_weights(sae))  # says what is wanted where it is none
    metadata = saved_metadata.plain(metadata)
    saes.check_finite(_weights(sae), "an SAE whose numbers are none is not saved")
    if isinstance(sae, LoadedSae) and "output_site" in sae.metadata:
        metadata = {"output_site": sae.metadata["output_site"], **metadata}
    if isinstance(sae, LoadedSae) and sae.bos != "auto":
        metadata = {training_settings.BOS: sae.bos == "on", **metadata}
    saved_metadata.warn_of_lost(metadata, layout)
    where = _saved(Place.parse(path), _weights(sae), metadata, layout)
    return where.local if where.local and not isinstance(path, Place) else where


def _saved(where: Place, sae, metadata: Mapping[str, object], layout: str) -> Place:
    """Writes an SAE; returns the place of its weights."""
    if layout == "sae_lens":
        return sae_lens_export.save(where, sae, metadata)
    module = native if layout == "jaxprobe" else gemma_scope
    if not where.name.endswith(Path(module.FILE_NAME).suffix):
        where = where / module.FILE_NAME
    if layout == "jaxprobe":
        native.save(where, sae, metadata)
    else:
        gemma_scope.save(where, sae)
    return where


def _elsewhere(source: str | Path | Place) -> Place | None:
    """The place of a source that lies in no file system; None for a path and what `assets` fetches."""
    if not isinstance(source, Place) and not str(source).startswith(_ELSEWHERE):
        return None
    where = Place.parse(source)
    return None if where.local else where


def _place(path: Path | Place, source: str, options: places.Options) -> places.Place:
    """The folder and, where one was named, the weight file."""
    if isinstance(path, Place):
        file = path if path.name.endswith(".safetensors") else path / native.FILE_NAME
        folder = Path(str(file)).parent
        return places.Place(
            folder=folder, file=None, source=source, options=options, elsewhere=file
        )
    if path.is_dir():
        return places.Place(folder=path, file=None, source=source, options=options)
    if path.suffix not in folders.WEIGHTS:
        raise boundary.FileError(
            f"an SAE file ends in {', '.join(folders.WEIGHTS[:-1])} or {folders.WEIGHTS[-1]}, got"
            f" {path.name}; name the weight file or its folder"
        )
    folder = path.parent
    if (folder.parent / llama_scope.CONFIG_NAME).is_file() and folder.name == "checkpoints":
        folder = folder.parent  # Llama Scope's weights lie one folder below their config
    return places.Place(folder=folder, file=path, source=source, options=options)


def _layout(place: places.Place):
    """The module that reads the files there; raises ValueError if none or several do."""
    if place.elsewhere:
        return native  # layouts of others are fetched first
    fits = [layout for layout in LAYOUTS if layout.matches(place)]
    files = dict.fromkeys(layout.FILE_NAME for layout in fits if layout is not others)
    if fits and (place.file or len(files) <= 1):
        if place.file is None:
            folders.check_alone(place, getattr(fits[0], "FILE_NAMES", (fits[0].FILE_NAME,)))
        return fits[0]
    if not fits:
        folders.check_not_several(place)
    there = sorted(entry.name for entry in place.folder.iterdir())
    shown = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "")
    known = "; ".join(layout.NAME for layout in LAYOUTS)
    raise ValueError(
        f"an SAE folder holds the files of exactly one of these layouts: {known}; {place.source}"
        f" holds {shown or 'nothing'}; name the folder with the weights, or the file"
    )
