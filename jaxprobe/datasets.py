"""Labelled text: the 113 published datasets, their 8 shifted test sets and users' own CSV files.

A source is anything that `assets.fetch` makes local and that holds the published layout:
`probing_datasets_MASTER.csv`, `cleaned_data/*.csv` and `OOD data/*_OOD.csv`, each plain or with
`.zst` behind. Every text column is read as it stands: a prompt or label `NA`, `None` or `null` is
that text, where pandas would make it a missing value (no published file holds one).
"""

import csv
import dataclasses
import functools
import hashlib
import heapq
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import zstandard

from jaxprobe import assets
from jaxprobe.base import TextDataset
from jaxprobe.checks import check_choice

DEFAULT_SOURCE = "pypi://sae-probes"
_MASTER = "probing_datasets_MASTER.csv"
_INTEGER = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)
_FLOAT = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)


def names(source: str = DEFAULT_SOURCE) -> tuple[str, ...]:
    """The binary datasets of a source (113 in the published one), in master-file order.

    Raises:
        ValueError: The source does not hold the published layout.
        AssetError: It cannot be had.
    """
    return tuple(_master(_Layout.open(source)))


def sample_texts(names: Iterable[str], source: str, count: int) -> list[str]:
    """At most `count` distinct prompts, lowest SHA-256 first: whatever the datasets' order."""
    texts = {text for name in names for text in load(name, source).texts}
    return heapq.nsmallest(count, texts, key=lambda text: hashlib.sha256(text.encode()).digest())


def shifted_names(source: str = DEFAULT_SOURCE) -> tuple[str, ...]:
    """The datasets that have a covariate-shifted test set (8), in master-file order."""
    layout = _Layout.open(source)
    return tuple(name for name in _master(layout) if _shifted_file(name) in layout.files)


def load(name: str | os.PathLike, source: str = DEFAULT_SOURCE) -> TextDataset:
    """One dataset, with its rows in file order and duplicates kept.

    Args:
        name: One of `names(source)`, or the path or URI of a `.csv` or `.csv.zst` file with the
            columns `prompt` and `target`, whose distinct targets are two.
        source: Where published datasets come from.

    Returns:
        The dataset; the smaller of its two sorted targets (by number where both are numbers) is 0.

    Raises:
        ValueError: An unknown name, or bad content: file, line and remedy are named.
        AssetError: The file or the source cannot be had.
    """
    text = os.fspath(name)
    if text.endswith((".csv", ".csv.zst")):
        path = assets.fetch(text)
        if path.is_dir():
            raise ValueError(f"a dataset must be a .csv or .csv.zst file, {text!r} is a folder")
        base = re.sub(r"\.csv(\.zst)?$", "", path.name)
        return _parse(base, _unpacked(path.read_bytes(), str(path)), str(path))
    if Path(text).is_file():
        raise ValueError(f"a dataset file must be a .csv or .csv.zst file, got {text!r}")
    layout = _Layout.open(source)
    files = _master(layout)
    check_choice("dataset", text, files)
    return layout.load(text, files[text])


def load_shifted(name: str, source: str = DEFAULT_SOURCE) -> TextDataset:
    """The covariate-shifted test set of dataset `name`, one of `shifted_names(source)`."""
    layout = _Layout.open(source)
    known = [base for base in _master(layout) if _shifted_file(base) in layout.files]
    check_choice("shifted dataset", name, known)
    return layout.load(name, _shifted_file(name))


def shifted_of(dataset: TextDataset, source: str = DEFAULT_SOURCE) -> TextDataset | None:
    """The shifted test set of a loaded dataset; None where it has none, as users' own files."""
    layout = _Layout.open(source)
    file = _master(layout).get(dataset.name)
    published = file is not None and dataset.source == f"{layout.source}/{file}"
    if not published or _shifted_file(dataset.name) not in layout.files:
        return None
    return layout.load(dataset.name, _shifted_file(dataset.name))


def _shifted_file(name: str) -> str:
    return f"OOD data/{name}_OOD.csv"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Layout:
    """A local copy of a source.

    Attributes:
        source: What the caller named.
        files: Path inside the layout, without `.zst` -> function that returns the file's bytes.
    """

    source: str
    files: dict[str, Callable[[], bytes]]

    @classmethod
    def open(cls, source: str | os.PathLike) -> "_Layout":
        root = assets.fetch(source)
        if root.is_dir():
            found = {
                path.relative_to(root).as_posix(): path.read_bytes
                for pattern in ("*.csv", "*.csv.zst")
                for path in sorted(root.rglob(pattern))
            }
        else:
            found = {
                member: functools.partial(assets.open_member, root, member)
                for member in assets.member_names(root)
                if member.endswith((".csv", ".csv.zst"))
            }
        masters = [path for path in found if PurePosixPath(path).name.startswith(_MASTER)]
        if not masters:
            raise ValueError(
                f"source {os.fspath(source)!r} must hold {_MASTER} (or {_MASTER}.zst) beside the"
                " folders `cleaned_data` and `OOD data`; to load one file of your own, give its"
                " path as the dataset's name"
            )
        prefix = min(masters, key=len).rpartition(_MASTER)[0]
        files = {
            path.removeprefix(prefix).removesuffix(".zst"): read
            for path, read in sorted(found.items(), reverse=True)  # plain wins over .zst
            if path.startswith(prefix)
        }
        return cls(source=os.fspath(source), files=files)

    def read(self, file: str) -> bytes:
        """A file's bytes, decompressed."""
        if file not in self.files:
            raise ValueError(f"source {self.source!r} lacks the file {file!r} (or {file}.zst)")
        return _unpacked(self.files[file](), f"{self.source}/{file}")

    def load(self, name: str, file: str) -> TextDataset:
        """The dataset in a file of this layout."""
        return _parse(name, self.read(file), f"{self.source}/{file}")


