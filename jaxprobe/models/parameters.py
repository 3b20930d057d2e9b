"""Tensors of files to parameters on devices, a piece at a time.

A layout's table of names says for every parameter which tensor it is and how that lies (`Source`). Each device's
piece is read from the file, cast in runs and handed over, so a host holds one piece besides what its own devices
hold, and no float32 copy of a bfloat16 file.
"""

import dataclasses
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.sharding import Mesh, NamedSharding
from penzai import pz

from jaxprobe import boundary
from jaxprobe.models import sharding
from jaxprobe.models.config import TransformerConfig
from jaxprobe.models.layers import Linear
from jaxprobe.models.slabs import Slab, is_finite
from jaxprobe.models.transformer import build

# Name of the number format -> dtype of the matrices. Sums, norms, biases, attention and the residual stream
# are float32 in both.
DTYPES = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float32": np.dtype(np.float32)}
# Later blocks amplify what the first ones round away: with the embedding and two blocks of Gemma 3
# 270M in float32, the worst of 173 real prompts falls from an error of 1.9e-2 to under half of that,
# for two thirteenths of the products to block 12 at the price of float32.
FLOAT32_BLOCKS = 2


class TensorFiles(Protocol):
    """One or many files of named tensors."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's shape, slowest axis first."""
        ...

    def path(self, name: str) -> Path:
        """The file or folder that holds a tensor."""
        ...

    def dtype(self, name: str) -> np.dtype:
        """Number format that a tensor is stored in; float32 where it is quantised."""
        ...

    def read(self, name: str, shape: tuple[int, ...], slab: Slab, dtype: np.dtype) -> np.ndarray:
        """A part of a tensor.

        Args:
            name: One of `shapes`.
            shape: The tensor's shape, or one with leading axes split further.
            slab: A range of each axis of `shape`.
            dtype: Type of the result; entries are cast a few at a time.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where a parameter lies in the files.

    Attributes:
        name: The tensor.
        split: The tensor's shape with axes split further; None as it is, or as the parameter's axes where
            nothing is picked or moved.
        pick: Axis of `split` -> the one entry to take.
        order: For each axis of the parameter, which of the axes left it is.
        merge: An axis of the parameter that two neighbours in `order` make up, read whole.
        plus: Added to every entry (Gemma's norms are stored less one).
    """

    name: str
    split: tuple[int, ...] | None = None
    pick: Mapping[int, int] = dataclasses.field(default_factory=dict)
    order: tuple[int, ...] | None = None
    merge: int | None = None
    plus: float = 0.0


def load(
    config: TransformerConfig,
    files: TensorFiles,
    sources: Mapping[str, Source],
    dtype: str,
    mesh: Mesh | None,
) -> pz.nn.Sequential:
    """The stack of `transformer.build` with its parameters read from files.

    Raises:
        ValueError: A tensor does not fill its parameter.
    """

    def parameter(label: str, axes: dict[str, int]) -> pz.nn.ParameterLike:
        source = sources[label]
        kind = parameter_dtype(label, axes, dtype, files.dtype(source.name))
        values = _array(files, source, axes, kind, mesh)
        return pz.ParameterValue(value=pz.nx.wrap(values, *axes), label=label)

    return with_exact_blocks(build(config, parameter), dtype)


def labels(config: TransformerConfig) -> dict[str, dict[str, int]]:
    """Every parameter of a model and its axes, without any values."""
    found: dict[str, dict[str, int]] = {}

    def parameter(label: str, axes: dict[str, int]) -> pz.nn.ParameterLike:
        found[label] = axes
        empty = pz.nx.wrap(jnp.zeros((0,) * len(axes)), *axes)
        return pz.ParameterValue(value=empty, label=label)

    build(config, parameter)
    return found


def random(config: TransformerConfig, key: jax.Array, dtype: str = "bfloat16") -> pz.nn.Sequential:
    """A stack with random parameters, for measurements; `jax.eval_shape` makes it abstract."""

    def values(label: str, axes: dict[str, int]) -> jax.Array:
        kind = parameter_dtype(label, axes, dtype, DTYPES[dtype])
        here = jax.random.fold_in(key, zlib.crc32(label.encode()))
        spread = math.prod(axes.values()) // max(next(iter(axes.values())), 1)
        draw = jax.random.normal(here, tuple(axes.values()), jnp.float32) / math.sqrt(spread)
        return (draw if len(axes) > 1 else 1 + draw / 10).astype(kind)

    def parameter(label: str, axes: dict[str, int]) -> pz.nn.ParameterLike:
        return pz.ParameterValue(value=pz.nx.wrap(values(label, axes), *axes), label=label)

    return with_exact_blocks(build(config, parameter), dtype)


