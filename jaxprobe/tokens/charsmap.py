"""SentencePiece's compiled map of characters, checked before the library walks it.

The map is a double-array trie followed by the replacements. Each unit of the trie holds an offset to its
children; the `tokenizers` library follows offsets without checking their bounds, and panics.

Axes: N units of the trie, R units that are visited together, C labels of children.

References:
    https://github.com/s-yata/darts-clone
    https://github.com/google/sentencepiece/blob/master/src/normalizer.cc
"""

import numpy as np

_UNIT = np.dtype("<u4")
_VALUE = (1 << 31) - 1
_LABEL = (1 << 31) | 0xFF
_HAS_LEAF = 1 << 8
_BYTES = 1 << 22  # SentencePiece's own largest map has 0.3 MB
_REPLACEMENT = 256  # bytes; the longest of Unicode's compatibility forms has 33
_AT_ONCE = 1024


def check_charsmap(raw: bytes) -> None:
    """Checks that no text can lead outside the map, or grow without bound.

    Raises:
        ValueError: The map is damaged, or larger than `_BYTES`.
    """
    if not raw:
        return
    size = int.from_bytes(raw[:4], "little")
    if size % 4 or not 1024 <= size <= len(raw) - 4 or len(raw) > _BYTES:
        raise ValueError(f"its character map is damaged: {len(raw)} bytes, a trie of {size}")
    unit_N = np.frombuffer(raw, _UNIT, size // 4, offset=4)
    replacements = raw[4 + size :]
    replacements.decode()
    visited_N = np.zeros(len(unit_N), bool)
    waiting = np.zeros(1, np.int64)
    while len(waiting):
        units, waiting = waiting[:_AT_ONCE], waiting[_AT_ONCE:]
        found = _children(units, unit_N, replacements)
        found = found[~visited_N[found]]
        visited_N[found] = True
        waiting = np.concatenate([waiting, found])


def _children(at_R: np.ndarray, unit_N: np.ndarray, replacements: bytes) -> np.ndarray:
    """Positions of the children of the units at `at_R`; checks the values of those units."""
    unit_R = unit_N[at_R].astype(np.int64)
    # Where the children begin: the unit's own position XOR its offset. A child's label is the next
    # byte of the text, so a step may go anywhere in a block of 256.
    first_R = at_R ^ ((unit_R >> 10) << ((unit_R & 512) >> 6))
    if int(first_R.max()) | 0xFF >= len(unit_N):
        raise ValueError("its character map is damaged: a step leaves the trie")
    values = unit_N[first_R[(unit_R & _HAS_LEAF) > 0]] & _VALUE
    for value in np.unique(values).tolist():
        end = replacements.find(b"\0", value, value + _REPLACEMENT)
        if end < 0 or replacements[value] & 0xC0 == 0x80:
            raise ValueError("its character map is damaged: a replacement lies outside of it")
    label_C = np.arange(1, 256)
    child_RC = first_R[:, None] ^ label_C
    return np.unique(child_RC[(unit_N[child_RC] & _LABEL) == label_C])
