"""Ranking an SAE's latents for many splits at once, one block of latents at a time.

The ranking is defined in float64 (`score`), with ties going to the lower latent number. It is computed without
a dense [N, d_sae] array: for each block of latents, a few float32 products give every split an upper bound on
every score, and only latents whose bound beats the split's K-th best so far are scored in float64. The bound
includes rounding errors, so no latent is missed.

Axes: P splits, T sets of training rows, R rows of both stacked, C candidates to be kept.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprobe import arguments, checks

RANKINGS = ("normalised", "raw")
BLOCK_BYTES = 100 << 20  # of one block of latents: 4,096 latents at 5,000 rows
SCORED_AT_ONCE = 512  # columns scored in float64 at once: 20 MB at 5,000 rows
PAD_SPLITS = 8
_ROUNDING = 2.0**-23  # twice float32's unit roundoff, as a margin for the bound's own arithmetic


class Weights(NamedTuple):
    """Which of N rows each of P splits trains on. Splits with the same training rows share one of T sets.

    Attributes:
        pos_PN: How often each row is a positive training row of a split: 0 or 1, unless a split
            repeats rows.
        train_TN: How often each row is in a set of training rows.
        set_P: The set of each split.
        num_pos_P, num_neg_P: Training rows of each class.
    """

    pos_PN: np.ndarray
    train_TN: np.ndarray
    set_P: np.ndarray
    num_pos_P: np.ndarray
    num_neg_P: np.ndarray


def class_weights(num_rows: int, splits: Iterable[tuple[np.ndarray, np.ndarray]]) -> Weights:
    """Class weights of training rows.

    Args:
        num_rows: N, the dataset's rows.
        splits: Training row numbers and their labels, per split: 0 and 1, booleans, or two others,
            see `arguments.labels`.

    Raises:
        ValueError: Not a list of pairs, rows that the dataset does not have, not one label per row, or
            a split with one class only, which has no difference of class means.
    """
    num_rows = arguments.whole("num_rows", num_rows, 1)
    splits = _pairs(splits)
    pos_PN = np.zeros((len(splits), num_rows), np.float32)
    train_TN, set_P, known = [], [], {}
    for p, (rows, y_N) in enumerate(splits):
        rows = arguments.positions("train_N", rows, num_rows, "they number rows of the dataset")
        y_N = arguments.labels("y_train_N", y_N, both=True).y_N
        checks.check_same_length("train_N", rows, "y_train_N", y_N)
        pos_PN[p] = np.bincount(rows[y_N == 1], minlength=num_rows)
        train_N = np.bincount(rows, minlength=num_rows).astype(np.float32)
        set_P.append(known.setdefault(train_N.tobytes(), len(known)))
        if len(train_TN) < len(known):
            train_TN.append(train_N)
    train_TN = np.array(train_TN, np.float32).reshape(len(known), num_rows)
    set_P = np.array(set_P, np.int32)
    num_pos_P = pos_PN.sum(axis=1, dtype=np.float64)
    num_neg_P = train_TN.sum(axis=1, dtype=np.float64)[set_P] - num_pos_P
    return Weights(pos_PN, train_TN, set_P, num_pos_P, num_neg_P)


def _pairs(splits) -> list[tuple]:
    """A list of (rows, labels), from any iterable."""
    found = list(splits) if isinstance(splits, Iterable) else None
    if not found:
        got = "none" if found == [] else f"{type(splits).__name__}"
        raise ValueError(f"`splits` must be a list of pairs (train_N, y_train_N), got {got}")
    for pair in found:
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not np.ndim(pair[0]):
            raise ValueError(
                f"`splits` must hold pairs (train_N, y_train_N), got {type(pair).__name__} of shape"
                f" {np.shape(pair)}; write [(train_N, y_train_N)] for one split"
            )
    return found


def score(z_NS: np.ndarray, weights: Weights, ranking: str = "normalised") -> np.ndarray:
    """How far apart the classes' mean latents are: `|mean over pos - mean over neg|`.

    In float64, in which sums of float32 latents, times a class's size, are exact as long as a latent's
    values span a ratio of no more than some 2^10 to 2^20; so scores that are mathematically equal are
    equal, in whatever order rows are summed.

    Args:
        z_NS: float32 latents of all rows.
        weights: Splits to score for.
        ranking: `raw`, or `normalised`: divided by the mean of the latent's nonzero absolute
            values over the training rows, `sum|z| / (count + 1e-6) + 1e-6`.

    Returns:
        float64 score_PS, non-negative.

    References:
        Kantamneni et al., arXiv 2502.16681; normalisation as in sae-probes 0.4.2.
    """
    checks.check_choice("ranking", ranking, RANKINGS)
    z_NS = np.asarray(z_NS, np.float64)
    sum_RS = np.concatenate([weights.pos_PN, weights.train_TN]).astype(np.float64) @ z_NS
    pos_PS, sum_TS = np.split(sum_RS, [len(weights.pos_PN)])
    neg_PS = sum_TS[weights.set_P] - pos_PS
    # Over a common denominator: 2/3 - 1/3 and 1/3 - 0 must tie, but rounded separately they do not.
    pos_1, neg_1 = weights.num_pos_P[:, None], weights.num_neg_P[:, None]
    gap_PS = np.abs(pos_PS * neg_1 - neg_PS * pos_1) / (pos_1 * neg_1)
    if ranking == "raw":
        return gap_PS
    train_TN = weights.train_TN.astype(np.float64)
    size_TS = train_TN @ np.abs(z_NS) if z_NS.min(initial=0) < 0 else sum_TS
    norm_TS = size_TS / (train_TN @ (z_NS != 0) + 1e-6) + 1e-6
    return gap_PS / norm_TS[weights.set_P]


class Top(NamedTuple):
    """The best latents of each split, best first, ties by index.

    Attributes:
        score_PK: float64, see `score`.
        index_PK: int32 latent numbers.
        fires_TS: Whether each latent is nonzero on any row of a training set, see `Weights`.
    """

    score_PK: np.ndarray
    index_PK: np.ndarray
    fires_TS: np.ndarray


def top_latents(
    encode_block: Callable[[int, int], jax.Array],
    d_sae: int,
    weights: Weights,
    num_latents: int,
    ranking: str = "normalised",
    block: int | None = None,
) -> Top:
    """Ranks all latents for all splits in one pass over blocks of latents.

    Args:
        encode_block: `(start, stop) -> z_NB`, the latents of all rows in that range, finite.
        d_sae: Number of latents.
        weights: Splits to rank for.
        num_latents: How many to keep; all where the SAE has fewer.
        ranking: See `score`.
        block: Latents encoded at once; by default as many as fit `BLOCK_BYTES`.

    Returns:
        The same as `score` of the whole z_NS followed by a stable sort.

    Raises:
        ValueError: Latents whose shape does not fit the weights' rows and the range, values that are
            not real or not finite, no split, or a number below one.

    Example:
        >>> import numpy as np
        >>> import jaxprobe as jp
        >>> z = np.array([[0, 1, 5], [0, 2, 5], [3, 1, 5], [4, 2, 5]], np.float32)
        >>> weights = jp.class_weights(4, [(np.arange(4), np.array([0, 0, 1, 1]))])
        >>> top = jp.top_latents(lambda start, stop: z[:, start:stop], 3, weights, 2, "raw")
        >>> top.index_PK.tolist(), top.score_PK.tolist()
        ([[0, 1]], [[3.5, 0.0]])
    """
    checks.check_choice("ranking", ranking, RANKINGS)
    if not isinstance(weights, Weights):
        raise ValueError(f"`weights` must come from class_weights, got {type(weights).__name__}")
    if not callable(encode_block):
        raise ValueError(
            "`encode_block` must be a function (start, stop) -> latents of all rows in that range, got"
            f" {type(encode_block).__name__}; write `lambda start, stop: z_NS[:, start:stop]`"
        )
    if not len(weights.pos_PN):
        raise ValueError("`weights` must cover at least one split, got none")
    num_rows, d_sae = weights.pos_PN.shape[1], arguments.whole("d_sae", d_sae, 1)
    block = block_size(num_rows) if block is None else arguments.whole("block", block, 1)
    num_latents = min(arguments.whole("num_latents", num_latents, 1), d_sae)
    best = _Best(weights, num_latents, ranking)
    on_device = _DeviceWeights.of(weights)
    fires_TS = np.zeros((len(weights.train_TN), d_sae), bool)
    ahead = None
    for start in range(0, d_sae, block):
        stop = min(start + block, d_sae)
        z_NB = _block(encode_block(start, stop))
        checks.check_shape("encode_block(start, stop)", z_NB, (num_rows, stop - start))
        floor_P = _padded(best.floor(), np.inf)
        bound = _bound(z_NB, on_device, floor_P, ranking=ranking)
        # The device works on this block while the host scores the previous one.
        if ahead is not None:
            best.absorb(*ahead, fires_TS)
        ahead = start, z_NB, bound
    if ahead is not None:
        best.absorb(*ahead, fires_TS)
    return Top(np.stack(best.score), np.stack(best.index), fires_TS)


def _block(z_NB) -> jax.Array:
    """Latents as real numbers; JAX arrays stay on their device."""
    if isinstance(z_NB, jax.Array) and jnp.issubdtype(z_NB.dtype, jnp.floating):
        return z_NB
    return jnp.asarray(arguments.real("encode_block(start, stop)", z_NB))


def block_size(num_rows: int) -> int:
    """How many latents of `num_rows` rows fit `BLOCK_BYTES`: a power of two, so that few programs compile."""
    fitting = max(1, BLOCK_BYTES // (4 * max(1, num_rows)))
    return min(1 << 14, max(128, 1 << (fitting.bit_length() - 1)))


class _Best:
    """The best latents so far."""

    def __init__(self, weights: Weights, num_latents: int, ranking: str):
        self.weights, self.num_latents, self.ranking = weights, num_latents, ranking
        self.score = [np.zeros(0) for _ in weights.pos_PN]
        self.index = [np.zeros(0, np.int32) for _ in weights.pos_PN]

    def floor(self) -> np.ndarray:
        """float32, at most the score that a latent must beat, per split."""
        floor_P = np.array([self._floor(p) for p in range(len(self.score))], np.float64)
        with np.errstate(over="ignore"):
            low_P = floor_P.astype(np.float32)
        return np.where(low_P > floor_P, np.nextafter(low_P, np.float32(-np.inf)), low_P)

    def _floor(self, p: int) -> float:
        return self.score[p][-1] if len(self.score[p]) == self.num_latents else -np.inf

    def absorb(self, start: int, z_NB: jax.Array, bound, fires_TS: np.ndarray) -> None:
        """Scores the latents of a block that may be among the best, and keeps the ones that are."""
        hopeful_B, fires_TB, finite = (np.asarray(part) for part in bound)
        if not finite:
            name = f"encode_block({start}, {start + z_NB.shape[1]})"
            checks.check_finite(name, np.asarray(z_NB), "an index is (row, latent of the block)")
        fires_TS[:, start : start + fires_TB.shape[1]] = fires_TB[: len(fires_TS)]
        column_U = np.flatnonzero(hopeful_B)
        if not len(column_U):
            return
        dense_NB = np.asarray(z_NB)
        for part in _chunks(column_U):
            score_PU = score(dense_NB[:, part], self.weights, self.ranking)
            index_U = (start + part).astype(np.int32)
            for p, score_U in enumerate(score_PU):
                self._keep(p, score_U, index_U)

    def _keep(self, p: int, score_U: np.ndarray, index_U: np.ndarray) -> None:
        # Latents come in increasing order, so one that only equals the last of the best loses the tie.
        better_U = score_U > self._floor(p)
        if not better_U.any():
            return
        score_C = np.concatenate([self.score[p], score_U[better_U]])
        index_C = np.concatenate([self.index[p], index_U[better_U]])
        order_K = np.argsort(-score_C, kind="stable")[: self.num_latents]
        self.score[p], self.index[p] = score_C[order_K], index_C[order_K]


class _DeviceWeights(NamedTuple):
    """`Weights` as one matrix per matrix product."""

    sum_RN: jax.Array  # rows of pos_PN, then of train_TN
    train_TN: jax.Array  # for counting
    set_P: jax.Array
    num_pos_P: jax.Array
    num_neg_P: jax.Array

    @classmethod
    def of(cls, weights: Weights) -> "_DeviceWeights":
        # bfloat16 holds integers up to 256 exactly, and their products are summed exactly in float32.
        exact = weights.train_TN.max(initial=0) <= 256
        pos_PN, train_TN = _padded(weights.pos_PN), _padded(weights.train_TN)
        return cls(
            sum_RN=jnp.asarray(np.concatenate([pos_PN, train_TN])),
            train_TN=jnp.asarray(train_TN, jnp.bfloat16 if exact else jnp.float32),
            set_P=jnp.asarray(_padded(weights.set_P)),
            num_pos_P=jnp.asarray(_padded(weights.num_pos_P, 1), jnp.float32),
            num_neg_P=jnp.asarray(_padded(weights.num_neg_P, 1), jnp.float32),
        )


@functools.partial(jax.jit, static_argnames=("ranking",))
def _bound(z_NB, weights: _DeviceWeights, floor_P, *, ranking: str):
    """Which latents of a block may be among the best, on which sets each fires, whether all are finite."""
    z_NB = z_NB.astype(jnp.float32)
    product = functools.partial(
        jnp.matmul, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32
    )
    sum_RB = product(weights.sum_RN, z_NB)
    count_TB = product(weights.train_TN, (z_NB != 0).astype(weights.train_TN.dtype))
    pos_PB, sum_TB = jnp.split(sum_RB, [weights.set_P.shape[0]])
    size_TB = jax.lax.cond(
        jnp.any(z_NB < 0),
        lambda: product(weights.train_TN.astype(jnp.float32), jnp.abs(z_NB)),
        lambda: sum_TB,
    )
    # A sum of n float32 terms is off by at most n roundings of the sum of their magnitudes; zeros add none.
    off_TB = (count_TB + 8) * _ROUNDING
    size_PB, off_PB = size_TB[weights.set_P], off_TB[weights.set_P]
    pos_1, neg_1 = weights.num_pos_P[:, None], weights.num_neg_P[:, None]
    gap_PB = jnp.abs(pos_PB / pos_1 - (sum_TB[weights.set_P] - pos_PB) / neg_1)
    most_PB = gap_PB + off_PB * (size_PB / pos_1 + 2 * size_PB / neg_1)
    if ranking == "normalised":
        norm_TB = size_TB / (count_TB + 1e-6) + 1e-6
        most_PB = most_PB / norm_TB[weights.set_P]
    most_PB = most_PB * (1 + 2 * off_PB)
    finite = jnp.all(jnp.isfinite(z_NB))
    return jnp.any(most_PB > floor_P[:, None], axis=0), count_TB > 0, finite


def _padded(array: np.ndarray, value: float = 0) -> np.ndarray:
    """The array padded to a multiple of `PAD_SPLITS`, so that not every number of splits compiles anew."""
    width = [(0, -len(array) % PAD_SPLITS), *((0, 0) for _ in array.shape[1:])]
    return np.pad(array, width, constant_values=value)


def _chunks(column_U: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(column_U), SCORED_AT_ONCE):
        yield column_U[start : start + SCORED_AT_ONCE]
