"""Text that other programs show: a terminal acts on some characters, a spreadsheet on others."""

from collections.abc import Sequence

# A spreadsheet takes text that begins with these for a formula, even after a quote or blanks that it strips.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def printable(text: str) -> str:
    r"""One line of text in which characters that a terminal acts on or hides are escaped, as `\x1b`.

    Escapes, C0 and C1 controls, line breaks, marks that change the writing direction or have no width,
    and halves of surrogate pairs can come from names in files made by others.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def cell(value: object) -> object:
    """A cell for a CSV file: a text that a spreadsheet would take for a formula gets a leading quote.

    Numbers stay numbers, also negative ones, and so do texts that are only a number.

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
