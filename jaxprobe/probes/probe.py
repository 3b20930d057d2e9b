"""What a probe is: pure functions of one split's padded arrays, and what many of them share.

A probe fits every candidate value of its hyperparameter in every fold; the mean validation AUROC chooses one;
a refit on all training rows is tested. `running.run` does that for any probe; a probe's module defines only how
its candidates are fitted and scored.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

ROWS_AT_ONCE = 256  # test rows scored at once

Array = jax.Array | np.ndarray  # a variable's last letters name its axes


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Certificate:
    """How close a fit is to its optimum; the results of `Probe.path` and `Probe.fit` have these fields.

    Attributes:
        residual: Estimated relative distance to the optimum; 0 where a fit is exact.
        converged: Whether that is close enough.
    """

    residual: Array
    converged: Array


class Certified(Protocol):
    """A candidate's fit: whatever the method needs, and its certificate."""

    @property
    def residual(self) -> Array:
        """As in `Certificate`."""
        ...

    @property
    def converged(self) -> Array:
        """As in `Certificate`."""
        ...


class Model(Protocol):
    """A fitted model of raw features; a pytree."""

    def __call__(self, x_MD: Array, /) -> Array:
        """Log-odds of class 1 [M]."""
        ...

    def after_scaling(self, mean_D: Array, scale_D: Array) -> "Model":
        """The model of features of which this one reads `(x - mean) / scale`."""
        ...

    def trimmed(self, num_rows: int, num_columns: int) -> "Model":
        """The model without the padding of training rows and of features; runs on the host."""
        ...


class Prepare(Protocol):
    """Computes what all folds share."""

    def __call__(self, x_ND: Array, weight_N: Array, seed: Array, /) -> Any:
        """Returns a pytree made from all training rows, validation rows included; weight 0 marks padding."""
        ...


class Path(Protocol):
    """Fits all candidates of one fold."""

    def __call__(
        self, prepared: Any, y_N: Array, weight_N: Array, value_H: Array, /
    ) -> tuple[Certified, Array]:
        """Fits one candidate per value on the rows of positive weight.

        Returns:
            The fits, with a leading axis H, and score_HN: each candidate's scores of all N rows (scores of
            rows that it was fitted on may be arbitrary).
        """
        ...


class Fit(Protocol):
    """Fits at the chosen value."""

    def __call__(
        self,
        prepared: Any,
        y_N: Array,
        weight_N: Array,
        value: Array,
        models_FH: Any,
        /,
    ) -> Certified:
        """Fits on all training rows; `models_FH` are the fits of all folds, as starting points."""
        ...


class Finish(Protocol):
    """Turns a fit into a model that scores raw features."""

    def __call__(self, prepared: Any, fit: Any, /) -> Model:
        """The model of a fit."""
        ...


class Values(Protocol):
    """Candidates of the hyperparameter."""

    def __call__(self, num_train: int, num_features: int, smallest_fold: int) -> np.ndarray:
        """Increasing numbers, on the host; `smallest_fold` is the fewest rows that a fold trains on."""
        ...


class Default(Protocol):
    """The hyperparameter where there are no folds."""

    def __call__(self, num_train: int, num_features: int) -> float:
        """The value; runs on the host."""
        ...


class LogOdds(Protocol):
    """Turns scores that only rank into log-odds."""

    def __call__(self, score_N: Array, y_N: Array, weight_N: Array, /) -> Array:
        """Calibrates on the rows that the candidate was fitted on (weight above 0); keeps the order."""
        ...


class Probe(NamedTuple):
    """A method, as functions that can be traced, vmapped and sharded.

    Attributes:
        prepare, path, fit, finish, values, default: See the protocols.
        larger_wins: Whether ties go to the larger candidate, not to the smaller.
        log_odds: For a `path` whose scores only rank; None where its scores are log-odds already.
        weighted: Whether it takes weights of training rows other than 0 and 1.
    """

    prepare: Prepare
    path: Path
    fit: Fit
    finish: Finish
    values: Values
    default: Default
    larger_wins: bool = False
    log_odds: LogOdds | None = None
    weighted: bool = True

    @property
    def on_host(self) -> bool:
        """Whether a library fits it on the host: false."""
        return False


def total_weight(weight_N: Array) -> jax.Array:
    """The sum of weights, to divide by: 1 where all are 0, as for padding or an absent class."""
    total = jnp.sum(weight_N)
    return jnp.where(total > 0, total, 1)


def exact(shape: tuple[int, ...], dtype: Any) -> Certificate:
    """A certificate of exact fits, or of methods without an optimum."""
    return Certificate(residual=jnp.zeros(shape, dtype), converged=jnp.ones(shape, bool))


def one_value(num_train: int, num_features: int, smallest_fold: int) -> np.ndarray:
    """`values` of probes without a hyperparameter."""
    del num_train, num_features, smallest_fold
    return np.zeros(1)


def no_value(num_train: int, num_features: int) -> float:
    """`default` of probes without a hyperparameter."""
    del num_train, num_features
    return 0.0


def map_rows(score: Callable, row_M: Array, count: Array | int, size: int = ROWS_AT_ONCE) -> Array:
    """`score` of the first `count` row numbers, `size` at a time; 0 for rows that no call reaches.

    The cost grows with `count`, not with the padding of the row numbers.

    Args:
        score: `row_B -> score_B`, perhaps with further axes, B = `size`.
        row_M: Row numbers.
        count: How many of them are wanted; may be traced.
        size: Rows of a call.
    """
    num_rows = row_M.shape[0]
    size = min(size, num_rows)
    row_M = jnp.pad(jnp.asarray(row_M), (0, -num_rows % size))

    def advance(i, score_M):
        row_B = jax.lax.dynamic_slice(row_M, (i * size,), (size,))
        return jax.lax.dynamic_update_slice_in_dim(score_M, score(row_B), i * size, axis=0)

    one = jax.eval_shape(score, row_M[:size])
    blank = jnp.zeros((row_M.shape[0], *one.shape[1:]), one.dtype)
    calls = (jnp.asarray(count).astype(jnp.int32) + size - 1) // size
    return jax.lax.fori_loop(0, calls, advance, blank)[:num_rows]
