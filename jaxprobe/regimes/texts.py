"""Repeated texts: what protocol `dedup` keeps, and how much a split leaks."""

import unicodedata
from collections.abc import Callable

import numpy as np

from jaxprobe import base


def normalised(text: str) -> str:
    """A text as `dedup_by="normalised"` compares it: composed (NFC) and stripped."""
    return unicodedata.normalize("NFC", text).strip()


DEDUP_BY: dict[str, Callable[[str], str]] = {"exact": str, "normalised": normalised}


def distinct_rows(texts: tuple[str, ...], y_N: np.ndarray, dedup_by: str = "exact") -> np.ndarray:
    """First row of every text, in row order, leaving out texts that carry both labels."""
    first: dict[str, int] = {}
    conflicting = set()
    for row, text in enumerate(map(DEDUP_BY[dedup_by], texts)):
        if y_N[first.setdefault(text, row)] != y_N[row]:
            conflicting.add(text)
    return np.array([row for text, row in first.items() if text not in conflicting], int)


def leak_rate(texts: tuple[str, ...], split: base.Split) -> float:
    """Fraction of a split's (first) test rows whose text is also among its training rows.

    Args:
        texts: Texts of the table whose rows the split numbers.
        split: The split.
    """
    seen = {texts[row] for row in split.train_N}
    return float(np.mean([texts[row] in seen for row in split.test_N]))
