"""Batches through the model: a few are computed ahead of the reader; and which rows of each are kept.

Device, host and disk work at the same time: batches are computed while earlier ones are copied to the host and
still earlier ones are written.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxprobe.base import TokenBatch
from jaxprobe.sites import Site
from jaxprobe.store import Tap

BATCHES_IN_FLIGHT = 2  # computed ahead of the one that is being read

# (model, sites, poolings) -> (tokens_BT, length_B) -> values by site and pooling
MakeForward = Callable[[Any, Sequence[Site], Sequence[str]], Callable[..., Mapping[Tap, Any]]]


def computed(
    forward: Callable[..., Mapping[Tap, Any]], plan: Iterable[TokenBatch]
) -> Iterator[tuple[TokenBatch, Mapping[Tap, Any]]]:
    """Yields (batch, values) in order, with a few batches on the device ahead of them."""
    ahead: collections.deque[tuple] = collections.deque()
    for batch in plan:
        values = forward(batch.tokens_BT, batch.length_B)
        jax.tree_util.tree_map(_start_copy, values)
        ahead.append((batch, values))
        if len(ahead) > BATCHES_IN_FLIGHT:
            yield ahead.popleft()
    yield from ahead


def _start_copy(array) -> None:
    if isinstance(array, jax.Array):
        array.copy_to_host_async()


def rows_of(batch: TokenBatch, values: np.ndarray, pooling: str) -> np.ndarray:
    """The rows to keep: [B, D] without filling rows, or [B, T, D] without BOS and padding."""
    if pooling != "tokens":
        return values[batch.prompt_B >= 0]
    position_T = np.arange(batch.tokens_BT.shape[1])
    return values[(position_T >= 1) & (position_T < batch.length_B[:, None])]


def check_finite(
    rows: Mapping[Tap, np.ndarray], batch: TokenBatch, text_of: Callable[[int], str]
) -> None:
    """Raises ValueError at the first prompt of a batch whose rows are not finite, with its text.

    Args:
        rows: What `rows_of` chose, by site and pooling.
        batch: The batch of these rows.
        text_of: The text of a prompt, given its number in the batch.
    """
    prompts = batch.prompt_B[batch.prompt_B >= 0]
    counts = batch.length_B[batch.prompt_B >= 0] - 1
    for (site, pooling), x_ND in rows.items():
        bad_N = ~np.isfinite(x_ND).all(axis=1)
        if bad_N.any():
            owners = np.repeat(prompts, counts) if pooling == "tokens" else prompts
            text = text_of(int(owners[bad_N][0]))
            raise ValueError(
                f"the activations at {site} of the prompt {text[:80]!r} ({len(text)} characters) are not"
                " finite; try dtype float32, or leave the prompt or its dataset out"
            )
