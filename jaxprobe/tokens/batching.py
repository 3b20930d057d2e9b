"""Token ids to batches of few fixed shapes."""

from collections.abc import Iterator, Sequence

import numpy as np

from jaxprobe import checks
from jaxprobe.base import TokenBatch

# Each size is a fifth to a half above the one before: padding is a seventh of all tokens on the 113
# datasets, and each size in use costs one compiled program. Names and headlines have 5 to 15 tokens,
# hence the small sizes.
BUCKETS = (8, 12, 16, 24, 32, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512, 768, 1024)
# Enough rows for efficient matrix products, few enough that a pass needs little memory (27 MB): above
# 32 MB memory is mapped anew for every batch, which costs a tenth of the time on a CPU.
BATCH_TOKENS = 1024


def batches(
    ids: Sequence[np.ndarray],
    *,
    buckets: Sequence[int] = BUCKETS,
    batch_tokens: int = BATCH_TOKENS,
    pad_id: int = 0,
) -> Iterator[TokenBatch]:
    """Sorts prompts by length into buckets and cuts each bucket into batches of one shape.

    A bucket of T tokens has `max(1, batch_tokens // T)` rows of T tokens, so there are at most as
    many shapes as buckets. Prompts that would leave a batch part-filled move up to the next bucket
    where that is cheaper; the last batch is filled with empty rows. The order depends only on the
    lengths and positions of the ids: shortest prompts first.

    Args:
        ids: N arrays of at least one id each, BOS first.
        buckets: Row lengths. Those beyond the last one needed are not used.
        batch_tokens: Tokens of a batch, padding included.
        pad_id: What fills the rows.

    Yields:
        Batches whose `prompt_B` indexes `ids`.

    Raises:
        ValueError: A prompt is empty or longer than the largest bucket.
    """
    checks.check_positive("batch_tokens", batch_tokens)
    sizes = np.unique(np.asarray(buckets, np.int64))
    length_N = np.array([len(row) for row in ids], np.int64)
    if not len(length_N):
        return
    if length_N.min() < 1:
        raise ValueError(
            f"each of `ids` must hold at least one id, got none at index {int(length_N.argmin())}"
        )
    if length_N.max() > sizes[-1]:
        raise ValueError(
            f"prompt {int(length_N.argmax())} has {length_N.max()} tokens, the largest bucket"
            f" {sizes[-1]}; truncate with `token_ids` or add a bucket"
        )
    for num_tokens, num_rows, members in _fill_buckets(length_N, sizes, batch_tokens):
        for start in range(0, len(members), num_rows):
            yield _batch(ids, members[start : start + num_rows], num_rows, num_tokens, pad_id)


def _fill_buckets(length_N, sizes, batch_tokens: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yields (tokens of a row, rows of a batch, prompts) for every bucket in use."""
    order_N = np.argsort(length_N, kind="stable")
    bucket_N = np.searchsorted(sizes, length_N[order_N])
    used = np.unique(bucket_N).tolist()
    carried = order_N[:0]
    for bucket, above in zip(used, [*used[1:], None], strict=True):
        members = np.concatenate([carried, order_N[bucket_N == bucket]])
        num_tokens = int(sizes[bucket])
        num_rows = max(1, batch_tokens // num_tokens)
        rest = len(members) % num_rows
        moves_up = above is not None and rest * sizes[above] <= num_rows * num_tokens
        members, carried = np.split(members, [len(members) - (rest if moves_up else 0)])
        yield num_tokens, num_rows, members


def _batch(ids, members, num_rows: int, num_tokens: int, pad_id: int) -> TokenBatch:
    tokens_BT = np.full((num_rows, num_tokens), pad_id, np.int32)
    length_B = np.zeros(num_rows, np.int32)
    prompt_B = np.full(num_rows, -1, np.int64)
    for row, prompt in enumerate(members):
        tokens_BT[row, : len(ids[prompt])] = ids[prompt]
        length_B[row] = len(ids[prompt])
        prompt_B[row] = prompt
    return TokenBatch(tokens_BT=tokens_BT, length_B=length_B, prompt_B=prompt_B)
