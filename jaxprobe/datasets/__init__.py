"""Labelled text: the 113 published datasets, their 8 shifted test sets and users' own CSV files.

A source is anything that `assets.fetch` makes local and that holds the published layout:
`probing_datasets_MASTER.csv`, `cleaned_data/*.csv` and `OOD data/*_OOD.csv`, each plain or with
`.zst` behind. Every text column is read as it stands: a prompt or label `NA`, `None` or `null` is
that text, where pandas would make it a missing value (no published file holds one).
"""

import dataclasses
import functools
import heapq
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from jaxprobe import assets, boundary
from jaxprobe.base import Column, TextDataset
from jaxprobe.checks import check_choice
from jaxprobe.datasets import rows
from jaxprobe.datasets.labels import labels
from jaxprobe.text_dataset import Texts

DEFAULT_SOURCE = "pypi://sae-probes"
_MASTER = "probing_datasets_MASTER.csv"
_MOST_FILES = 100_000  # looked through for the layout; the published one has 200
_SUFFIXES = (".csv", ".csv.zst")
_BINARY, _CLASSES = "Binary Classification", "Multiclass Classification"  # of the master file


def names(source: str = DEFAULT_SOURCE) -> tuple[str, ...]:
    """The binary datasets of a source (113 in the published one), in master-file order.

    Raises:
        ValueError: The source does not hold the published layout.
        AssetError: It is unavailable.
    """
    return tuple(_master(_Layout.open(source)))


def class_names(source: str = DEFAULT_SOURCE) -> tuple[str, ...]:
    """The datasets of a source with more than two classes (20 in the published one), in master-file order."""
    return tuple(_master(_Layout.open(source), _CLASSES))


def load_classes(name: str | os.PathLike, source: str = DEFAULT_SOURCE) -> TextDataset:
    """A dataset of several classes: its column `class` holds them; labels are the first class's.

    Use `one_against_rest("class", name)` for the labels of another class; the texts are shared.

    Args:
        name: One of `class_names(source)`, or a file as `load` takes it, of any number of classes.
        source: Where published datasets come from.

    Raises:
        ValueError: An unknown name, or bad content: file, line and remedy are named.
        AssetError: The file or the source is unavailable.
    """
    text = os.fspath(name)
    if is_file(text):
        path = assets.fetch(assets.split_label(text)[1])
        data, where = rows.unpacked(_read(path), str(path)), str(path)
    else:
        layout = _Layout.open(source)
        files = _master(layout, _CLASSES)
        check_choice("dataset of several classes", text, files)
        data, where = layout.read(files[text]), f"{layout.source}/{files[text]}"
    texts, targets, _ = _columns(data, where)
    column = Column.of(targets)
    if len(column.names) < 2:
        raise ValueError(f"{where}: `target` must hold two or more classes, got {column.names}")
    first = column.names[0]
    return TextDataset(
        name=name_of(text),
        texts=tuple(texts),
        y_N=(column.code_N == 0).astype(np.int32),
        label_names=(f"not {first}", first),
        source=where,
        columns={"class": column},
    )


def lowest_hashes(loaded: Iterable[TextDataset], count: int) -> Texts:
    """At most `count` distinct prompts, lowest SHA-256 first: whatever the datasets' order."""
    by_hash = {
        sha: text for data in loaded for sha, text in zip(data.sha256_N, data.texts, strict=True)
    }
    return Texts.hashed({sha: by_hash[sha] for sha in heapq.nsmallest(count, by_hash)})


def check_names(entries: Sequence[str], source: str = DEFAULT_SOURCE) -> None:
    """Raises ValueError for two datasets of one name, or a user's file with a published one's.

    Args:
        entries: Published names, files, or NAME=FILE.
        source: Where published datasets come from; looked at only where some are named.
    """
    seen: dict[str, str] = {}
    for entry in entries:
        name = name_of(entry)
        if name in seen:
            raise ValueError(
                f"datasets must differ in their names, got {name!r} from {seen[name]!r} and"
                f" {entry!r}; give a file another name in the config: datasets=('my_name=FILE.csv',)"
            )
        seen[name] = entry
    own = {name: entry for name, entry in seen.items() if is_file(entry)}
    if not own or len(own) == len(seen):
        return
    for name in names(source):
        if name in own:
            raise ValueError(
                f"the dataset {own[name]!r} has the name of a published one, {name!r}; give it"
                " another in the config: datasets=('my_name=FILE.csv',)"
            )


def shifted_names(source: str = DEFAULT_SOURCE) -> tuple[str, ...]:
    """The datasets that have a covariate-shifted test set (8), in master-file order."""
    layout = _Layout.open(source)
    return tuple(name for name in _master(layout) if _shifted_file(name) in layout.files)


