"""One of the published CSV files: its cells by column, numbers read as the paper's tools read them."""

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path


def number(text: str) -> float:
    """Reads a decimal number as pandas before 3.0 does: at most 17 digits, then one division.

    The published numbers were made with that parser, and the last bit of a valid AUROC decides ties: read
    exactly, SAEs are chosen 49 times instead of 50 in the standard regime with `saes_first`.
    """
    found = re.fullmatch(r"\s*([+-]?)(\d*)\.?(\d*)(?:[eE]([+-]?\d+))?\s*", text)
    if not found or not found[2] + found[3]:
        return float(text)  # "nan", "inf"; ValueError for a word
    sign, whole, decimals, exponent = found.groups()
    digits = (whole + decimals)[:17]
    value = float(int(digits[:15]))  # exact up to here
    for digit in digits[15:]:
        value = value * 10.0 + int(digit)
    power = int(exponent or 0) + len(whole) - len(digits)
    scale = float(f"1e{abs(power)}")
    value = value * scale if power > 0 else value / scale
    return -value if sign == "-" else value


class Cells(dict):
    """A row of a file by column; `where` is its file and line."""

    where = ""

    def number(self, column: str, *, needed: bool = False) -> float:
        """A cell as a number; NaN where it is empty and not `needed`."""
        text = self[column].strip()
        try:
            value = number(text) if text else math.nan
            if not (needed and math.isnan(value)):
                return value
        except ValueError:
            pass
        raise ValueError(
            f"{self.where}: column `{column}` must hold a number, got {text!r}; restore the file from"
            " the authors' repository"
        )


def read_rows(path: Path, data: bytes, columns: Sequence[str]) -> Iterator[Cells]:
    """The rows of a CSV file that must have at least these columns."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text ({error}); restore the file from the authors' repository"
        ) from None
    reader = csv.reader(io.StringIO(text, newline=""))
    header = next(reader, [])
    missing = [f"`{name}`" for name in columns if name not in header]
    if missing:
        raise ValueError(
            f"{path} lacks the column{'s'[: len(missing) > 1]} {', '.join(missing)}; wanted"
            f" {', '.join(columns)}, got {', '.join(header) or 'an empty file'}"
        )
    for fields in reader:
        if not fields:
            continue
        where = f"{path}, line {reader.line_num}"
        if len(fields) != len(header):
            raise ValueError(
                f"{where}: {len(fields)} fields where the header has {len(header)}; restore the file"
                " from the authors' repository"
            )
        cells = Cells(zip(header, fields, strict=True))
        cells.where = where
        yield cells
