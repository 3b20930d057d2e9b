"""Writing activations so that a run killed at any moment resumes and ends with the same bytes.

Rows are gathered into shards and each full shard is written once, with a few writes in flight. Now and then the
part-filled shards are written too. Once every write up to that point is durable, first the segment's checksums
and then progress.json are replaced: only then are those batches committed. A resumed run reads the part-filled
shards back and writes what follows, so each file's last write always holds the same rows.
"""

import collections
import contextlib
import time
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Self

import numpy as np
import tensorstore as ts

from jaxprobe import stopping
from jaxprobe.base import POOLINGS
from jaxprobe.checks import check_shape
from jaxprobe.place import Place
from jaxprobe.store import arrays, checksums, layout
from jaxprobe.store.layout import Progress, Segment, StoreError, Tap
from jaxprobe.store.reading import ActivationStore

WRITES_IN_FLIGHT = 6
COMMIT_SECONDS = 10.0  # what a killed run loses, at most, of a slow model's work


class StoreWriter:
    """The one process that may write to a store; a context manager.

    Use: `begin` a segment, `append` its batches in order, `finish`; then the next segment.
    """

    def __init__(self, root: Place | PathLike | str, fingerprint: Mapping):
        """Takes the store's place; entering the context creates or opens the store.

        Args:
            root: The store's place.
            fingerprint: Everything that changes the numbers, as JSON values. Must hold `d_model` and
                `token_dtype`; `widths` gives the width of streams where it is not `d_model`.
        """
        self.root, self.fingerprint = Place.parse(root), fingerprint
        self._progress = Progress()
        self._shards: dict[Tap, _Shard] = {}
        self._sums: dict[Tap, np.ndarray] = {}  # checksums of the last segment's rows known so far
        self._writes: collections.deque[ts.WriteFutures] = collections.deque()
        self._appended = 0  # batches of the last segment appended, including committed ones
        self._committing: tuple[list[ts.WriteFutures], int] | None = None
        self._committed_at = time.monotonic()
        self._broken = False  # a write was lost: nothing after it may count
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Takes the lock and opens the store, or creates an empty one.

        Raises:
            StoreError: Another process is writing to it, its fingerprint differs, or it cannot be
                written.
        """
        with self._told():
            self._lock()
            try:
                if not (self.root / layout.MANIFEST).exists():
                    layout.write_manifest(self.root, self.fingerprint)
                layout.check_fingerprint(self.root, self.fingerprint)
                self.fingerprint = layout.read_manifest(self.root)  # with its own `RECORDED_ONLY`
                self._progress = layout.read_progress(self.root)
                self._sweep()
                layout.renew(self.root, self._progress)
            except BaseException:
                self._exit.close()
                raise
        return self

    def __exit__(self, kind, error, trace) -> None:
        """Commits what was appended and releases the lock."""
        try:
            # After an error, the batches appended before it are still committed if possible.
            with contextlib.suppress(StoreError) if error else contextlib.nullcontext():
                self._commit(wait=True)
        finally:
            self._exit.close()

    def store(self, *, settled: bool = False) -> ActivationStore:
        """The store as durable now; with `settled`, without the unfinished segment."""
        progress = self._progress.settled() if settled else self._progress
        return ActivationStore(self.root, self.fingerprint, progress)

    def begin(self, segment: Segment) -> int | None:
        """Starts writing a segment, or resumes it.

        Returns:
            The number of batches that are durable already, which the caller skips; None where another
            segment was unfinished. That one now ends at its last durable batch: plan again, given what
            the store holds.

        Raises:
            StoreError: The disk is full or the store cannot be written.
        """
        with self._told():
            if self._progress.unfinished:
                last, checked = self._progress.segments[-1], self._progress.checked[-1]
                if not (last.same_as(segment) and checked):
                    self._cut()
                    return None
            else:
                self._add(segment)
            done = self.store()
            for tap in {tap for part in self._progress.segments for tap in part.taps}:
                array = arrays.sized_array(
                    self.root, tap, _num_rows(self._progress.segments, tap), self.fingerprint
                )
                if tap in segment.taps:
                    num_rows = _num_rows(self._progress.durable(), tap)
                    self._shards[tap] = _Shard(array, num_rows, done, tap)
            self._sums = self._known_sums()
        self._appended = self._progress.committed[-1]
        self._committed_at = time.monotonic()
        return self._appended

    def append(self, rows: Mapping[Tap, np.ndarray]) -> None:
        """Takes the next batch of the segment; returns before it is durable.

        Args:
            rows: For each array of the segment, [n, its width] in the segment's order.

        Raises:
            ValueError: The number or width of the rows is not as planned.
            StoreError: The disk is full or the store cannot be written.
        """
        segment = self._progress.segments[-1]
        lo, hi = np.searchsorted(segment.batch_N, [self._appended, self._appended + 1])
        counts = dict.fromkeys(POOLINGS, int(hi - lo))
        counts["tokens"] = int(segment.tokens_N[lo:hi].sum())
        before = segment.first(self._appended)
        for tap in segment.taps:
            wanted = (counts[tap[1]], layout.width_of(tap, self.fingerprint))
            check_shape(f"rows of {layout.tap_name(tap)}", rows[tap], wanted)
        with self._told():
            for tap in segment.taps:
                stored_ND = self._shards[tap].stored(rows[tap])
                self._writes.extend(self._shards[tap].append(stored_ND))
                start = before.num_rows(tap[1])
                end = start + len(stored_ND)
                self._sums[tap][start:end] = checksums.of_rows(stored_ND)
            self._appended += 1
            while len(self._writes) > WRITES_IN_FLIGHT:
                self._writes.popleft().result()
        self._commit(wait=False)

    def finish(self) -> None:
        """Makes the whole segment durable.

        Raises:
            ValueError: Not all of its batches were appended.
            StoreError: The disk is full or the store cannot be written.
        """
        wanted = self._progress.segments[-1].num_batches
        if self._appended != wanted:
            raise ValueError(f"the segment has {wanted} batches, `append` got {self._appended}")
        self._commit(wait=True)
        self._shards.clear()

    def _commit(self, *, wait: bool) -> None:
        """Starts a commit when one is due; completes a started one when its writes are durable."""
        if self._broken:
            return
        with self._told():
            self._settle(wait)
            due = time.monotonic() - self._committed_at >= COMMIT_SECONDS
            behind = self._progress.segments and self._appended > self._progress.committed[-1]
            if self._committing is None and behind and self._shards and (due or wait):
                self._writes.extend(f for shard in self._shards.values() for f in shard.flush())
                self._committing = (list(self._writes), self._appended)
                self._committed_at = time.monotonic()
                self._settle(wait)

    def _settle(self, wait: bool) -> None:
        if self._committing is None:
            return
        writes, batches = self._committing
        if not wait and not all(write.done() for write in writes):
            return
        for write in writes:
            write.result()
        # From here on the rows are on disk, so checksums and progress may count them.
        segment, index = self._progress.segments[-1], len(self._progress.segments) - 1
        ended = segment.first(batches)
        sums = {tap: self._sums[tap][: ended.num_rows(tap[1])] for tap in segment.taps}
        checksums.write(self.root, index, layout.digest(self.fingerprint), sums)
        self._replace(self._progress.part(index).plus(segment, batches))
        self._committing = None

    def _replace(self, progress: Progress) -> None:
        layout.write_progress(self.root, progress)
        self._progress = progress

    def _add(self, segment: Segment) -> None:
        layout.segment_path(self.root, len(self._progress.segments)).replace(segment.encode())
        self._replace(self._progress.plus(segment, 0))

    def _known_sums(self) -> dict[Tap, np.ndarray]:
        """Arrays for the checksums of the last segment's rows, filled with those of durable rows."""
        segment, index = self._progress.segments[-1], len(self._progress.segments) - 1
        sums = {tap: np.zeros(segment.num_rows(tap[1]), np.uint32) for tap in segment.taps}
        durable = segment.first(self._progress.committed[-1])
        if self._progress.committed[-1]:
            counts = {tap: durable.num_rows(tap[1]) for tap in segment.taps}
            known = checksums.read(self.root, index, layout.digests(self.fingerprint), counts)
            for tap, sum_N in known.items():
                sums[tap][: len(sum_N)] = sum_N
        return sums

    def _cut(self) -> None:
        """Ends the unfinished segment at its last durable batch."""
        last, count = self._progress.segments[-1], self._progress.committed[-1]
        kept, checked = self._progress.settled(), self._progress.checked[-1]
        self._replace(kept.plus(last.first(count), count, checked=checked) if count else kept)
        self._sweep()

    def _sweep(self) -> None:
        """Removes what a killed run left behind and what progress.json no longer names.

        Each file by its own name, never by listing a folder: it may hold other people's files. A segment is
        written before progress.json names it, and its name is removed before its files, one segment at a
        time; so only files of the segment after the last one can be left over.
        """
        planned = self._progress.segments
        layout.segment_path(self.root, len(planned)).delete()
        checksums.path_of(self.root, len(planned)).delete()
        for index, segment in enumerate(planned):
            if not self._progress.committed[index]:
                # No checksum is valid before the first commit: the file may belong to another plan.
                checksums.path_of(self.root, index).delete()
            path, content = layout.segment_path(self.root, index), segment.encode()
            if path.read() != content:  # cut, or of format 1
                path.replace(content)
        arrays.sweep(self.root, {tap for segment in planned for tap in segment.taps})

    def _lock(self) -> None:
        try:
            self._exit.enter_context((self.root / layout.LOCK).locked())
        except BlockingIOError as error:
            whose = "" if self.root.local else f" ({error})"
            raise StoreError(
                f"another process is writing to {self.root}{whose}; wait for it to end, or use another"
                " work directory"
            ) from error

    @contextlib.contextmanager
    def _told(self):
        """Turns an error of the disk into one that says what is safe and what to do.

        A stop signal waits until the block has ended: otherwise its writes would count as lost.
        """
        with stopping.held():
            try:
                yield
            except BaseException as error:
                self._broken = True
                if not isinstance(error, OSError) and not _from_tensorstore(error):
                    raise
                raise StoreError(
                    f"cannot write to {self.root} ({error}); what was committed is safe: free space or"
                    " allow writing, then run the same command again to go on"
                ) from error


