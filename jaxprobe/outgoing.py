"""Text that leaves the program for others to show: a terminal obeys some characters, a spreadsheet others."""

from collections.abc import Sequence

# A spreadsheet takes what begins so for a formula, also behind the quote or blanks that it strips.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def printable(text: str) -> str:
    r"""One line of text with everything that a terminal obeys or hides written out, as `\x1b`.

    Escapes, C0 and C1 controls, line breaks, marks that turn the direction of writing or have no width,
    and halves of surrogate pairs come from names in files that others made.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def cell(value: object) -> object:
    """A cell for a CSV file: a text that a spreadsheet would run is made plain by a leading quote.

    Numbers stay numbers, the negative ones too, and so do texts that are only a number.

    References:
        OWASP, CSV Injection: cells must not begin with = + - @, a tab or a line break.
    """
    if not isinstance(value, str) or not value.lstrip(" \u00a0").startswith(_FORMULA):
        return value
    return value if _is_number(value) else f"'{value}"


def cells(row: Sequence[object]) -> list[object]:
    """`cell` of each value."""
    return [cell(value) for value in row]


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and text == text.strip()