def _master(layout: _Layout) -> dict[str, str]:
    """Name -> file of each binary dataset, from the master table."""
    where = f"{layout.source}/{_MASTER}"
    header, rows = _table(layout.read(_MASTER), where)
    file, kind = (_column(header, column, where) for column in ("Dataset save name", "Data type"))
    files = [row[file] for _, row in rows if row[kind] == "Binary Classification"]
    return {PurePosixPath(file).name.removesuffix(".csv"): file for file in files}


def _unpacked(data: bytes, where: str) -> bytes:
    """Undoes Zstandard compression, if there is any; the frame's magic number tells."""
    if not data.startswith(b"\x28\xb5\x2f\xfd"):
        return data
    out = []
    while data:  # a .zst file may be several frames one after another
        frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            out.append(frame.decompress(data))
        except zstandard.ZstdError as error:
            raise ValueError(
                f"{where}: broken Zstandard data ({error}); compress it again"
            ) from None
        if not frame.eof:
            raise ValueError(f"{where}: the Zstandard data ends early; copy the whole file again")
        data = frame.unused_data
    return b"".join(out)


def _parse(name: str, data: bytes, where: str) -> TextDataset:
    """CSV bytes -> dataset; `where` names the file in errors and becomes the source."""
    header, rows = _table(data, where)
    prompt, target = _column(header, "prompt", where), _column(header, "target", where)
    texts, targets, lines = [], [], []
    for line, row in rows:
        for column, index in (("prompt", prompt), ("target", target)):
            if not row[index].strip():
                raise ValueError(
                    f"{where}, line {line}: empty `{column}`; fill it in or delete the row"
                )
        texts.append(row[prompt])
        targets.append(row[target])
        lines.append(line)
    y_N, label_names = _labels(targets, lines, where)
    return TextDataset(
        name=name, texts=tuple(texts), y_N=y_N, label_names=label_names, source=where
    )


def _labels(targets: list[str], lines: list[int], where: str) -> tuple[np.ndarray, tuple[str, str]]:
    """Targets -> int32 labels and what 0 and 1 stand for.

    The order is that of scikit-learn's LabelEncoder on the column as pandas types it: by number if
    all targets are numbers (so 1 and 1.0 are one class), False before True in any case, else by
    text.
    """
    as_value = _target_type(targets)
    spelling: dict[Any, str] = {}
    for text, line in zip(targets, lines, strict=True):
        value = as_value(text)
        if value not in spelling and len(spelling) == 2:
            known = " and ".join(repr(label) for label in spelling.values())
            raise ValueError(
                f"{where}, line {line}: third class {text!r} after {known}; `target` must hold two"
                " distinct values: keep two, or make it one class against the rest"
            )
        spelling.setdefault(value, text)
    if len(spelling) < 2:
        got = f"only {next(iter(spelling.values()))!r}" if spelling else "no rows"
        raise ValueError(
            f"{where}: `target` must hold two distinct values, got {got} in {len(targets)} rows;"
            " add rows of the other class"
        )
    zero, one = sorted(spelling)
    y_N = np.fromiter((as_value(text) == one for text in targets), np.int32, len(targets))
    return y_N, (spelling[zero], spelling[one])


def _target_type(targets: list[str]) -> Callable[[str], object]:
    """The type of a column of targets: the first of int, float, bool, str that fits them all."""
    distinct = set(targets)
    if all(_INTEGER.fullmatch(text) for text in distinct):
        return int
    if all(_FLOAT.fullmatch(text) for text in distinct):
        return float
    if {text.lower() for text in distinct} <= {"true", "false"}:
        return lambda text: text.lower() == "true"
    return str


def _table(data: bytes, where: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """CSV bytes -> header, and pairs (first line of the row in the file, fields)."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{where}, line {line}: byte {data[error.start]:#04x} is not UTF-8; save the file as"
            " UTF-8"
        ) from None
    rows = _rows(text, where)
    header = next(rows, None)
    if header is None:
        raise ValueError(f"{where}: the file is empty; it needs the columns prompt,target")
    return header[1], rows


def _rows(text: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """Pairs (first line, fields) of the rows that are not blank, each as wide as the first."""
    # Only line feeds end a line, as in editors: prompts hold carriage returns. Files without any
    # line feed come from old Macs.
    lines = io.StringIO(text, newline="\n" if "\n" in text else "\r")
    reader, width = csv.reader(lines, strict=True), 0
    while True:
        first = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise ValueError(
                f"{where}, row that starts in line {first}: {error}; a field is too long, or its"
                ' quotes do not match (inside a quoted field a quote is written "")'
            ) from None
        if row is None:
            return
        width = width or len(row)
        if row and len(row) != width:
            raise ValueError(
                f"{where}, line {first}: {len(row)} fields where the header has {width}; quote"
                " prompts that hold commas or line breaks"
            )
        if row:
            yield first, row


def _column(header: list[str], name: str, where: str) -> int:
    """The index of a column; ValueError unless exactly one has that name."""
    if header.count(name) != 1:
        raise ValueError(
            f"{where}, line 1: wanted one column {name!r}, got {', '.join(map(repr, header[:12]))};"
            " name the columns in the first line, separated by commas"
        )
    return header.index(name)
