"""Prompts planned together: the segments of an activation store, and how much of each is committed."""

import dataclasses
import functools
import hashlib
import io

import numpy as np

from jaxprobe.base import POOLINGS, Site
from jaxprobe.checks import check_choice

Tap = tuple[Site, str]  # a site and one of `base.POOLINGS`: names one array

_RECORD = np.dtype([("sha256", "u1", (32,)), ("tokens", "<i4"), ("batch", "<i4")])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segment:
    """Prompts that are run together, in row order.

    Attributes:
        taps: The arrays that they are run for.
        sha256_N: uint8 [N, 32] digests of the prompts' UTF-8 text.
        tokens_N: int32 tokens of each prompt, BOS left out: its rows in a `tokens` array.
        batch_N: int32 batch of each prompt, counted from 0, in non-decreasing order.
    """

    taps: tuple[Tap, ...]
    sha256_N: np.ndarray
    tokens_N: np.ndarray
    batch_N: np.ndarray

    @functools.cached_property
    def digest(self) -> str:
        """Hex SHA-256 of the segment's file."""
        return hashlib.sha256(self.encode()).hexdigest()

    @functools.cached_property
    def num_batches(self) -> int:
        """Number of batches."""
        return int(self.batch_N[-1]) + 1 if len(self.batch_N) else 0

    def first(self, num_batches: int) -> "Segment":
        """The segment's first `num_batches` batches."""
        end = int(np.searchsorted(self.batch_N, num_batches))
        return dataclasses.replace(
            self,
            sha256_N=self.sha256_N[:end],
            tokens_N=self.tokens_N[:end],
            batch_N=self.batch_N[:end],
        )

    def num_rows(self, pooling: str) -> int:
        """Number of rows of the segment in an array of this pooling."""
        return int(self.tokens_N.sum(dtype=np.int64)) if pooling == "tokens" else len(self.tokens_N)

    def same_as(self, other: "Segment") -> bool:
        """Whether both plan the same prompts in the same order, batches and arrays."""
        return self.taps == other.taps and self.encode() == other.encode()

    def encode(self) -> bytes:
        """The content of the segment's file, in NumPy's format; the arrays' names are in progress.json."""
        records = np.zeros(len(self.tokens_N), _RECORD)
        records["sha256"], records["tokens"] = self.sha256_N, self.tokens_N
        records["batch"] = self.batch_N
        # The header is not left to NumPy, whose versions may write it differently.
        described = {"descr": _RECORD.descr, "fortran_order": False, "shape": records.shape}
        text = str(described).encode()
        text += b" " * (-(len(text) + 11) % 64) + b"\n"
        return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + records.tobytes()

    @classmethod
    def decode(cls, content: bytes, taps: tuple[Tap, ...]) -> "Segment":
        """Reads what `encode` wrote.

        Raises:
            ValueError: `content` is not a segment's file.
        """
        records = np.load(io.BytesIO(content), allow_pickle=False)
        if records.dtype != _RECORD or records.ndim != 1:
            raise ValueError(f"wanted records of {_RECORD}, got {records.dtype}")
        return cls(
            taps=taps,
            sha256_N=np.ascontiguousarray(records["sha256"]),
            tokens_N=records["tokens"].copy(),
            batch_N=records["batch"].copy(),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """The segments of a store and how many batches of each are durable."""

    segments: tuple[Segment, ...] = ()
    committed: tuple[int, ...] = ()
    checked: tuple[bool, ...] = ()  # whether its rows have checksums: not in format 1

    @property
    def unfinished(self) -> bool:
        """Whether the last segment still has batches to run."""
        return bool(self.segments) and self.committed[-1] < self.segments[-1].num_batches

    def settled(self) -> "Progress":
        """Without the unfinished segment, if there is one."""
        return self.part(len(self.segments) - self.unfinished)

    def part(self, count: int) -> "Progress":
        """The first `count` segments only."""
        return Progress(
            segments=self.segments[:count],
            committed=self.committed[:count],
            checked=self.checked[:count],
        )

    def plus(self, segment: Segment, committed: int, *, checked: bool = True) -> "Progress":
        """The progress with one more segment at the end."""
        return Progress(
            segments=(*self.segments, segment),
            committed=(*self.committed, committed),
            checked=(*self.checked, checked),
        )

    def durable(self) -> tuple[Segment, ...]:
        """The segments, each cut to its committed batches."""
        pairs = zip(self.segments, self.committed, strict=True)
        return tuple(segment.first(count) for segment, count in pairs)


def tap_name(tap: Tap) -> str:
    """The array's directory inside the store, `blocks.12.resid_post/last`."""
    return f"{tap[0]}/{tap[1]}"


def parse_tap(name: str) -> Tap:
    """Reads what `tap_name` wrote.

    Raises:
        ValueError: No such site or pooling.
    """
    site, _, pooling = name.partition("/")
    check_choice("pooling", pooling, POOLINGS)
    return Site.parse(site), pooling
