"""Labelled texts: the table whose rows splits number."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping
from typing import Self

import numpy as np

from jaxprobe import arguments, equality

TARGET, PART = "target", "part"
PARTS = ("main", "shifted")  # of the table that `joined` returns
_ONE_AGAINST_REST = "make it one class against the rest"


class Texts(tuple[str, ...]):
    """A tuple of texts that hashes each text once, however many datasets share it."""

    _parts: tuple["Texts", ...] = ()

    @classmethod
    def joined(cls, *parts: "Texts") -> Self:
        """The texts of all parts; hashes already computed are reused."""
        made = cls(text for part in parts for text in part)
        made._parts = parts
        return made

    @classmethod
    def hashed(cls, by_hash: Mapping[bytes, str]) -> Self:
        """Texts whose hashes are known, in the mapping's order."""
        made = cls(by_hash.values())
        made.__dict__["sha256"] = tuple(by_hash)
        return made

    @functools.cached_property
    def sha256(self) -> tuple[bytes, ...]:
        """The 32-byte SHA-256 of each text in UTF-8."""
        if self._parts:
            return tuple(digest for part in self._parts for digest in part.sha256)
        return tuple(hashlib.sha256(text.encode()).digest() for text in self)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Column:
    """One named property of every row, as a code and the names that codes stand for.

    Attributes:
        code_N: int32 positions in `names`; -1 where a row has no value.
        names: What each code stands for: distinct texts.

    Raises:
        ValueError: Codes outside of `names`, or names that are not distinct texts.
    """

    code_N: np.ndarray
    names: tuple[str, ...]

    def __post_init__(self):
        """Checks and converts the fields; this is not a pytree, so they are never tracers."""
        names = tuple(self.names)
        if not all(isinstance(name, str) for name in names) or len({*names}) != len(names):
            raise ValueError(f"`names` of a column must be distinct texts, got {names!r:.80}")
        # Codes are checked as positions that begin at 1, so that 0 stands for "no value".
        shifted_N = arguments.array("code_N", self.code_N) + 1
        code_N = arguments.positions("code_N", shifted_N, len(names) + 1) - 1
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "code_N", code_N.astype(np.int32))

    @classmethod
    def of(cls, values: Iterable[object]) -> Self:
        """A column of one value per row, read as text; None has the code -1.

        Names are sorted by their characters.
        """
        texts = [None if value is None else str(value) for value in values]
        names = tuple(sorted({text for text in texts if text is not None}))
        code = {name: number for number, name in enumerate(names)}
        code_N = np.fromiter((-1 if t is None else code[t] for t in texts), np.int32, len(texts))
        return cls(code_N=code_N, names=names)

    def code(self, name: str) -> int:
        """The code that stands for a name.

        Raises:
            ValueError: The column has no such name.
        """
        if name not in self.names:
            known = ", ".join(map(repr, self.names[:8]))
            raise ValueError(f"`name` must be one of the column's names, {known}; got {name!r}")
        return self.names.index(name)

    def __repr__(self) -> str:
        """Sizes, not the codes."""
        return f"Column({len(self.code_N):,} rows, names={self.names!r:.80})"

    def __eq__(self, other: object) -> bool:
        """Whether all fields are the same."""
        return equality.same_fields(self, other)

    def __hash__(self) -> int:
        """By what is short."""
        return hash((self.names, len(self.code_N)))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TextDataset:
    """Labelled prompts; two datasets are equal where all their fields are.

    Attributes:
        name: Unique name, for example `66_living-room`.
        texts: N prompts; any sequence of texts is accepted.
        y_N: int32 labels in {0, 1}, both present. Booleans, integral floats and two distinct texts are
            accepted too: texts in the order of `label_names` if they are those, else sorted.
        label_names: What 0 and 1 stood for in the source: two distinct texts.
        source: Where the rows came from.
        columns: Further columns by name, such as `group` or `concept`: each a `Column`, or one value
            per row (see `Column.of`). The labels are the column `target`.

    Raises:
        ValueError: Labels that are not two classes or not as many as texts, entries that are not texts,
            or a column with another number of rows.
    """

    name: str
    texts: tuple[str, ...]
    y_N: np.ndarray
    label_names: tuple[str, str] = ("0", "1")
    source: str = "memory"
    columns: Mapping[str, Column] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        """Checks and converts the fields; this is not a pytree, so they are never tracers."""
        if not isinstance(self.name, str) or not self.name.strip():
            raise ValueError(f"`name` of a dataset must be a text, got {self.name!r}")
        texts = _texts(self.texts)
        y_N, names = _two_classes(self.y_N, self.label_names)
        if len(y_N) != len(texts):
            raise ValueError(
                f"`y_N` and `texts` must have one entry per example, got {len(y_N)} and {len(texts)}"
            )
        columns = _columns(self.columns, len(texts))
        for field, value in (
            ("texts", texts),
            ("y_N", y_N),
            ("label_names", names),
            ("columns", columns),
        ):
            object.__setattr__(self, field, value)

    @property
    def sha256_N(self) -> tuple[bytes, ...]:
        """The 32-byte SHA-256 of each text in UTF-8, computed once for all datasets that share it."""
        texts: Texts = self.texts  # type: ignore[assignment]  # `__post_init__` has made it so
        return texts.sha256

    @functools.cached_property
    def digest(self) -> str:
        """Hex SHA-256 of all texts, labels and columns, without the dataset's name."""
        found = hashlib.sha256(b"".join(self.sha256_N) + self.y_N.astype("<i4").tobytes())
        for name, column in sorted(self.columns.items()):
            found.update(repr((name, column.names)).encode())
            found.update(column.code_N.astype("<i4").tobytes())
        return found.hexdigest()

    def column(self, name: str) -> Column:
        """A column by name; `target` holds the labels.

        Raises:
            ValueError: There is no column of that name.
        """
        if name == TARGET:
            return Column(code_N=self.y_N, names=self.label_names)
        if name not in self.columns:
            known = ", ".join((TARGET, *self.columns))
            raise ValueError(f"`column` of {self.name} must be one of {known}; got {name!r}")
        return self.columns[name]

    def one_against_rest(self, column: str, name: str) -> "TextDataset":
        """The same texts (not copied, nor hashed again), labelled 1 where a column has this name.

        Args:
            column: A column without missing values.
            name: One of its names.

        Raises:
            ValueError: No such column or name, rows without a value, or no row in one of the classes.
        """
        found = self.column(column)
        empty = int(np.sum(found.code_N < 0))
        if empty:
            raise ValueError(
                f"column {column!r} of {self.name} must have a value in every row, got {empty} rows"
                " without one; leave them out with `rows` first"
            )
        return dataclasses.replace(
            self,
            name=f"{self.name}[{column}={name}]",
            y_N=(found.code_N == found.code(name)).astype(np.int32),
            label_names=(f"not {name}", name),
        )

    def rows(self, row_M: Iterable[int]) -> "TextDataset":
        """The dataset of some of the rows, in the order given."""
        row_M = arguments.positions("row_M", row_M, len(self.texts))
        return dataclasses.replace(
            self,
            texts=Texts(self.texts[row] for row in row_M),
            y_N=self.y_N[row_M],
            columns={
                name: dataclasses.replace(column, code_N=column.code_N[row_M])
                for name, column in self.columns.items()
            },
        )

    def __repr__(self) -> str:
        """Sizes, not the texts."""
        ones = int(self.y_N.sum())
        more = f", columns={tuple(self.columns)!r}" if self.columns else ""
        return (
            f"TextDataset(name={self.name!r}, {len(self.texts):,} texts:"
            f" {len(self.texts) - ones:,} {self.label_names[0]!r} and {ones:,}"
            f" {self.label_names[1]!r}, source={self.source!r}{more})"
        )

    def __eq__(self, other: object) -> bool:
        """Whether all fields are the same."""
        return equality.same_fields(self, other)

    def __hash__(self) -> int:
        """By what is short."""
        return hash((self.name, len(self.texts), self.source))


