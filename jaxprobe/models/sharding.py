"""Where parameters and batches lie on a mesh of devices: rules on axis names.

A mesh has the axes `data` (rows of a batch, parameters copied) and `model` (parameters split). A parameter is
split along the first axis of `MODEL_AXES` that it has and that the mesh axis divides; where none fits it is
copied. XLA inserts the sums and copies between devices.
"""

import math
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxprobe import checks

DATA, MODEL = "data", "model"
# Whole heads and neurons first, since their products need no sum over devices but the last one. A head
# itself is never split: its halves turn together.
MODEL_AXES = ("head_groups", "neurons", "vocabulary", "query_heads", "embedding")


def checked_mesh(mesh: Mesh | None) -> Mesh | None:
    """The mesh with axes that XLA spreads by itself.

    Raises:
        ValueError: An axis other than `data` and `model`.
    """
    if mesh is None:
        return None
    unknown = sorted({*mesh.axis_names} - {DATA, MODEL})
    if unknown:
        raise ValueError(
            f"`mesh` must have the axes {DATA!r} and {MODEL!r}, or one of them, got {unknown}"
        )
    return Mesh(mesh.devices, mesh.axis_names)


def device_mesh(data: int, model: int) -> Mesh | None:
    """A mesh of this process's first devices; None for a single one.

    Raises:
        ValueError: There are fewer devices.
    """
    checks.check_positive("data", data)
    checks.check_positive("model", model)
    devices = jax.devices()
    if data * model > len(devices):
        raise ValueError(
            f"a mesh of {data} x {model} needs {data * model} devices, this process has"
            f" {len(devices)}; use a smaller `data` or `model`"
        )
    if data * model == 1:
        return None
    return Mesh(np.array(devices[: data * model]).reshape(data, model), (DATA, MODEL))


def parameter_spec(axes: Mapping[str, int], mesh_shape: Mapping[str, int]) -> PartitionSpec:
    """How a parameter is split.

    Args:
        axes: Its axes and their sizes, slowest first.
        mesh_shape: Devices along each axis of the mesh.
    """
    count = mesh_shape.get(MODEL, 1)
    if set(axes) == {"embedding"}:  # the residual stream itself stays whole on every device
        return PartitionSpec()
    fitting = [name for name in MODEL_AXES if name in axes and axes[name] % count == 0]
    if count == 1 or not fitting:
        return PartitionSpec()
    return PartitionSpec(*(MODEL if name == fitting[0] else None for name in axes))


def split_size(axes: Mapping[str, int], mesh_shape: Mapping[str, int]) -> int:
    """Entries of a parameter on one device."""
    divided = MODEL in parameter_spec(axes, mesh_shape)
    return math.prod(axes.values()) // (mesh_shape[MODEL] if divided else 1)


def spread_rows(tree, mesh: Mesh | None):
    """Spreads the leading axis of every array over `data`, where it divides; traceable."""
    if mesh is None or DATA not in mesh.shape:
        return tree

    def spread(array):
        rows = DATA if array.shape[0] % mesh.shape[DATA] == 0 else None
        sharding = NamedSharding(mesh, PartitionSpec(rows))
        return jax.lax.with_sharding_constraint(array, sharding)

    return jax.tree.map(spread, tree)
