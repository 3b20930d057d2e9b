"""Datasets to activations: every distinct prompt is run once and stored at every site asked for.

Device, host and disk work at the same time: a few batches are computed ahead while earlier ones are copied
to the host and earlier ones still are written. The row order depends only on what was asked and what the store
held before, so a run that was killed goes on where it stood.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from absl import logging
from tqdm import tqdm

from jaxprobe import models, tokens
from jaxprobe.base import Site, TokenBatch
from jaxprobe.experiments.config import Common, Extract
from jaxprobe.jobs import Need
from jaxprobe.place import Place
from jaxprobe.sites import MODULE_OUT
from jaxprobe.store import ActivationStore, Segment, StoreWriter, Tap, is_store

BATCHES_IN_FLIGHT = 2  # computed ahead of the one that is being written
# Planned together: one dataset's rows lie near each other, few batches are part-filled.
SEGMENT_PROMPTS = 16384

Identify = Callable[[str, str], "Identity"]
MakeForward = Callable[[Any, Sequence[Site], Sequence[str]], Callable[..., Mapping[Tap, Any]]]


class Identity(Protocol):
    """What names a model's numbers, without its weights."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def dtype(self) -> str: ...  # noqa: D102
    @property
    def d_model(self) -> int: ...  # noqa: D102
    @property
    def widths(self) -> Mapping[str, int]: ...  # noqa: D102
    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    def stored(self, site: Site) -> Site: ...  # noqa: D102


class ExtractModel(Identity, Protocol):
    """What the stage needs of a model; `models.Model` has it."""

    @property
    def tokenizer(self) -> Any: ...  # noqa: D102


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """The distinct prompts of a run, and which of them each array wants.

    Attributes:
        texts: The prompts.
        hashes: Their SHA-256.
        wanted_N: Per site and pooling, which prompts are wanted there.
    """

    texts: tuple[str, ...]
    hashes: list[bytes]
    wanted_N: Mapping[Tap, np.ndarray]

    @classmethod
    def of(cls, needs: Iterable[Need]) -> "Request":
        """Distinct prompts in the order in which they are first needed."""
        position: dict[str, int] = {}
        hashes: list[bytes] = []
        members: dict[Tap, set[int]] = {}
        for need in needs:
            for text, sha256 in zip(need.texts, need.hashes, strict=True):
                if position.setdefault(text, len(position)) == len(hashes):
                    hashes.append(sha256)
            numbers = {position[text] for text in need.texts}
            for tap in need.taps:
                members.setdefault(tap, set()).update(numbers)
        if not members:
            raise ValueError("nothing is to be extracted: the job names no site or no dataset")
        wanted_N = {}
        for tap in sorted(members):
            wanted_N[tap] = np.zeros(len(position), bool)
            wanted_N[tap][list(members[tap])] = True
        return cls(texts=tuple(position), hashes=hashes, wanted_N=wanted_N)

    def stored(self, model: "Identity") -> "Request":
        """The request under the names that the model's activations are kept by."""
        named = {
            (model.stored(site) if site.stream in MODULE_OUT else site, pooling): wanted_N
            for (site, pooling), wanted_N in self.wanted_N.items()
        }
        return dataclasses.replace(self, wanted_N={tap: named[tap] for tap in sorted(named)})

    def missing(self, store: ActivationStore) -> list[tuple[tuple[Tap, ...], np.ndarray]]:
        """Work left: arrays and the positions of the prompts to run for them, as segments.

        The order must not depend on how much is done, or a resumed run would plan otherwise.
        """
        need_AN = np.stack(
            [wanted_N & ~store.holds(tap, self.hashes) for tap, wanted_N in self.wanted_N.items()]
        )
        taps = list(self.wanted_N)
        work = []
        for pattern_A in sorted({tuple(column) for column in np.unique(need_AN, axis=1).T}):
            chosen = tuple(tap for tap, needed in zip(taps, pattern_A, strict=True) if needed)
            members = np.flatnonzero((need_AN == np.array(pattern_A)[:, None]).all(axis=0))
            for start in range(0, len(members) if chosen else 0, SEGMENT_PROMPTS):
                work.append((chosen, members[start : start + SEGMENT_PROMPTS]))
        return work