class _Shard:
    """The last, part-filled file of one array.

    Attributes:
        array: The whole array.
        start: Its row at which the file begins.
        filled: Rows of the file that are known.
    """

    def __init__(self, array: ts.TensorStore, num_rows: int, done: ActivationStore, tap: Tap):
        """Reads back the durable rows of the file in which the first `num_rows` rows end."""
        self.array, self._rows = array, arrays.shard_rows(array)
        self.start = num_rows - num_rows % self._rows
        self.filled = num_rows - self.start
        self._buffer = self._empty()
        if self.filled:
            self._buffer[: self.filled] = done.read_rows(tap, slice(self.start, num_rows))
        self._flushed: ts.WriteFutures | None = None
        self._dirty = False

    def stored(self, x_ND: np.ndarray) -> np.ndarray:
        """Rows in the array's number format."""
        return np.asarray(x_ND).astype(self.array.dtype.numpy_dtype, copy=False)

    def append(self, x_ND: np.ndarray) -> list[ts.WriteFutures]:
        """Adds rows; returns the writes of the files that they filled."""
        writes = []
        while len(x_ND):
            taken = min(self._rows - self.filled, len(x_ND))
            self._buffer[self.filled : self.filled + taken] = x_ND[:taken]
            self.filled, x_ND, self._dirty = self.filled + taken, x_ND[taken:], True
            if self.filled == self._rows:
                writes += self.flush()
                self.start, self.filled, self._buffer = self.start + self._rows, 0, self._empty()
                self._flushed = None
        return writes

    def flush(self) -> list[ts.WriteFutures]:
        """Writes the file's known rows, unless that write is already in flight."""
        if not self._dirty:
            return []
        if self._flushed is not None:
            self._flushed.result()  # a file's writes must happen in order
        known = self.array[self.start : self.start + self.filled]
        # Rows once written to the buffer never change, so no copy is needed.
        write = known.write(
            self._buffer[: self.filled], can_reference_source_data_indefinitely=True
        )
        self._flushed, self._dirty = write, False
        return [write]

    def _empty(self) -> np.ndarray:
        return np.empty((self._rows, self.array.shape[1]), self.array.dtype.numpy_dtype)


def _num_rows(segments: Sequence[Segment], tap: Tap) -> int:
    return sum(part.num_rows(tap[1]) for part in segments if tap in part.taps)


def _from_tensorstore(error: BaseException) -> bool:
    # TensorStore raises plain ValueErrors that open with a status name, `RESOURCE_EXHAUSTED: ...`.
    return isinstance(error, ValueError) and str(error).split(":")[0].replace("_", "").isupper()
