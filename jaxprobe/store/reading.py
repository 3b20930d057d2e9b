"""Reading activations: by prompt text, or by token."""

import functools
from collections.abc import Mapping, Sequence
from os import PathLike

import numpy as np
import tensorstore as ts
from absl import logging

from jaxprobe.base import Site
from jaxprobe.place import Place
from jaxprobe.store import arrays, checksums, layout
from jaxprobe.store.layout import Progress, Segment, StoreError, Tap


class ActivationStore:
    """The durable rows of a store, as of the time when this object was made.

    Content-addressed: prompts are known by the SHA-256 of their UTF-8 text, whichever datasets hold them.
    Reading takes no lock and sees only committed rows, even while another process extracts. Every row that is
    read is compared with the checksum that was computed when it was written.

    Attributes:
        root: The store's directory.
        fingerprint: Everything that changes the numbers, as the extract stage wrote it, and
            `layout.RECORDED_ONLY` of the machine that created the store.
    """

    def __init__(self, root: Place, fingerprint: Mapping, progress: Progress):
        """Wraps what `ActivationStore.open` reads."""
        self.root, self.fingerprint = root, fingerprint
        self._segments: tuple[Segment, ...] = progress.durable()
        self._checked = progress.checked

    @classmethod
    def open(
        cls, root: Place | PathLike | str, fingerprint: Mapping | None = None
    ) -> "ActivationStore":
        """Opens a store for reading.

        Args:
            root: The store's place, `WORKDIR/activations`.
            fingerprint: The fingerprint that the store must have, or None for any.

        Raises:
            StoreError: There is no store, it is damaged, or its fingerprint differs.
        """
        root = Place.parse(root)
        if fingerprint is not None:
            layout.check_fingerprint(root, fingerprint)
        store = cls(root, layout.read_manifest(root), layout.read_progress(root))
        if not all(store._checked):
            logging.log_first_n(
                logging.WARNING,
                "%s holds activations that an earlier version wrote without checksums of their rows:"
                " damage to them goes unnoticed; extract again in another work directory to have them",
                1,
                root,
            )
        return store

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the fingerprint, see `layout.digest`."""
        return layout.digest(self.fingerprint)

    @property
    def taps(self) -> tuple[Tap, ...]:
        """The store's arrays, as (site, pooling), sorted."""
        return tuple(sorted({tap for segment in self._segments for tap in segment.taps}))

    def prompt_hashes(self) -> list[str]:
        """Hex SHA-256 of each prompt of the store, in the order of their first rows."""
        return [key.hex() for key in self._prompts]

    def holds(self, tap: Tap, hashes: Sequence[bytes]) -> np.ndarray:
        """Bool [N]: which of these prompts (32-byte SHA-256) an array holds."""
        rows = self._rows(tap)
        return np.fromiter((key in rows for key in hashes), bool, len(hashes))

    def read(
        self,
        site: Site,
        texts: Sequence[str],
        pooling: str = "last",
        hashes: Sequence[bytes] | None = None,
    ) -> np.ndarray:
        """Activations of each prompt.

        Args:
            site: Where they were read in the model.
            texts: N prompts, in any order; repeats are allowed.
            pooling: `last`, `mean` or `max`: how a prompt's tokens became one row.
            hashes: The SHA-256 of each prompt, where it is known.

        Returns:
            float32 [N, width of the site], in the order of `texts`.

        Raises:
            StoreError: The store lacks some of the prompts; says how many and names the first.
        """
        return self._gather((site, pooling), self._found((site, pooling), texts, hashes))

    def num_tokens(self, site: Site) -> int:
        """Number of rows of the site's `tokens` array; 0 where it has none."""
        return sum(part.num_rows("tokens") for part in self._parts((site, "tokens")))

    def read_tokens(self, site: Site, rows: np.ndarray | slice) -> np.ndarray:
        """Activations of single tokens; BOS and padding have none.

        Contiguous rows are read fastest: a single row costs as much as its chunk of 128.

        Args:
            site: Where they were read in the model.
            rows: n row numbers in [0, num_tokens), in any order, or a slice of them.

        Returns:
            float32 [n, width of the site].

        Raises:
            IndexError: A row is outside the array.
        """
        num_tokens = self.num_tokens(site)
        if isinstance(rows, slice):
            start, stop, step = rows.indices(num_tokens)
            if step == 1:
                stop = max(start, stop)
                return self.read_rows((site, "tokens"), slice(start, stop)).astype(np.float32)
            rows = np.arange(start, stop, step)
        row_N = np.asarray(rows, np.int64)
        if len(row_N) and not (0 <= row_N.min() and row_N.max() < num_tokens):
            raise IndexError(
                f"`rows` must lie in [0, {num_tokens}), got {row_N.min()} to {row_N.max()}; has"
                f" {site} been extracted for tokens?"
            )
        return self._gather((site, "tokens"), row_N)

    def token_prompt(self, site: Site | None = None) -> np.ndarray:
        """Which prompt each token belongs to.

        Args:
            site: The site whose `tokens` array is meant; may be left out where only one site has one.

        Returns:
            int64 [num_tokens] positions in `prompt_hashes()`.

        Raises:
            StoreError: `site` is left out, and several sites hold tokens or none does.
        """
        sites = [site for site, pooling in self.taps if pooling == "tokens"]
        if site is None:
            if len(sites) != 1:
                known = ", ".join(map(str, sites)) or "none; extract with `token_sites`"
                raise StoreError(f"name the site whose tokens are meant; {self.root} has: {known}")
            site = sites[0]
        parts = self._parts((site, "tokens"))
        prompts = [self._prompts[key] for part in parts for key in _keys(part)]
        counts = [part.tokens_N for part in parts] or [np.zeros(0, np.int32)]
        return np.repeat(np.array(prompts, np.int64), np.concatenate(counts))

    def token_spans(
        self, site: Site, texts: Sequence[str], hashes: Sequence[bytes] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rows of each prompt's tokens in the site's `tokens` array.

        Args:
            site: The site.
            texts: N prompts, in any order; repeats are allowed.
            hashes: The SHA-256 of each prompt, where it is known.

        Returns:
            int64 start_N and count_N: prompt n has the rows start_N[n] to start_N[n] + count_N[n] - 1.

        Raises:
            StoreError: The array lacks some of the prompts; says how many and names the first.
        """
        row_N = self._found((site, "tokens"), texts, hashes)
        counts = [part.tokens_N for part in self._parts((site, "tokens"))] or [row_N]
        count_P = np.concatenate(counts).astype(np.int64)
        end_P = np.cumsum(count_P)
        return (end_P - count_P)[row_N], count_P[row_N]

    def read_rows(self, tap: Tap, rows: slice | np.ndarray) -> np.ndarray:
        """Rows of an array as stored on disk, each compared with its checksum.

        Args:
            tap: The array.
            rows: A slice with start and stop, or increasing row numbers.

        Raises:
            StoreError: Rows are missing, damaged, or not the ones that were written there.
        """
        try:
            x_ND = self._array(tap)[rows].read().result()
        except (ValueError, IndexError, OSError) as error:
            raise StoreError(
                f"{layout.tap_name(tap)} of {self.root} cannot be read ({error}); {checksums.REMEDY}"
            ) from error
        wanted_N, known_N = self._sums(tap)
        different_N = (checksums.of_rows(x_ND) != wanted_N[rows]) & known_N[rows]
        if different_N.any():
            raise StoreError(
                f"{np.count_nonzero(different_N)} of {len(x_ND)} rows of {layout.tap_name(tap)} in"
                f" {self.root} are not the ones that were written (their checksums differ): a file was"
                f" damaged or replaced; {checksums.REMEDY}"
            )
        return x_ND

    def _sums(self, tap: Tap) -> tuple[np.ndarray, np.ndarray]:
        """The checksum of each row, and whether the row has one: rows of format 1 have none."""
        if tap not in self._sum_cache:
            sums, known = [np.zeros(0, np.uint32)], [np.zeros(0, bool)]
            for index, (part, checked) in enumerate(
                zip(self._segments, self._checked, strict=True)
            ):
                count = part.num_rows(tap[1]) if tap in part.taps else 0
                if count and checked:
                    stores = layout.digests(self.fingerprint)
                    sums.append(checksums.read(self.root, index, stores, {tap: count})[tap])
                else:
                    sums.append(np.zeros(count, np.uint32))
                known.append(np.full(count, checked))
            self._sum_cache[tap] = np.concatenate(sums), np.concatenate(known)
        return self._sum_cache[tap]

    @functools.cached_property
    def _sum_cache(self) -> dict[Tap, tuple[np.ndarray, np.ndarray]]:
        return {}

    def _parts(self, tap: Tap) -> list[Segment]:
        return [segment for segment in self._segments if tap in segment.taps]

    @functools.cached_property
    def _prompts(self) -> dict[bytes, int]:
        # A prompt may be in two segments (for different arrays); its first row counts.
        known: dict[bytes, int] = {}
        for segment in self._segments:
            for key in _keys(segment):
                known.setdefault(key, len(known))
        return known

    def _rows(self, tap: Tap) -> dict[bytes, int]:
        if tap not in self._row_cache:
            keys = (key for part in self._parts(tap) for key in _keys(part))
            self._row_cache[tap] = {key: row for row, key in enumerate(keys)}
        return self._row_cache[tap]

    @functools.cached_property
    def _row_cache(self) -> dict[Tap, dict[bytes, int]]:
        return {}

    @functools.cached_property
    def _arrays(self) -> dict[Tap, ts.TensorStore]:
        return {}

    def _array(self, tap: Tap) -> ts.TensorStore:
        if tap not in self._arrays:
            self._arrays[tap] = arrays.open_array(self.root, tap, self.fingerprint)
        return self._arrays[tap]

    def _found(self, tap: Tap, texts: Sequence[str], hashes: Sequence[bytes] | None) -> np.ndarray:
        """The position of each prompt among those that an array holds."""
        rows, (site, pooling) = self._rows(tap), tap
        found = [rows.get(key, -1) for key in hashes or layout.sha256_of(texts)]
        row_N = np.array(found, np.int64)
        missing_N = np.flatnonzero(row_N < 0)
        if len(missing_N):
            example = texts[int(missing_N[0])]
            raise StoreError(
                f"{len(missing_N)} of {len(texts)} prompts are not in {self.root} at {site} ({pooling}), the"
                f" first is {example[:80]!r}; run the extract stage with their dataset and this site"
            )
        return row_N

    def _gather(self, tap: Tap, row_N: np.ndarray) -> np.ndarray:
        if not len(row_N):
            return np.zeros((0, layout.width_of(tap, self.fingerprint)), np.float32)
        # Each distinct row is read once, in the order of the file.
        distinct, where_N = np.unique(row_N, return_inverse=True)
        return self.read_rows(tap, distinct).astype(np.float32, copy=False)[where_N]


def _keys(segment: Segment) -> list[bytes]:
    raw = np.ascontiguousarray(segment.sha256_N).tobytes()
    return [raw[start : start + 32] for start in range(0, len(raw), 32)]
