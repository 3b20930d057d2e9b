"""The layout of an activation store on disk, and the small files that record its progress.

    manifest.json          format and fingerprint: everything that changes the numbers
    progress.json          segments in order: arrays, prompts, batches, committed batches, digest
    segments/000000.npy    one record per prompt of a segment, in row order
    segments/000000.rows    a checksum of each row, see `checksums`
    SITE/POOLING/          one zarr3 array
    .lock                  empty; the process that holds its lock may write

The JSON files hold digests of themselves, see `sealed`. Format 1 had neither digests nor checksums of rows: such
a store is still read, with a warning, and what is added to it has both.

A segment is a set of prompts planned together for the same arrays. In each of its arrays, its rows follow
those of earlier segments. The plan is written first, then the arrays grow to their planned size, then
batches are written in order; only the last segment can be unfinished.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping

from jaxprobe import boundary, sealed
from jaxprobe.checks import check_choice
from jaxprobe.place import Place
from jaxprobe.store.segments import Progress as Progress
from jaxprobe.store.segments import Segment as Segment
from jaxprobe.store.segments import Tap as Tap
from jaxprobe.store.segments import parse_tap, tap_name

FORMAT = 2
READABLE = (1, FORMAT)
IDENTITY = 1  # part of digests, instead of FORMAT: format 2 checks the same numbers in another way
MANIFEST, PROGRESS, SEGMENTS, LOCK = "manifest.json", "progress.json", "segments", ".lock"
TOKEN_DTYPES = ("bfloat16", "float32")
REQUIRED = ("d_model", "token_dtype")  # fields of a fingerprint that shape the arrays
# Fields of a fingerprint that are recorded but do not identify the rows: the manifest keeps their values from
# the store's creation, and neither its digest nor the comparison at opening includes them. So a store that was
# created on one processor is continued and read on another.
RECORDED_ONLY = ("device",)

_SEGMENT_BYTES = 256 << 20  # of a segment's file, 40 a prompt
_AGAIN = "restore it from a copy, or delete the store's directory to extract again"


class StoreError(RuntimeError):
    """An activation store that cannot be read, written or used for this run."""


def sha256_of(texts: Iterable[str]) -> list[bytes]:
    """The 32-byte content address of each text."""
    return [hashlib.sha256(text.encode()).digest() for text in texts]


def width_of(tap: Tap, fingerprint: Mapping) -> int:
    """Columns of an array: the model's `d_model`, unless `widths` names another for the stream."""
    return fingerprint.get("widths", {}).get(tap[0].stream, fingerprint["d_model"])


def segment_path(root: Place, index: int) -> Place:
    """The file of one segment's plan."""
    return root / SEGMENTS / f"{index:06d}.npy"


def write_manifest(root: Place, fingerprint: Mapping) -> None:
    """Writes the manifest and the progress of a new store: its fingerprint, and no segments."""
    checked = {name: fingerprint[name] for name in REQUIRED}
    check_choice("token_dtype", checked["token_dtype"], TOKEN_DTYPES)
    write_progress(root, Progress())
    _write_format(root, fingerprint)


def renew(root: Place, progress: Progress) -> None:
    """Rewrites the manifest and progress of a store of format 1 in this version's format."""
    found, fingerprint = _manifest(root)
    if found != FORMAT:
        write_progress(root, progress)
        _write_format(root, fingerprint)


def _write_format(root: Place, fingerprint: Mapping) -> None:
    manifest = {"format": FORMAT, "fingerprint": dict(fingerprint)}
    (root / MANIFEST).replace(sealed.to_json(manifest))


def read_manifest(root: Place) -> dict:
    """The store's fingerprint.

    Raises:
        StoreError: There is no store, or one that this version cannot read.
    """
    return _manifest(root)[1]


def _manifest(root: Place) -> tuple[int, dict]:
    """Format and fingerprint."""
    path, fingerprint = root / MANIFEST, {}
    try:
        with (
            boundary.missing_stays_missing(str(path)),
            boundary.reader(str(path), "a manifest", _AGAIN),
        ):
            found = json.loads(path.read(limit=boundary.JSON_BYTES))["format"]
            if found in READABLE:  # another version may seal its files differently
                fingerprint = sealed.read_json(path, _AGAIN, needed=found > 1)["fingerprint"]
                _ = [fingerprint[name] for name in REQUIRED]
    except OSError as error:
        raise StoreError(
            f"there is no activation store in {root} ({error.strerror}); run the extract stage first"
        ) from error
    except ValueError as error:
        raise StoreError(_damaged(path, error)) from error
    if found not in READABLE:
        raise StoreError(
            f"the activation store in {root} has format {found!r:.40}, this version reads and writes"
            f" {FORMAT}; use another work directory, or delete {root} to extract again"
        )
    return found, fingerprint


