"""What surrounds an autoencoder: preprocessing of its input, and a path past the latents.

    x~ = norm(x) - shift        z = encode(core, x~)        y = decode(core, z) + x W_skip

A transcoder is an autoencoder whose decoder reconstructs another stream (a block's MLP output), so its
input and output widths may differ; probes read the latents of its encoder.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxprobe import checks
from jaxprobe.saes import linear
from jaxprobe.saes.described import Described

NORMALISATIONS = ("none", "constant_norm_rescale", "layer_norm")
LAYER_NORM_EPSILON = 1e-5


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FramedSae(Described):
    """An autoencoder and its frame.

    Attributes:
        core: The autoencoder.
        shift_D: What is subtracted after normalising, usually the decoder's bias; or None.
        W_skip_DE: The skip connection from inputs to outputs, used as `x W_skip`, or None.
        normalisation: One of `NORMALISATIONS`, applied to each row: `constant_norm_rescale` scales
            its norm to sqrt(d_model), `layer_norm` subtracts its mean and divides by its (unbiased)
            standard deviation.
        restores: Whether decoding undoes the normalisation (transcoders' does not).
    """

    core: Any
    shift_D: jax.Array | None = None
    W_skip_DE: jax.Array | None = None
    normalisation: str = dataclasses.field(default="none", metadata={"static": True})
    restores: bool = dataclasses.field(default=True, metadata={"static": True})

    @property
    def d_model(self) -> int:
        """Width of the activations that it reads."""
        return self.core.d_model

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.core.d_sae


def frame(core, *, shift_D=None, W_skip_DE=None, normalisation="none", restores=True):
    """`core` with a frame; `core` itself where there is nothing to add.

    Raises:
        ValueError: An unknown normalisation, or arrays that do not fit the core.
    """
    sae = FramedSae(
        core=core,
        shift_D=shift_D,
        W_skip_DE=W_skip_DE,
        normalisation=normalisation,
        restores=restores,
    )
    check_frame(sae)
    if shift_D is None and W_skip_DE is None and normalisation == "none":
        return core
    return sae


def check_frame(sae: FramedSae, hint: str = "") -> None:
    """Raises ValueError unless the frame fits its core."""
    checks.check_choice("normalisation", sae.normalisation, NORMALISATIONS)
    wanted = {
        "shift_D": (sae.core.d_model,),
        "W_skip_DE": (sae.core.d_model, sae.core.b_dec_D.shape[-1]),
    }
    for name, shape in wanted.items():
        array = getattr(sae, name)
        if array is None:
            continue
        checks.check_shape(name, array, shape, hint)
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"`{name}` must hold floating-point numbers, got {array.dtype}")
    if not isinstance(sae.restores, bool):
        raise ValueError(f"`restores` must be true or false, got {sae.restores!r}")


def enter(sae: FramedSae, x_ND: jax.Array) -> jax.Array:
    """The input of the core's encoder."""
    if sae.normalisation != "none":
        offset_N1, scale_N1 = _statistics(sae, x_ND)
        epsilon = LAYER_NORM_EPSILON if sae.normalisation == "layer_norm" else 0.0
        x_ND = (x_ND - offset_N1) / (scale_N1 + epsilon)
    if sae.shift_D is not None:
        x_ND = x_ND - linear.last_axis(sae.shift_D, x_ND.ndim)
    return x_ND


def leave(sae: FramedSae, y_NE: jax.Array, x_ND: jax.Array | None) -> jax.Array:
    """Reconstructions in the units of the model.

    Args:
        sae: The autoencoder.
        y_NE: What its core decoded.
        x_ND: The activations that were encoded.

    Raises:
        ValueError: `x_ND` is needed and missing.
    """
    restores = sae.restores and sae.normalisation != "none"
    if x_ND is None and (restores or sae.W_skip_DE is not None):
        raise ValueError(
            "decoding this SAE needs the activations that were encoded, as `x_ND`, for its"
            f" {'skip connection' if sae.W_skip_DE is not None else 'normalisation'}; got none"
        )
    if restores:
        offset_N1, scale_N1 = _statistics(sae, x_ND)
        y_NE = y_NE * scale_N1 + offset_N1
    if sae.W_skip_DE is not None:
        y_NE = y_NE + linear.product(x_ND, sae.W_skip_DE)
    return y_NE


def _statistics(sae: FramedSae, x_ND) -> tuple[jax.Array, jax.Array]:
    """Offset and scale of each row."""
    if sae.normalisation == "layer_norm":
        return x_ND.mean(axis=-1, keepdims=True), x_ND.std(axis=-1, keepdims=True, ddof=1)
    scale_N1 = jnp.linalg.norm(x_ND, axis=-1, keepdims=True) / x_ND.shape[-1] ** 0.5
    return jnp.zeros_like(scale_N1), scale_N1
