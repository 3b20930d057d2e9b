"""A fitted probe as an artefact: it scores new activations and can be saved without its training data.

The file is safetensors with a digest of its own bytes (see `sealed`). The header's entry `probe` records the
method and the kind of model; the arrays are the model's. No pickle is read or written.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxprobe import arguments, checks, sealed
from jaxprobe.place import Place
from jaxprobe.probes.knn import NeighboursModel
from jaxprobe.probes.linear_model import LinearModel
from jaxprobe.probes.mlp import NetworkModel
from jaxprobe.probes.probe import Array, Model
from jaxprobe.sealed import FileError

# The kinds of model that a file may hold, by their names in its record.
KINDS: dict[str, type] = {
    "linear": LinearModel,
    "neighbours": NeighboursModel,
    "network": NetworkModel,
}
FORMATS = ("float16", "bfloat16", "float32", "float64")
VERSION = 1  # of the file's layout
_ENTRY = "probe"
_AGAIN = "fit and save the probe again"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FittedProbe:
    """A fitted probe: a pytree that can be jitted, vmapped and saved.

    Attributes:
        model: Scores rows of the features that the probe reads.
        latents: The columns that it reads, best first; None where it reads all.
        method: Its key in `PROBES`, or `custom`.
        num_features: Number of columns of the matrices that it takes.
        number_format: Number format of the features that it was fitted on; inputs are converted to it.
    """

    model: Model
    latents: Array | None = None
    method: str = "custom"
    num_features: int
    number_format: str = "float32"

    def __call__(self, x_ND: Any) -> Any:
        """Log-odds of class 1.

        Args:
            x_ND: Activations, or all of an SAE's latents: as wide as the matrix that the probe was fitted
                on. May be traced, and so may the probe.

        Returns:
            float64 or float32 [N], in the precision that the probe was fitted in; in a traced call, in
            the precision of the program.

        Raises:
            ValueError: The width differs, or numbers are not finite.
        """
        x_ND = arguments.features("x_ND", x_ND, (None, self.num_features), "as it was fitted on")
        if arguments.traced(x_ND, *jax.tree.leaves(self)):
            # Constants of a program without 64-bit numbers are narrowed once, here.
            return _score(jax.tree.map(jnp.asarray, self.model), self._read(x_ND))
        wide = any(leaf.dtype == np.float64 for leaf in jax.tree.leaves(self.model))
        with jax.enable_x64(wide), jax.default_matmul_precision("highest"):
            x_ND = jnp.asarray(x_ND).astype(self.number_format)
            # Distances and layers are compiled as they were in the fit; a plain product needs no compiling.
            score = _score if isinstance(self.model, LinearModel) else _compiled
            return np.asarray(score(self.model, self._read(x_ND)))

    def _read(self, x_ND: Array) -> Array:
        return x_ND if self.latents is None else x_ND[:, jnp.asarray(self.latents)]

    @property
    def weights(self) -> Array:
        """The weight of each of `latents`, or of every feature where `latents` is None.

        Raises:
            AttributeError: The method is not linear.
        """
        if not isinstance(self.model, LinearModel):
            raise AttributeError(
                f"{self.method} is not a linear probe, so it has no weights; call it to score features"
            )
        return self.model.coef_D

    @property
    def coef_D(self) -> Array:
        """Weights of all raw features: log-odds are `x_ND @ coef_D + intercept`.

        Raises:
            AttributeError: The method is not linear.
        """
        weights, latents = self.weights, self.latents
        if latents is None:
            return weights
        if arguments.traced(weights, latents):
            return jnp.zeros(self.num_features, weights.dtype).at[jnp.asarray(latents)].set(weights)
        coef_D = np.zeros(self.num_features, weights.dtype)
        coef_D[latents] = weights
        return coef_D

    @property
    def intercept(self) -> Any:
        """Log-odds where all features are 0.

        Raises:
            AttributeError: The method is not linear.
        """
        if not isinstance(self.model, LinearModel):
            return self.weights  # raises the error that says why there is none
        return self.model.intercept

    def save(self, path: str | os.PathLike | Place) -> None:
        """Writes a safetensors file, whole or not at all; `load_probe` reads it.

        Raises:
            OSError: It cannot be written.
        """
        arrays = _arrays(self.model)
        if self.latents is not None:
            arrays["latents"] = np.asarray(self.latents)
        record = {
            "version": VERSION,
            "kind": next(kind for kind, made in KINDS.items() if isinstance(self.model, made)),
            "method": self.method,
            "num_features": self.num_features,
            "number_format": self.number_format,
        }
        Place.parse(path).replace(sealed.to_safetensors(arrays, _ENTRY, record))

    def __repr__(self) -> str:
        """Sizes, not the numbers."""
        latents = "" if self.latents is None else f", {len(self.latents)} latents"
        return f"FittedProbe({self.method!r}, {self.num_features:,} features{latents})"


jax.tree_util.register_dataclass(
    FittedProbe, ("model", "latents"), ("method", "num_features", "number_format")
)


def load_probe(path: str | os.PathLike | Place) -> FittedProbe:
    """Reads what `FittedProbe.save` wrote.

    Raises:
        FileError: Not a probe's file, or damaged, or of another version.
        FileNotFoundError: There is no file.

    Example:
        >>> import os, tempfile
        >>> import numpy as np
        >>> import jaxprobe as jp
        >>> y = np.arange(200) % 2
        >>> x = np.random.default_rng(0).normal(size=(200, 4)) + y[:, None]
        >>> probe = jp.fit_probe("mean_difference", x[:100], y[:100], x[100:], y[100:]).probe
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     probe.save(os.path.join(folder, "probe.safetensors"))
        ...     again = jp.load_probe(os.path.join(folder, "probe.safetensors"))
        >>> bool((again(x) == probe(x)).all())
        True
    """
    record, arrays = sealed.read_safetensors(path, _ENTRY, _AGAIN)
    try:
        if record.get("version") != VERSION:
            raise ValueError(
                f"its version is {record.get('version')!r}, this program's is {VERSION}"
            )
        latents = arrays.pop("latents", None)
        num_features = arguments.whole("num_features", record.get("num_features"), 1)
        if latents is not None:
            latents = arguments.positions("latents", latents, num_features).astype(np.int32)
        kind, number_format = str(record.get("kind")), str(record.get("number_format"))
        checks.check_choice("kind", kind, KINDS)
        checks.check_choice("number_format", number_format, FORMATS)
        probe = FittedProbe(
            model=_model(KINDS[kind], arrays),
            latents=latents,
            method=str(record.get("method")),
            num_features=num_features,
            number_format=number_format,
        )
        # Evaluating the shapes for one row shows whether the arrays fit each other, without running anything.
        row = jax.ShapeDtypeStruct((1, num_features), np.float32)
        shape = jax.eval_shape(lambda x_ND: probe(x_ND), row).shape
        if shape != (1,):
            raise ValueError(f"it scores one row by an array of shape {shape}")
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise FileError(
            f"{path} must hold a probe that jaxprobe saved: {error}; {_AGAIN}"
        ) from error
    return probe


def kept(
    model: Model,
    *,
    method: str,
    num_features: int,
    number_format: str,
    num_train: int,
    latents: np.ndarray | None,
) -> FittedProbe:
    """The probe of a lane's model, without its padding.

    Args:
        model: The model, with padded rows and columns.
        method: Its name.
        num_features: Number of columns of the matrix that it was fitted on.
        number_format: Number format of that matrix.
        num_train: Training rows.
        latents: Columns that it reads; None where it reads all.
    """
    width = num_features if latents is None else len(latents)
    return FittedProbe(
        model=jax.tree.map(np.asarray, model.trimmed(num_train, width)),
        latents=None if latents is None else np.asarray(latents, np.int32),
        method=method,
        num_features=num_features,
        number_format=number_format if number_format in FORMATS else "float32",
    )


def _score(model: Model, x_MD: Array) -> Array:
    return model(x_MD)


_compiled = jax.jit(_score)


def _arrays(model: Model) -> dict[str, np.ndarray]:
    """A model's arrays by their path in it, such as `published/params/Dense_0/kernel`."""
    leaves = jax.tree_util.tree_flatten_with_path(model)[0]
    # A name of a field, or of a dictionary's entry.
    names = [
        "/".join(str(getattr(key, "name", getattr(key, "key", key))) for key in p)
        for p, _ in leaves
    ]
    # safetensors writes memory in its own layout, so slices are copied to contiguous arrays first.
    return {
        name: np.ascontiguousarray(leaf).reshape(np.shape(leaf))
        for name, (_, leaf) in zip(names, leaves, strict=True)
    }


def _model(kind: type, arrays: Mapping[str, np.ndarray]) -> Any:
    """The inverse of `_arrays`."""
    fields: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(kind))
    for name, array in arrays.items():
        if not np.isfinite(np.asarray(array, np.float64)).all():
            raise ValueError(f"array {name!r} holds numbers that are not finite")
        *folders, last = name.split("/")
        inside: dict[str, Any] = fields
        for folder in folders:
            if inside.get(folder) is None:
                inside[folder] = {}
            inside = inside[folder]
        inside[last] = array
    return kind(**fields)
