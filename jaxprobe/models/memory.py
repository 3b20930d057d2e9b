"""How much of a device's memory a model takes, before anything is loaded."""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from penzai import pz

from jaxprobe.models import parameters, sharding
from jaxprobe.models.config import TransformerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes on one device.

    Attributes:
        parameters: The device's part of the parameters.
        largest: The largest parameter of that part.
    """

    parameters: int
    largest: int


def footprint(
    config: TransformerConfig, dtype: str = "bfloat16", mesh_shape: Mapping[str, int] | None = None
) -> Footprint:
    """What a model's parameters take on each device, loaded from files of the same dtype.

    Args:
        config: The model's numbers.
        dtype: A key of `parameters.DTYPES`.
        mesh_shape: Devices along `data` and `model`; None for one device.
    """
    sizes = []
    for label, axes in parameters.labels(config).items():
        kind = parameters.parameter_dtype(label, axes, dtype, parameters.DTYPES[dtype])
        sizes.append(sharding.split_size(axes, mesh_shape or {}) * kind.itemsize)
    return Footprint(parameters=sum(sizes), largest=max(sizes))


def abstract_parameters(
    config: TransformerConfig, dtype: str = "bfloat16", mesh: Mesh | AbstractMesh | None = None
) -> pz.nn.Sequential:
    """A model's stack with shapes, dtypes and shardings in place of values; costs nothing.

    `jax.jit(...).lower` takes it, so a model's program can be compiled and its memory read off where
    the weights would not fit.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    shapes = jax.eval_shape(lambda key: parameters.random(config, key, dtype), key)
    axes_of = parameters.labels(config)

    def place(variable: pz.ParameterValue) -> pz.ParameterValue:
        leaf = variable.value.data_array
        if mesh is None:
            return variable
        # A named array's own data lies in the order that its axes were wrapped in.
        spec = sharding.parameter_spec(axes_of[str(variable.label)], mesh.shape)
        placed = jax.ShapeDtypeStruct(
            leaf.shape, np.dtype(leaf.dtype), sharding=NamedSharding(mesh, spec)
        )
        named = dataclasses.replace(variable.value, data_array=placed)
        return dataclasses.replace(variable, value=named)

    return pz.select(shapes).at_instances_of(pz.ParameterValue).apply(place)
