"""CSV bytes to rows, within limits: how much may be unpacked, how many lines, how long each may be."""

import csv
import itertools
import re
import threading
from collections.abc import Iterator

import zstandard

from jaxprobe import boundary

MOST_LINES = 1_000_000  # the published files have up to 5,000 rows
MOST_CHARACTERS = (
    1 << 24
)  # of a field or line, about four million tokens; csv takes four bytes for each
MOST_FIELDS = 10_000  # of a row
MOST_FIELDS_IN_ALL = 20_000_000  # csv makes these in a second
MOST_FRAMES = 10_000  # of a .zst file; parallel compressors write a few of MiB each
_MAGIC = b"\x28\xb5\x2f\xfd"
_WINDOW = 1 << 26  # bytes that a frame may ask for to look back in
_PIECE = 1 << 10  # fed at once; unpacks to 32 MiB at most
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_ROWS_AT_ONCE, _FIELDS_AT_ONCE = 256, 100_000
# A quoted field, or what is left of one, to its quote or the line's end; nothing is tried twice.
_QUOTED = re.compile(r'(?<![^,])"(?:[^"]++|"")*+"?+')
_REST_OF_QUOTED = re.compile(r'(?:[^"]++|"")*+"?+')
_FEW = 1000  # commas of a line that need not be told apart
_MOST_EXAMINED = 2_000_000  # quoted fields of lines with more commas, half a microsecond each
_TOO_WIDE = f"more than {MOST_FIELDS:,} fields in a row; leave out columns that are not needed"
_limit_lock = threading.Lock()


def unpacked(data: bytes, where: str) -> bytes:
    """Undoes Zstandard compression, if there is any; the frame's magic number tells.

    Raises:
        ValueError: Broken data, data that unpacks to more than `boundary.unpacked_limit`, or more than
            `MOST_FRAMES` frames.
    """
    if not data.startswith(_MAGIC):
        boundary.check_unpacked(where, len(data), 0)
        return data
    out, size, packed, view, frames = [], 0, len(data), memoryview(data), 0
    try:
        while view.nbytes:  # a .zst file may be several frames one after another
            frames += 1
            if frames > MOST_FRAMES:
                raise ValueError(
                    f"{where}: more than {MOST_FRAMES:,} Zstandard frames; compress it as one"
                )
            frame = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
            while view.nbytes and not frame.eof:
                block, view = frame.decompress(view[:_PIECE]), view[_PIECE:]
                size += len(block)
                boundary.check_unpacked(where, size, packed)
                out.append(block)
            if not frame.eof:
                raise ValueError(
                    f"{where}: the Zstandard data ends early; copy the whole file again"
                )
            unused = len(frame.unused_data)
            view = memoryview(data)[packed - view.nbytes - unused :]
    except zstandard.ZstdError as error:
        raise ValueError(f"{where}: broken Zstandard data ({error}); compress it again") from None
    return b"".join(out)


def table(data: bytes, where: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """CSV bytes -> header, and pairs (first line of the row in the file, fields).

    Raises:
        ValueError: Not UTF-8, or no header; while reading, rows of another width than the header or
            beyond the limits. File, line and remedy are named.
    """
    if data.startswith(_UTF16):
        raise ValueError(
            f"{where}, line 1: byte {data[0]:#04x} is not UTF-8; save the file as UTF-8"
        )
    end = b"\n" if b"\n" in data else b"\r"
    if data.count(end) > MOST_LINES:
        raise ValueError(
            f"{where}: more than {MOST_LINES:,} lines; split the file into several datasets"
        )
    zero = data.find(b"\0")
    if zero >= 0:
        line = data.count(end, 0, zero) + 1
        raise ValueError(
            f"{where}, line {line}: a zero byte, which no text holds; save the file as UTF-8"
        )
    rows = _rows(data.removeprefix(b"\xef\xbb\xbf"), end, where)
    header = next(rows, None)
    if header is None:
        raise ValueError(f"{where}: the file is empty; it needs the columns prompt,target")
    return header[1], rows


def column(header: list[str], name: str, where: str) -> int:
    """The index of a column; ValueError unless exactly one has that name."""
    if header.count(name) != 1:
        shown = ", ".join(repr(short(one)) for one in header[:12])
        raise ValueError(
            f"{where}, line 1: wanted one column {name!r}, got {shown};"
            " name the columns in the first line, separated by commas"
        )
    return header.index(name)


def short(text: str) -> str:
    """A field as an error quotes it."""
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text):,} characters)"


