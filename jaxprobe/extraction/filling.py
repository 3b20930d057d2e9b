"""Runs the model on what a store lacks, and writes it: segment by segment, batch by batch.

The order of rows depends only on the request and on what the store held before, so a killed run resumes where it
stopped.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging
from tqdm import tqdm

from jaxprobe import tokens
from jaxprobe.base import TokenBatch
from jaxprobe.extraction.fingerprint import ExtractModel
from jaxprobe.extraction.passes import MakeForward, check_finite, computed, rows_of
from jaxprobe.extraction.request import Request, Work
from jaxprobe.extraction.settings import Extract
from jaxprobe.store import Segment, StoreWriter, Tap

TokenIds = Mapping[int, np.ndarray]  # ids of each prompt, by its position in the request


def fill(
    writer: StoreWriter,
    request: Request,
    model: ExtractModel,
    *,
    settings: Extract,
    bos: str,
    make_forward: MakeForward,
) -> None:
    """Runs the model on what the store lacks, and writes it.

    Args:
        writer: The store's writer.
        request: Prompts and where to read them, under the names that the store uses.
        model: The model.
        settings: How prompts become batches.
        bos: Whether prompts begin with BOS, as in a config.
        make_forward: Makes the compiled pass of (model, sites, poolings).

    Raises:
        ValueError: Activations that are not finite.
    """
    work = request.missing(writer.store(settled=True))
    ids = _token_ids(request, work, model, settings, bos)
    logging.info("%d distinct prompts, %d to run", len(request.texts), len(ids))
    forwards, total = {}, _num_tokens(work, ids)
    with tqdm(total=total, unit="tok", unit_scale=True, desc="extract", disable=not total) as bar:
        while work:
            taps, members = work[0]
            plan = _batches([ids[index] for index in members.tolist()], model, settings)
            done = writer.begin(_segment(taps, plan, [request.hashes[index] for index in members]))
            if done is None:
                # Another set of datasets was unfinished: keep what it has and plan the rest again.
                work = request.missing(writer.store(settled=True))
                bar.reset(_num_tokens(work, ids))
                continue
            bar.total = (bar.total or 0) - sum(int(batch.length_B.sum()) for batch in plan[:done])
            if taps not in forwards:
                sites, poolings = {site for site, _ in taps}, {pooling for _, pooling in taps}
                forwards[taps] = make_forward(model, sorted(sites), tuple(sorted(poolings)))
            for batch, values in computed(forwards[taps], plan[done:]):
                rows = {tap: rows_of(batch, np.asarray(values[tap]), tap[1]) for tap in taps}
                check_finite(rows, batch, lambda n, at=members: request.texts[at[n]])
                writer.append(rows)
                bar.update(int(batch.length_B.sum()))
            writer.finish()
            work = work[1:]


def _token_ids(
    request: Request, work: Work, model: ExtractModel, settings: Extract, bos: str
) -> TokenIds:
    """Token ids of every prompt that some segment runs."""
    pending = sorted({index for _, members in work for index in members.tolist()})
    if not pending:
        return {}
    texts = [request.texts[index] for index in pending]
    found = tokens.token_ids(model.tokenizer, texts, settings.max_length, bos)
    return dict(zip(pending, found, strict=True))


def _num_tokens(work: Work, ids: TokenIds) -> int:
    return sum(len(ids[index]) for _, members in work for index in members.tolist())


def _batches(ids: Sequence[np.ndarray], model: ExtractModel, settings: Extract) -> list[TokenBatch]:
    """A segment's prompts in buckets by length."""
    return list(
        tokens.batches(
            ids,
            buckets=settings.buckets,
            batch_tokens=settings.batch_tokens,
            pad_id=model.tokenizer.pad_id,
        )
    )


def _segment(taps: tuple[Tap, ...], plan: Sequence[TokenBatch], hashes: list[bytes]) -> Segment:
    """The plan of a segment, written before its rows: their prompts, tokens and batches."""
    real = [batch.prompt_B >= 0 for batch in plan]
    chosen = list(zip(plan, real, strict=True))
    order_N = np.concatenate([batch.prompt_B[real_B] for batch, real_B in chosen])
    length_N = np.concatenate([batch.length_B[real_B] for batch, real_B in chosen])
    sha256_N = np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), 32)
    counts = [int(real_B.sum()) for real_B in real]
    return Segment(
        taps=taps,
        sha256_N=sha256_N[order_N],
        tokens_N=(length_N - 1).astype(np.int32),
        batch_N=np.repeat(np.arange(len(plan), dtype=np.int32), counts),
    )
