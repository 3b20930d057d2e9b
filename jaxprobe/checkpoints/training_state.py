"""The state of a training run between two processes: a pytree of arrays and what it belongs to."""

from collections.abc import Mapping
from os import PathLike
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxprobe import boundary, sealed
from jaxprobe.place import Place

HEADER = "jaxprobe_training"  # the header entry that holds the JSON text
Tree = TypeVar("Tree")


def save(path: Place | PathLike | str, tree, identity: Mapping[str, object]) -> None:
    """Writes a pytree of arrays, whole or not at all.

    Args:
        path: The file to write, or its place.
        tree: Arrays.
        identity: JSON types that tell which run this is.
    """
    Place.parse(path).replace(sealed.to_safetensors(_named(tree), HEADER, identity))


def load(path: Place | PathLike | str, like: Tree, identity: Mapping[str, object]) -> Tree:
    """Reads what `save` wrote.

    Args:
        path: The file, or its place.
        like: A tree of the same structure (arrays, or `jax.ShapeDtypeStruct`).
        identity: What the file must belong to.

    Raises:
        ValueError: It belongs to another run (the first difference is named) or is damaged.
    """
    wanted = _named(like, read=False)
    remedy = "delete it to train afresh"
    found, arrays = sealed.read_safetensors(path, HEADER, remedy)
    check_identity(found, identity, path)
    fits = arrays.keys() == wanted.keys() and all(
        (arrays[name].shape, arrays[name].dtype) == (wanted[name].shape, wanted[name].dtype)
        for name in wanted
    )
    if not fits:
        raise boundary.FileError(
            f"{path} was written by another jaxprobe; delete it to train afresh"
        )
    structure = jax.tree.structure(like)
    return jax.tree.unflatten(structure, [jnp.asarray(arrays[name]) for name in wanted])


def check_identity(found: Mapping, wanted: Mapping, path: Place | PathLike | str) -> None:
    """Raises ValueError at the first entry in which a file belongs to another run."""
    for key in sorted(found.keys() | wanted.keys()):
        if found.get(key) != wanted.get(key):
            raise ValueError(
                f"{path} was written with {key} = {found.get(key)!r:.200}; this run has {key} ="
                f" {wanted.get(key)!r:.200}. Use another folder, or delete the file"
            )


def _named(tree, *, read: bool = True) -> dict:
    """Leaves by their path in the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) if read else leaf for path, leaf in leaves}