def check_fingerprint(root: Place, wanted: Mapping) -> None:
    """Refuses a store whose fingerprint differs.

    Raises:
        StoreError: Names each field that differs, with the wanted value and the store's.
    """
    have, want = read_manifest(root), json.loads(_json(wanted))
    known = {*have, *want} - {*RECORDED_ONLY}
    names = sorted(name for name in known if have.get(name) != want.get(name))
    if names:
        told = "; ".join(
            f"{name}: wanted {want.get(name)!r}, got {have.get(name)!r}" for name in names
        )
        raise StoreError(
            f"the activations in {root} were extracted with other settings ({told}); they are never"
            f" mixed with others: use another work directory, or delete {root} to extract again"
        )


def digest(fingerprint: Mapping) -> str:
    """Hex SHA-256 of a fingerprint without `RECORDED_ONLY`; the order of the fields does not matter."""
    counted = {name: value for name, value in fingerprint.items() if name not in RECORDED_ONLY}
    return _digest(counted)


def digests(fingerprint: Mapping) -> tuple[str, str]:
    """`digest`, and the digest with `RECORDED_ONLY`, which the checksums of older stores hold."""
    return digest(fingerprint), _digest(fingerprint)


def _digest(fingerprint: Mapping) -> str:
    told = _json({"format": IDENTITY, "fingerprint": dict(fingerprint)})
    return hashlib.sha256(told).hexdigest()


def write_progress(root: Place, progress: Progress) -> None:
    """Replaces the stored progress. Every row that it counts must be durable already."""
    entries = [
        {
            "arrays": [tap_name(tap) for tap in segment.taps],
            "prompts": len(segment.tokens_N),
            "batches": segment.num_batches,
            "committed_batches": committed,
            "checked": checked,
            "sha256": segment.digest,
        }
        for segment, committed, checked in zip(
            progress.segments, progress.committed, progress.checked, strict=True
        )
    ]
    (root / PROGRESS).replace(sealed.to_json({"segments": entries}))


def read_progress(root: Place) -> Progress:
    """Reads the segments and how many batches of each are committed.

    Raises:
        StoreError: A file is missing or damaged.
    """
    path, progress = root / PROGRESS, Progress()
    try:
        needed = _manifest(root)[0] > 1
        with boundary.reader(str(path), "the progress of an activation store", _AGAIN):
            entries = list(sealed.read_json(path, _AGAIN, needed=needed)["segments"])
        for index, entry in enumerate(entries):
            path = segment_path(root, index)
            with boundary.reader(str(path), "a segment of an activation store", _AGAIN):
                segment = _read_segment(path, entry, needed)
                progress = progress.plus(
                    segment, entry["committed_batches"], checked=entry.get("checked", False)
                )
    except (OSError, ValueError) as error:
        raise StoreError(_damaged(path, error)) from error
    return progress


def _read_segment(path: Place, entry: Mapping, needed: bool) -> Segment:
    """One segment, as progress.json describes it."""
    content = path.read(limit=_SEGMENT_BYTES)
    taps = tuple(parse_tap(name) for name in entry["arrays"])
    whole = Segment.decode(content, taps)
    # Cutting a segment takes two writes, its file last; the shorter of the two is valid.
    segment = whole.first(entry["batches"])
    committed, checked = entry["committed_batches"], entry.get("checked", False)
    if type(committed) is not int or committed < 0 or type(checked) is not bool:
        raise ValueError(
            f"wanted a count of batches and true or false, got {committed!r}, {checked!r}"
        )
    if len(segment.tokens_N) != entry["prompts"]:
        raise ValueError(f"wanted {entry['prompts']} prompts, got {len(segment.tokens_N)}")
    if needed and (segment.digest != entry["sha256"] or whole.encode() != content):
        raise ValueError("it does not hold what was written")
    return segment


def _json(value) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _damaged(path: Place, error: Exception) -> str:
    said = str(error)
    if _AGAIN in said:
        return f"{said} (a file of the activation store is missing or damaged)"
    return f"{path} of the activation store is missing or damaged ({said}); {_AGAIN}"