def joined(dataset: TextDataset, shifted: TextDataset) -> TextDataset:
    """One table of a dataset's N rows followed by the M rows of its shifted test set.

    Splits of regime covariate_shift number the rows of this table.

    Args:
        dataset: The dataset, whose name, source and label names the table gets.
        shifted: Its shifted test set, with the same meaning of labels.

    Returns:
        The table, with the columns of both (code -1 where a set lacks one) and a column `part`, whose
        names are `PARTS`. No text is hashed again.

    Raises:
        ValueError: The label names of the two are swapped.
    """
    if dataset.label_names == shifted.label_names[::-1]:
        raise ValueError(
            f"`shifted` must name its labels as `dataset` does, {dataset.label_names}, got"
            f" {shifted.label_names}, where 0 and 1 are swapped; swap its labels"
        )
    sizes = [len(dataset.texts), len(shifted.texts)]
    names = {**dataset.columns, **shifted.columns}
    columns = {name: _stacked(name, (dataset, shifted)) for name in names}
    columns[PART] = Column(code_N=np.repeat([0, 1], sizes), names=PARTS)
    texts = Texts.joined(dataset.texts, shifted.texts)  # type: ignore[arg-type]
    y_N = np.concatenate([dataset.y_N, shifted.y_N])
    return dataclasses.replace(dataset, texts=texts, y_N=y_N, columns=columns)