def parameter_dtype(label: str, axes: Mapping[str, int], dtype: str, stored: np.dtype) -> np.dtype:
    """The number format that a parameter is kept in.

    Matrices take the model's dtype. Those of the embedding and the first blocks keep what the file has,
    and `with_exact_blocks` computes with them in float32. Norms and biases are float32.
    """
    matrix = len(axes) > 1 and not label.endswith("_bias")
    if not matrix or dtype == "float32":
        return np.dtype(np.float32)
    early = label == "embedding" or int(label.split(".")[1]) < FLOAT32_BLOCKS
    if early:
        return stored if stored.itemsize == 2 else np.dtype(np.float32)
    return DTYPES[dtype]


def with_exact_blocks(stack: pz.nn.Sequential, dtype: str) -> pz.nn.Sequential:
    """Makes the first blocks' products exact where the others round to bfloat16."""
    if dtype == "float32":
        return stack
    layers = list(stack.sublayers)
    for index in range(1, min(1 + FLOAT32_BLOCKS, len(layers))):
        linears = pz.select(layers[index]).at_instances_of(Linear)
        layers[index] = linears.apply(lambda layer: dataclasses.replace(layer, exact=True))
    return pz.nn.Sequential(layers)


def _array(
    files: TensorFiles, source: Source, axes: Mapping[str, int], dtype: np.dtype, mesh: Mesh | None
) -> jax.Array:
    shape = tuple(axes.values())
    with _reader(files, source):
        view = _View.of(source, files.shapes[source.name], axes)
    if mesh is None:
        return jnp.asarray(view.read(files, tuple(slice(0, size) for size in shape), dtype))
    placed = NamedSharding(mesh, sharding.parameter_spec(axes, mesh.shape))
    pieces: dict[tuple, np.ndarray] = {}

    def piece(index: Slab | None) -> np.ndarray:
        slab = tuple(
            slice(*part.indices(size)[:2]) for part, size in zip(index or (), shape, strict=True)
        )
        key = tuple((part.start, part.stop) for part in slab)
        if key not in pieces:  # copies on other devices are read once
            pieces[key] = view.read(files, slab, dtype)
        return pieces[key]

    return jax.make_array_from_callback(shape, placed, piece)


def _reader(files: TensorFiles, source: Source):
    return boundary.reader(files.path(source.name), "a model's weights", "fetch or save it again")


def _refines(split: tuple[int, ...], stored: tuple[int, ...]) -> bool:
    """Whether the axes of `split` are those of `stored`, some of them split further."""
    at = 0
    for size in stored:
        product = 1
        while at < len(split) and product * split[at] <= size:
            product, at = product * split[at], at + 1
        if product != size:
            return False
    return at == len(split)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _View:
    """A source with all its shapes known."""

    source: Source
    split: tuple[int, ...]
    order: tuple[int, ...]
    kept: tuple[int, ...]

    @classmethod
    def of(cls, source: Source, stored: tuple[int, ...], axes: Mapping[str, int]) -> "_View":
        wanted = tuple(axes.values())
        split = source.split or (wanted if not source.pick and source.order is None else stored)
        kept = tuple(axis for axis in range(len(split)) if axis not in source.pick)
        order = source.order or tuple(range(len(kept)))
        got = [split[kept[axis]] for axis in order]
        if source.merge is not None:
            got[source.merge : source.merge + 2] = [math.prod(got[source.merge :][:2])]
        if not _refines(split, stored) or tuple(got) != wanted:
            raise ValueError(
                f"tensor `{source.name}` must fill {dict(axes)}, got shape {stored};"
                " the file's configuration and tensors disagree"
            )
        return cls(source=source, split=split, order=order, kept=kept)

    def read(self, files: TensorFiles, slab: Slab, dtype: np.dtype) -> np.ndarray:
        """One slab of the parameter.

        Raises:
            FileError: It cannot be read, or an entry is not finite in `dtype`.
        """
        with _reader(files, self.source):
            values = self._values(files, slab, dtype)
            if not is_finite(values):
                raise ValueError(
                    f"tensor `{self.source.name}` must be finite in {dtype.name}, got NaN or infinity"
                )
            return values

    def _values(self, files: TensorFiles, slab: Slab, dtype: np.dtype) -> np.ndarray:
        shape, merge, parts = [part.stop - part.start for part in slab], self.source.merge, [*slab]
        if merge is not None:
            pair = [slice(0, self.split[self.kept[axis]]) for axis in self.order[merge:][:2]]
            parts[merge : merge + 1] = pair
        ranges = {axis: slice(entry, entry + 1) for axis, entry in self.source.pick.items()}
        ranges |= {self.kept[axis]: part for axis, part in zip(self.order, parts, strict=True)}
        stored = tuple(ranges[axis] for axis in range(len(self.split)))
        values = files.read(self.source.name, self.split, stored, dtype)
        values = np.squeeze(values, axis=tuple(self.source.pick)).transpose(self.order)
        if self.source.plus:
            values = values + np.asarray(self.source.plus, dtype)
        return np.ascontiguousarray(values.reshape(shape))
