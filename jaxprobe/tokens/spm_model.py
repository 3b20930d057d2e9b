"""SentencePiece's `tokenizer.model`: the few fields of its protocol buffer that decide the ids.

References:
    https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
    https://protobuf.dev/programming-guides/encoding
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxprobe.tokens.pieces import NORMAL, Pieces

_UNIGRAM, _BPE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Field numbers of ModelProto, of a piece, of TrainerSpec and of NormalizerSpec.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE, _SCORE, _TYPE = 1, 2, 3
_MODEL_TYPE, _BYTE_FALLBACK, _UNK_ID, _BOS_ID, _PAD_ID = 3, 35, 40, 41, 43
_TREAT_AS_SUFFIX = 24
_CHARSMAP, _DUMMY_PREFIX, _SQUEEZE, _ESCAPE = 2, 3, 4, 5


def read_model(path: Path) -> tuple[Pieces, int | None, int | None]:
    """Reads a SentencePiece model.

    Returns:
        The vocabulary, and the ids of BOS and of padding (None where it has none).

    Raises:
        ValueError: Not such a file, or a kind of model or setting that is not supported.
    """
    try:
        model = list(_fields(path.read_bytes()))
        pieces = [dict(_fields(value)) for number, value in model if number == _PIECES]
        trainer = dict(_fields(b"".join(v for n, v in model if n == _TRAINER)))
        normalizer = dict(_fields(b"".join(v for n, v in model if n == _NORMALIZER)))
        texts = [piece[_PIECE].decode() for piece in pieces]
        unknown = texts[_signed(trainer.get(_UNK_ID, 0))]
    except (IndexError, KeyError, TypeError, AttributeError, struct.error, ValueError) as error:
        raise ValueError(f"{path} is not a whole SentencePiece model ({error!r})") from error
    kind = trainer.get(_MODEL_TYPE, _UNIGRAM)
    if kind not in (_UNIGRAM, _BPE):
        raise ValueError(f"`model_type` of {path} must be 1 (unigram) or 2 (BPE), got {kind}")
    for spec, number, name, wanted in (
        (normalizer, _ESCAPE, "escape_whitespaces", 1),
        (trainer, _TREAT_AS_SUFFIX, "treat_whitespace_as_suffix", 0),
    ):
        if spec.get(number, wanted) != wanted:
            raise ValueError(f"`{name}` = {not wanted} of {path} is not supported")
    given = Pieces(
        pieces=texts,
        kinds=[piece.get(_TYPE, NORMAL) for piece in pieces],
        scores=[piece.get(_SCORE, 0.0) for piece in pieces],
        unknown=unknown,
        byte_fallback=bool(trainer.get(_BYTE_FALLBACK, 0)),
        unigram=kind == _UNIGRAM,
        space_prefix=bool(normalizer.get(_DUMMY_PREFIX, 1)),
        squeeze_spaces=bool(normalizer.get(_SQUEEZE, 1)),
        charsmap=normalizer.get(_CHARSMAP, b""),
    )
    bos_id, pad_id = _signed(trainer.get(_BOS_ID, 1)), _signed(trainer.get(_PAD_ID, -1))
    return given, bos_id if bos_id >= 0 else None, pad_id if pad_id >= 0 else None


def _fields(raw: bytes) -> Iterator[tuple[int, Any]]:
    """Pairs (number, value) of a message, in its order; of 32-bit fields the float."""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(raw, at)
        elif wire == _BYTES:
            size, at = _varint(raw, at)
            value, at = raw[at : at + size], at + size
            if len(value) != size:
                raise ValueError("it ends inside a field")
        elif wire in (_FIXED32, _FIXED64):
            (value,) = struct.unpack_from("<f" if wire == _FIXED32 else "<d", raw, at)
            at += 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire}")
        yield number, value


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _signed(value: int) -> int:
    """Protocol buffers write a negative int32 as 64 bits."""
    return value - (1 << 64) if value >= 1 << 63 else value
