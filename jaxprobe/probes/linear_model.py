"""A linear model of features: the result of most methods."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxprobe.probes.probe import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearModel:
    """Log-odds `x @ coef_D + intercept` of raw features.

    Attributes:
        coef_D: A weight per feature.
        intercept: Log-odds where all features are 0.
    """

    coef_D: Array
    intercept: Array

    def __call__(self, x_MD: Array) -> Array:
        """Log-odds of rows, in the precision of the weights."""
        coef_D = jnp.asarray(self.coef_D)
        return x_MD.astype(coef_D.dtype) @ coef_D + jnp.asarray(self.intercept)

    def after_scaling(self, mean_D: Array, scale_D: Array) -> "LinearModel":
        """The model of raw features x, where this one reads `(x - mean) / scale`."""
        coef_D = self.coef_D / scale_D
        return LinearModel(coef_D=coef_D, intercept=self.intercept - mean_D @ coef_D)

    def trimmed(self, num_rows: int, num_columns: int) -> "LinearModel":
        """The model without the padding of features."""
        del num_rows
        return dataclasses.replace(self, coef_D=self.coef_D[:num_columns])