def _rows(data: bytes, end: bytes, where: str) -> Iterator[tuple[int, list[str]]]:
    """Pairs (first line, fields) of the rows that are not blank, each as wide as the first."""
    # Only line feeds end a line, as in editors: prompts hold carriage returns. Files without any
    # line feed come from old Macs.
    lines = _Lines(_without_blank_end(data, end), end, where)
    reader, width, fields = csv.reader(lines, strict=True), 0, 0
    while batch := _batch(reader, lines, where):
        for first, row in batch:
            if not width and len(row) > MOST_FIELDS:
                raise ValueError(f"{where}, line {first}: {_TOO_WIDE}")
            width = width or len(row)
            fields += len(row)
            if fields > MOST_FIELDS_IN_ALL:
                raise ValueError(
                    f"{where}, line {first}: more than {MOST_FIELDS_IN_ALL:,} fields in all; leave"
                    " out columns that are not needed, or split the file into several datasets"
                )
            if row and len(row) != width:
                raise ValueError(
                    f"{where}, line {first}: {len(row)} fields where the header has {width}; quote"
                    " prompts that hold commas or line breaks"
                )
            if row:
                yield first, row


def _without_blank_end(data: bytes, end: bytes) -> bytes:
    """The file without a last line of blanks alone, which an editor left: it is no row."""
    start = data.rfind(end, 0, len(data) - len(end)) + 1
    return data if not start or data[start:].strip() else data[:start]


def _batch(reader, lines: "_Lines", where: str) -> list[tuple[int, list[str]]]:
    """The next rows with their first lines."""
    batch: list[tuple[int, list[str]]] = []
    first, fields = 1, 0
    # csv's limit on a field is the process's: it is put back before anyone else's code runs.
    with _limit_lock:
        before = csv.field_size_limit(MOST_CHARACTERS)
        try:
            while len(batch) < _ROWS_AT_ONCE and fields < _FIELDS_AT_ONCE:
                first = reader.line_num + 1
                lines.fields = 0
                row = next(reader, None)
                if row is None:
                    break
                batch.append((first, row))
                fields += len(row)
        except csv.Error as error:
            raise ValueError(
                f"{where}, row that starts in line {first}: {error}; a field is too long, or its"
                ' quotes do not match (inside a quoted field a quote is written "")'
            ) from None
        finally:
            csv.field_size_limit(before)
    return batch


class _Lines:
    """Lines with their ends, decoded one by one: the whole text at once could take four times the memory.

    Attributes:
        fields: Those of the row so far, counted before csv makes strings of them. Whoever asks for a
            row sets it to 0.
    """

    def __init__(self, data: bytes, end: bytes, where: str):
        self.fields, self._examined = 0, 0
        self._data, self._end, self._where = data, end, where

    def __iter__(self) -> Iterator[str]:
        data, end, where = self._data, self._end, self._where
        start, number = 0, 0
        while start < len(data):
            stop, number = data.find(end, start) + 1 or len(data), number + 1
            if stop - start > 4 * MOST_CHARACTERS:
                raise ValueError(
                    f"{where}, line {number}: more than {MOST_CHARACTERS:,} characters; cut it"
                )
            line = data[start:stop]
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{where}, line {number}: byte {line[error.start]:#04x} is not UTF-8; save the"
                    " file as UTF-8"
                ) from None
            self.fields += self._commas(text, self.fields > 0) + (self.fields == 0)
            if self.fields > MOST_FIELDS + _FEW or self._examined > _MOST_EXAMINED:
                raise ValueError(f"{where}, line {number}: {_TOO_WIDE}")
            yield text
            start = stop

    def _commas(self, line: str, quoted: bool) -> int:
        """Commas of a line that part fields, at most `_FEW` too many.

        Args:
            line: With its end.
            quoted: Whether it begins inside a quoted field.
        """
        if quoted and '"' not in line:
            return 0
        count = line.count(",")
        if count <= (0 if quoted else _FEW) or '"' not in line:
            return count
        rest = _REST_OF_QUOTED.match(line) if quoted else None
        place = rest.end() if rest else 0
        count -= line.count(",", 0, place)
        room = _MOST_EXAMINED - self._examined
        self._examined += 1
        for match in itertools.islice(_QUOTED.finditer(line, place), room):
            count -= match.group().count(",")
            self._examined += 1
        return count