def _stacked(name: str, sets: tuple[TextDataset, ...]) -> Column:
    """The columns of the sets one after the other, with the names of all."""
    parts = [
        data.columns.get(name, Column(code_N=np.full(len(data.texts), -1), names=()))
        for data in sets
    ]
    names = tuple(dict.fromkeys(text for part in parts for text in part.names))
    code_N = [
        np.array([*map(names.index, part.names), -1], np.int32)[part.code_N] for part in parts
    ]
    return Column(code_N=np.concatenate(code_N), names=names)


def _texts(given: object) -> Texts:
    if isinstance(given, Texts):
        return given
    if isinstance(given, str | bytes):
        raise ValueError(f"`texts` must be several texts, got one, {given[:40]!r}; write [text]")
    if not isinstance(given, Iterable):
        raise ValueError(f"`texts` must be several texts, got {given!r:.80}")
    texts = Texts(given)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"`texts` must be texts, got {text!r} in row {row}")
    return texts


def _columns(given: Mapping[str, Column | Iterable], num_rows: int) -> Mapping[str, Column]:
    """Columns of the right length."""
    columns = {}
    for name, column in given.items():
        if name == TARGET:
            raise ValueError(f"`columns` must not name {TARGET!r}, which is `y_N`; leave it out")
        column = column if isinstance(column, Column) else Column.of(column)
        if len(column.code_N) != num_rows:
            raise ValueError(
                f"column {name!r} must have one entry per text, got {len(column.code_N)} for"
                f" {num_rows}"
            )
        columns[name] = column
    return columns


def _two_classes(labels: object, names: object) -> tuple[np.ndarray, tuple[str, str]]:
    """int32 labels in {0, 1}, and what they stand for."""
    known = _label_names(names)
    y_N = arguments.array("y_N", labels)
    if y_N.ndim != 1:
        raise ValueError(f"`y_N` must have one label per text, got shape {y_N.shape}")
    if y_N.dtype.kind != "U" or not len(y_N):
        found = arguments.labels("y_N", y_N, names=(0, 1), both=True, hint=_ONE_AGAINST_REST)
        return found.y_N, known
    distinct = np.unique(y_N).tolist()
    if len(distinct) != 2:
        raise ValueError(
            f"`y_N` must hold two classes, got {len(distinct)}: {', '.join(map(repr, distinct[:5]))};"
            f" keep two, or {_ONE_AGAINST_REST}"
        )
    if {*distinct} != {*known}:
        known = (distinct[0], distinct[1])
    return (y_N == known[1]).astype(np.int32), known


def _label_names(names: object) -> tuple[str, str]:
    """Two different texts."""
    found = tuple(names) if isinstance(names, Iterable) and not isinstance(names, str) else ()
    if len({*map(str, found)}) != 2 or not all(isinstance(name, str) for name in found):
        raise ValueError(f"`label_names` must be two distinct texts, got {names!r:.80}")
    return str(found[0]), str(found[1])
