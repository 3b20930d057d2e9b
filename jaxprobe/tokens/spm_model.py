"""SentencePiece's `tokenizer.model`: the few fields of its protocol buffer that decide the ids.

References:
    https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
    https://protobuf.dev/programming-guides/encoding
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxprobe.boundary import MIB, read_bytes, reader
from jaxprobe.tokens.charsmap import check_charsmap
from jaxprobe.tokens.pieces import NORMAL, Pieces, check_pieces

_FILE_BYTES = 16 * MIB  # Gemma's has 4.5 MB for 262,144 pieces
_MOST_PIECES, _MOST_FIELDS = 3 << 17, 1 << 12  # of a model; of a piece or specification
_UNIGRAM, _BPE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Field numbers of ModelProto, of a piece, of TrainerSpec and of NormalizerSpec.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE, _SCORE, _TYPE = 1, 2, 3
_MODEL_TYPE, _BYTE_FALLBACK, _UNK_ID, _BOS_ID, _EOS_ID, _PAD_ID = 3, 35, 40, 41, 42, 43
_UNK_PIECE, _BOS_PIECE, _EOS_PIECE = 45, 46, 47
_TREAT_AS_SUFFIX = 24
_CHARSMAP, _DUMMY_PREFIX, _SQUEEZE, _ESCAPE = 2, 3, 4, 5
# Role, field of its id, that id by default, field of its text, that text by default.
_ROLES = (
    ("bos_token", _BOS_ID, 1, _BOS_PIECE, "<s>"),
    ("eos_token", _EOS_ID, 2, _EOS_PIECE, "</s>"),
    ("unk_token", _UNK_ID, 0, _UNK_PIECE, "<unk>"),
)


def read_model(path: Path) -> tuple[Pieces, int | None, int | None]:
    """Reads a SentencePiece model.

    Returns:
        The vocabulary, and the ids of BOS and of padding (None where it has none).

    Raises:
        FileError: Not a SentencePiece model, or a kind or setting that is not supported.
    """
    with reader(path, "a SentencePiece model", "fetch it again"):
        model = list(_fields(read_bytes(path, _FILE_BYTES), _MOST_PIECES))
        pieces = [dict(_fields(value)) for number, value in model if number == _PIECES]
        trainer = dict(_fields(b"".join(v for n, v in model if n == _TRAINER)))
        normalizer = dict(_fields(b"".join(v for n, v in model if n == _NORMALIZER)))
        given = _given(pieces, trainer, normalizer)
        ids = []
        for number, assumed in ((_BOS_ID, 1), (_PAD_ID, -1)):
            index = _signed(trainer.get(number, assumed))
            if index >= len(pieces):
                raise ValueError(f"id {index} of a special piece is beyond {len(pieces)} pieces")
            ids.append(index if index >= 0 else None)
        return given, ids[0], ids[1]


def _given(pieces: list[dict], trainer: dict, normalizer: dict) -> Pieces:
    kind = trainer.get(_MODEL_TYPE, _UNIGRAM)
    if kind not in (_UNIGRAM, _BPE):
        raise ValueError(f"`model_type` must be 1 (unigram) or 2 (BPE), got {kind}")
    for spec, number, name, wanted in (
        (normalizer, _ESCAPE, "escape_whitespaces", 1),
        (trainer, _TREAT_AS_SUFFIX, "treat_whitespace_as_suffix", 0),
    ):
        if spec.get(number, wanted) != wanted:
            raise ValueError(f"`{name}` = {not wanted} is not supported")
    texts = [piece[_PIECE].decode() for piece in pieces]
    scores = [piece.get(_SCORE, 0.0) for piece in pieces]
    check_pieces(texts, scores)
    unknown = _signed(trainer.get(_UNK_ID, 0))
    if not 0 <= unknown < len(texts):
        raise ValueError(f"`unk_id` must be the id of one of {len(texts)} pieces, got {unknown}")
    charsmap = normalizer.get(_CHARSMAP, b"")
    check_charsmap(charsmap)
    return Pieces(
        pieces=texts,
        kinds=[piece.get(_TYPE, NORMAL) for piece in pieces],
        scores=scores,
        unknown=texts[unknown],
        byte_fallback=bool(trainer.get(_BYTE_FALLBACK, 0)),
        unigram=kind == _UNIGRAM,
        space_prefix=bool(normalizer.get(_DUMMY_PREFIX, 1)),
        squeeze_spaces=bool(normalizer.get(_SQUEEZE, 1)),
        charsmap=charsmap,
        named={
            role: trainer.get(field, assumed.encode()).decode() or assumed
            for role, number, by_default, field, assumed in _ROLES
            if _signed(trainer.get(number, by_default)) >= 0
        },
    )


def _fields(raw: bytes, most: int = _MOST_FIELDS) -> Iterator[tuple[int, Any]]:
    """Yields (number, value) of each field of a message, in order; 32-bit fields as floats."""
    at = count = 0
    while at < len(raw):
        count += 1
        if count > most:
            raise ValueError(f"it holds more than {most:,} fields")
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
    value = 0
    for shift in range(0, 70, 7):  # 64 bits at most
        if at >= len(raw):
            raise ValueError("it ends inside a number")
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise ValueError("it holds a number of more than 64 bits")


def _signed(value: int) -> int:
    """Protocol buffers write a negative int32 as 64 bits."""
    return value - (1 << 64) if value >= 1 << 63 else value