def load(name: str | os.PathLike, source: str = DEFAULT_SOURCE) -> TextDataset:
    """One dataset, with its rows in file order and duplicates kept.

    Args:
        name: One of `names(source)`, or the path or URI of a `.csv` or `.csv.zst` file with the
            columns `prompt` and `target`, whose distinct targets are two; `NAME=` before the path
            names the dataset, which else has the file's name.
        source: Where published datasets come from.

    Returns:
        The dataset; the smaller of its two sorted targets (by number where both are numbers) is 0.

    Raises:
        ValueError: An unknown name, or bad content: file, line and remedy are named.
        AssetError: The file or the source is unavailable.
    """
    text = os.fspath(name)
    if is_file(text):
        path = assets.fetch(assets.split_label(text)[1])
        if path.is_dir():
            raise ValueError(f"a dataset must be a .csv or .csv.zst file, {text!r} is a folder")
        return _parse(name_of(text), rows.unpacked(_read(path), str(path)), str(path))
    if Path(text).is_file():
        raise ValueError(f"a dataset file must be a .csv or .csv.zst file, got {text!r}")
    layout = _Layout.open(source)
    files = _master(layout)
    check_choice("dataset", text, files)
    return layout.load(text, files[text])


def is_file(name: str | os.PathLike) -> bool:
    """Whether `load` takes a name for a file, not for a published dataset."""
    return os.fspath(name).endswith(_SUFFIXES)


def name_of(name: str | os.PathLike) -> str:
    """What results call the dataset that `load` makes of a name.

    Raises:
        ValueError: A file without a name before its ending.
    """
    text = os.fspath(name)
    if not is_file(text):
        return text
    label, source = assets.split_label(text)
    base = label or re.sub(r"\.csv(\.zst)?$", "", PurePosixPath(source).name)
    if not base.strip():
        raise ValueError(f"a dataset needs a name, got {text!r}; write my_name={source}")
    return base


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
                path.relative_to(root).as_posix(): functools.partial(_read, path)
                for path in _files(root)
            }
        else:
            found = {
                member: functools.partial(assets.open_member, root, member)
                for member in assets.member_names(root)
                if member.endswith(_SUFFIXES)
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
        return rows.unpacked(self.files[file](), f"{self.source}/{file}")

    def load(self, name: str, file: str) -> TextDataset:
        """The dataset in a file of this layout."""
        return _parse(name, self.read(file), f"{self.source}/{file}")


def _read(path: Path) -> bytes:
    """A regular file's bytes, if it is no longer than unpacked content may be."""
    return boundary.read_bytes(path, boundary.unpacked_limit(0))


def _files(root: Path) -> list[Path]:
    """The CSV files below a folder, in order."""
    found, seen = [], 0
    for folder, folders, names_here in os.walk(root):
        folders.sort()
        seen += len(names_here) + len(folders)
        if seen > _MOST_FILES:
            raise ValueError(
                f"{root} holds more than {_MOST_FILES:,} files; name the folder that holds {_MASTER}"
            )
        found += [Path(folder, name) for name in names_here if name.endswith(_SUFFIXES)]
    return sorted(found)


def _master(layout: _Layout, wanted: str = _BINARY) -> dict[str, str]:
    """Name -> file of each dataset of that kind, from the master table."""
    where = f"{layout.source}/{_MASTER}"
    header, found = rows.table(layout.read(_MASTER), where)
    file, kind = (
        rows.column(header, column, where) for column in ("Dataset save name", "Data type")
    )
    files = [row[file] for _, row in found if row[kind] == wanted]
    return {PurePosixPath(file).name.removesuffix(".csv"): file for file in files}


def _parse(name: str, data: bytes, where: str) -> TextDataset:
    """CSV bytes -> dataset; `where` names the file in errors and becomes the source."""
    texts, targets, lines = _columns(data, where)
    del data
    y_N, label_names = labels(targets, lines, where)
    return TextDataset(
        name=name, texts=tuple(texts), y_N=y_N, label_names=label_names, source=where
    )


def _columns(data: bytes, where: str) -> tuple[list[str], list[str], dict[str, int]]:
    """Prompts, targets, and the line of each target's first row."""
    header, found = rows.table(data, where)
    prompt, target = (rows.column(header, column, where) for column in ("prompt", "target"))
    texts, targets, lines = [], [], {}
    for line, row in found:
        for column, index in (("prompt", prompt), ("target", target)):
            if not row[index].strip():
                raise ValueError(
                    f"{where}, line {line}: empty `{column}`; fill it in or delete the row"
                )
        texts.append(row[prompt])
        lines.setdefault(row[target], line)
        targets.append(row[target])
    return texts, targets, lines