def run(
    config: Common,
    request: Request,
    place: Place,
    *,
    shared: Place | None = None,
    model: ExtractModel | None = None,
    identify: Identify | None = models.identify,
    make_forward: MakeForward = models.make_forward,
) -> ActivationStore:
    """Brings the store to hold all that is needed, running only what it lacks.

    Args:
        config: The model and how it is run.
        request: Prompts and where to read them.
        place: Where the store lies.
        shared: Another store, which is taken as it is if it lacks nothing.
        model: A loaded model in place of `config.model`.
        identify: Tells the identity of (model, dtype) without loading weights, from the hash of the file
            that holds weights and tokenizer. With it, a finished store is recognised at once; without it,
            the model is loaded to compare.
        make_forward: Makes the compiled pass of (model, sites, poolings).

    Returns:
        The store.

    Raises:
        ValueError: No prompts, a site that the model lacks, or activations that are not finite.
        StoreError: The store was made with different settings, is in use, or cannot be written.
    """
    if model is None:
        for there in (*((shared,) if shared else ()), place):
            if identify is not None and is_store(there):
                known = identify(config.model, config.dtype)
                store = _finished(there, config, request.stored(known), known)
                if store is not None:
                    return store
        mesh = models.device_mesh(*config.extract.mesh)
        more = {} if mesh is None else {"mesh": mesh}
        model = models.load_model(config.model, config.dtype, **more)
    with StoreWriter(place, fingerprint(config, model)) as writer:
        _fill(writer, request.stored(model), config, model, make_forward)
        return writer.store()


def outstanding(request: Request, *places: Place) -> list[str]:
    """The prompts of a request that no place's store holds whole."""
    missing: set[int] | None = None
    for place in places:
        if is_store(place):
            work = request.missing(ActivationStore.open(place))
            here = {int(index) for _, members in work for index in members}
            missing = here if missing is None else missing & here
    left = range(len(request.texts)) if missing is None else sorted(missing)
    return [request.texts[index] for index in left]


def check_same_way(config: Common, place: Place, identify: Identify) -> None:
    """Raises StoreError where the place holds activations that were made with different settings."""
    if is_store(place):
        _same_way(place, config, identify(config.model, config.dtype))


def fingerprint(config: Common, model: ExtractModel) -> dict[str, Any]:
    """Everything that changes the numbers; the sites and poolings are the arrays' names."""
    by_files, tokenizer = model.tokenizer.bos_id, model.tokenizer.fingerprint
    opening = _opening(tokens.opening_id(model.tokenizer, config.bos), by_files)
    return _fingerprint(config, model) | opening | {"tokenizer": tokenizer}


def _opening(bos: int | str | None, by_files: int | None) -> dict[str, Any]:
    """The id that opens prompts, and the one of the files' own rule where that is another."""
    return {"bos": bos} | ({} if bos == by_files else {"bos_by_files": by_files})


def _fingerprint(config: Common, model: Identity) -> dict[str, Any]:
    settings: Extract = config.extract
    return {
        "model": model.name,
        "weights": model.fingerprint,
        "dtype": model.dtype,
        "d_model": model.d_model,
        "widths": dict(model.widths),  # of streams that are not d_model wide
        "max_length": settings.max_length,
        "truncation": "left, BOS kept",
        "last": "last real token",
        "tokens": "every real token but the first",
        "token_dtype": settings.token_dtype,
        # A compiled shape decides the order of its sums, and so the last bits.
        "buckets": sorted(settings.buckets),
        "batch_tokens": settings.batch_tokens,
        "device": jax.default_backend(),
    } | ({} if settings.mesh == (1, 1) else {"mesh": list(settings.mesh)})


def _finished(
    place: Place, config: Common, request: Request, identity: Identity
) -> ActivationStore | None:
    store = _same_way(place, config, identity)
    return None if request.missing(store) else store


def _same_way(place: Place, config: Common, identity: Identity) -> ActivationStore:
    """The store, if it was made as the config asks."""
    have = ActivationStore.open(place).fingerprint
    # The tokenizer lies in the file whose hash is compared; building it would take seconds.
    inside = _wanted_opening(have, config.bos) | {"tokenizer": have.get("tokenizer")}
    return ActivationStore.open(place, _fingerprint(config, identity) | inside)


def _wanted_opening(have: Mapping[str, Any], bos: str) -> dict[str, Any]:
    """`_opening` of a setting, as far as a store's own fingerprint tells."""
    by_files = have.get("bos_by_files", have.get("bos"))
    if bos == "auto":
        return _opening(by_files, by_files)
    if bos == "off":
        return _opening(None, by_files)
    known = by_files if by_files is not None else have.get("bos")
    return _opening("the token that bos=on puts in front" if known is None else known, by_files)


def _fill(
    writer: StoreWriter, request: Request, config: Common, model, make_forward: MakeForward
) -> None:
    work = request.missing(writer.store(settled=True))
    pending = np.unique(np.concatenate([members for _, members in work] or [[]])).astype(np.int64)
    logging.info("%d distinct prompts, %d to run", len(request.texts), len(pending))
    texts = [request.texts[index] for index in pending]
    token_ids = _token_ids(config, model, texts)
    ids = dict(zip(pending.tolist(), token_ids, strict=True))
    forwards = {}
    total = sum(len(ids[index]) for _, members in work for index in members.tolist())
    with tqdm(total=total, unit="tok", unit_scale=True, desc="extract", disable=not total) as bar:
        while work:
            taps, members = work[0]
            plan = list(
                tokens.batches(
                    [ids[index] for index in members.tolist()],
                    buckets=config.extract.buckets,
                    batch_tokens=config.extract.batch_tokens,
                    pad_id=model.tokenizer.pad_id,
                )
            )
            segment = _segment(taps, plan, [request.hashes[index] for index in members])
            done = writer.begin(segment)
            if done is None:
                # Another set of datasets was under way: keep what it has and plan the rest anew.
                work = request.missing(writer.store(settled=True))
                bar.reset(sum(len(ids[index]) for _, part in work for index in part.tolist()))
                continue
            bar.total = (bar.total or 0) - sum(int(batch.length_B.sum()) for batch in plan[:done])
            if taps not in forwards:
                forwards[taps] = make_forward(model, *_sites_and_poolings(taps))
            for batch, values in computed(forwards[taps], plan[done:]):
                rows = {tap: _rows(batch, np.asarray(values[tap]), tap[1]) for tap in taps}
                check_finite(rows, batch, lambda n, at=members: request.texts[at[n]])
                writer.append(rows)
                bar.update(int(batch.length_B.sum()))
            writer.finish()
            work = work[1:]


def _token_ids(config: Common, model: ExtractModel, texts: list[str]) -> list[np.ndarray]:
    if not texts:
        return []
    return tokens.token_ids(model.tokenizer, texts, config.extract.max_length, config.bos)


def _segment(taps: tuple[Tap, ...], plan: Sequence[TokenBatch], hashes: list[bytes]) -> Segment:
    real = [batch.prompt_B >= 0 for batch in plan]
    order_N = np.concatenate(
        [batch.prompt_B[chosen] for batch, chosen in zip(plan, real, strict=True)]
    )
    length_N = np.concatenate(
        [batch.length_B[chosen] for batch, chosen in zip(plan, real, strict=True)]
    )
    sha256_N = np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), 32)
    return Segment(
        taps=taps,
        sha256_N=sha256_N[order_N],
        tokens_N=(length_N - 1).astype(np.int32),
        batch_N=np.repeat(
            np.arange(len(plan), dtype=np.int32), [int(chosen.sum()) for chosen in real]
        ),
    )


def _sites_and_poolings(taps: Sequence[Tap]) -> tuple[list[Site], tuple[str, ...]]:
    return sorted({site for site, _ in taps}), tuple(sorted({pooling for _, pooling in taps}))


def computed(forward, plan: Sequence[TokenBatch] | Iterator[TokenBatch]) -> Iterator[tuple]:
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


def _rows(batch: TokenBatch, values: np.ndarray, pooling: str) -> np.ndarray:
    """The rows to store: [B, D] without filling rows, or [B, T, D] without BOS and padding."""
    if pooling != "tokens":
        return values[batch.prompt_B >= 0]
    position_T = np.arange(batch.tokens_BT.shape[1])
    return values[(position_T >= 1) & (position_T < batch.length_B[:, None])]


def check_finite(
    rows: Mapping[Tap, np.ndarray], batch: TokenBatch, text_of: Callable[[int], str]
) -> None:
    """Raises ValueError at the first prompt of a batch whose rows are not finite, with its text."""
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
