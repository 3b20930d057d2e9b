"""The vocabulary inside a GGUF file: SentencePiece pieces, or byte-level BPE with its merges.

The keys are read as llama.cpp reads them; a file that leaves out what decides the ids is refused.

References:
    https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers.models import BPE

from jaxprobe.boundary import reader
from jaxprobe.gguf_file import GgufFile, open_gguf
from jaxprobe.tokens.begin import LAST_RESORT
from jaxprobe.tokens.byte_level import GPT2_CUT, LLAMA3_CUT, QWEN_CUT, backend_of_bytes
from jaxprobe.tokens.pieces import (
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    USER_DEFINED,
    Pieces,
    backend_of,
    check_pieces,
)
from jaxprobe.tokens.tokenizer import Tokenizer, pinned

_PREFIX = "tokenizer.ggml."
_MARKS = ("bos", "eos", "unknown")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Pre:
    """What a value of `tokenizer.ggml.pre` stands for.

    Attributes:
        cut: Pattern of the parts within which bytes are merged; None for GPT-2's.
        composed: Whether a text is composed first, as the models' own tokenizers do.
        digits: Whether digits are separated before the cut.
        whole_words: Whether words of the vocabulary skip the merges.
        has_bos: Whether BOS is the default.
    """

    cut: str | None
    composed: bool = False
    digits: bool = False
    whole_words: bool = False
    has_bos: bool = False


_LLAMA3 = _Pre(cut=LLAMA3_CUT, whole_words=True, has_bos=True)
_BYTE_LEVEL: Mapping[str, _Pre] = {
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), _LLAMA3),
    "qwen2": _Pre(cut=QWEN_CUT, composed=True),
    "deepseek-r1-qwen": _Pre(cut=QWEN_CUT),
    "gpt-2": _Pre(cut=GPT2_CUT),
    "smollm": _Pre(cut=GPT2_CUT, digits=True),
}


def load_tokenizer(path: Path) -> Tokenizer:
    """Reads the tokenizer inside a GGUF file.

    Raises:
        FileError: The file's vocabulary is damaged, or of a kind that is not supported.
    """
    return from_gguf(open_gguf(path))


def from_gguf(file: GgufFile) -> Tokenizer:
    """Builds the tokenizer that an open GGUF file describes.

    Raises:
        FileError: The metadata names another kind of tokenizer, or leaves out what decides the ids.
    """
    with reader(file.path, "a GGUF file with a tokenizer", "use another conversion of the model"):
        kind = file.value(f"{_PREFIX}model")
        if _flag(file, "add_eos_token", False):
            raise ValueError(
                f"`{_PREFIX}add_eos_token` must be false, got true: a prompt is read at its own last"
                " token"
            )
        if kind == "gpt2":
            return _byte_level(file)
        if kind != "llama":
            raise ValueError(
                f"`{_PREFIX}model` must be 'llama' (SentencePiece) or 'gpt2' (byte-level BPE), got"
                f" {kind!r}"
            )
        if str(file.value("general.architecture")).startswith("gemma"):
            return _gemma(file)
        return _llama(file)


def _gemma(file: GgufFile) -> Tokenizer:
    """Gemma's SentencePiece BPE.

    The file lists pieces but no merges. As in SentencePiece, the pair that makes the earliest piece
    merges first; the scores in Gemma's files do not follow that order, the positions do.
    """
    got = file.value(f"{_PREFIX}add_space_prefix")
    if got is not False:
        raise ValueError(f"`{_PREFIX}add_space_prefix` must be False, got {got!r}")
    raw, kinds = _vocabulary(file)
    # Runs of two or more spaces are stored as plain spaces, which a normalised text never holds.
    pieces = [SPACE * len(piece) if piece.isspace() and " " in piece else piece for piece in raw]
    unknown = pieces[_index(file, "unknown", len(pieces))]
    backend = backend_of(Pieces(pieces=pieces, kinds=kinds, scores=None, unknown=unknown))
    bos_id, pad_id, begin = _marks(file, pieces, has_bos=True)
    digest = hashlib.sha256(
        b"sentencepiece-bpe 1 %d %d\n" % (-1 if bos_id is None else bos_id, pad_id)
    )
    digest.update("\0".join(pieces).encode())
    digest.update(np.asarray(kinds, np.int32).tobytes())
    return Tokenizer(
        backend=backend,
        bos_id=bos_id,
        pad_id=pad_id,
        vocab_size=len(pieces),
        fingerprint=digest.hexdigest(),
        begin_id=begin,
    )


def _llama(file: GgufFile) -> Tokenizer:
    """Llama 2's and Mistral's SentencePiece BPE: the scores give the order of merges."""
    if len(file.metadata.get(f"{_PREFIX}precompiled_charsmap", ())):
        raise ValueError(f"`{_PREFIX}precompiled_charsmap` is not supported")
    pieces, kinds = _vocabulary(file)
    scores = np.asarray(file.value(f"{_PREFIX}scores"), np.float64).tolist()
    if len(scores) != len(pieces):
        raise ValueError(f"`{_PREFIX}scores` must have {len(pieces)} entries, got {len(scores)}")
    check_pieces(pieces, scores)
    given = Pieces(
        pieces=pieces,
        kinds=kinds,
        scores=scores,
        unknown=pieces[_index(file, "unknown", len(pieces), 0)],
        space_prefix=_flag(file, "add_space_prefix", True),
        squeeze_spaces=_flag(file, "remove_extra_whitespaces", False),
    )
    return pinned(backend_of(given), *_marks(file, pieces, has_bos=True))


def _byte_level(file: GgufFile) -> Tokenizer:
    """Byte-level BPE: Llama 3, Qwen 2 to 3."""
    # Files of early 2024 lack the key; llama.cpp warns, then cuts texts in a way that fits no family.
    name = file.value(f"{_PREFIX}pre")
    if name not in _BYTE_LEVEL:
        raise ValueError(f"`{_PREFIX}pre` must be one of {', '.join(_BYTE_LEVEL)}, got {name!r}")
    pre = _BYTE_LEVEL[name]
    pieces, kinds = _vocabulary(file)
    merges = [tuple(pair.split(" ")) for pair in file.value(f"{_PREFIX}merges")]
    if any(len(pair) != 2 for pair in merges):
        raise ValueError(f"`{_PREFIX}merges` must hold pairs")
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    if len(vocabulary) != len(pieces):
        raise ValueError(f"the vocabulary repeats {len(pieces) - len(vocabulary)} pieces")
    model = BPE(vocabulary, merges, ignore_merges=pre.whole_words)
    backend = backend_of_bytes(model, pre.cut, composed=pre.composed, digits=pre.digits)
    special = [p for p, kind in zip(pieces, kinds, strict=True) if kind in (CONTROL, UNKNOWN)]
    added = [p for p, kind in zip(pieces, kinds, strict=True) if kind == USER_DEFINED]
    backend.add_special_tokens(
        [tokenizers.AddedToken(piece, normalized=False, special=True) for piece in special]
    )
    backend.add_tokens([tokenizers.AddedToken(piece, normalized=False) for piece in added])
    return pinned(backend, *_marks(file, pieces, pre.has_bos))


def _vocabulary(file: GgufFile) -> tuple[Sequence[str], Sequence[int]]:
    """Pieces and their kinds; what the file names as BOS, EOS or unknown is no ordinary piece."""
    pieces = file.value(f"{_PREFIX}tokens")
    if not isinstance(pieces, list) or not all(isinstance(piece, str) for piece in pieces):
        raise ValueError(f"`{_PREFIX}tokens` must be texts")
    kinds = np.asarray(file.value(f"{_PREFIX}token_type"), np.int64).tolist()
    if len(kinds) != len(pieces):
        raise ValueError(f"`{_PREFIX}token_type` must have {len(pieces)} entries, got {len(kinds)}")
    check_pieces(pieces)
    for name in _MARKS:
        index = _index(file, name, len(pieces), -1)
        if index >= 0 and kinds[index] == NORMAL:
            kinds[index] = CONTROL
    return pieces, kinds


def _marks(
    file: GgufFile, pieces: Sequence[str], has_bos: bool
) -> tuple[int | None, int, int | None]:
    """Ids of BOS where prompts open with it, of padding, and of what `bos="on"` puts in front."""
    size = len(pieces)
    bos_id = _index(file, "bos", size) if _flag(file, "add_bos_token", has_bos) else None
    eos_id = _index(file, "eos", size, 0 if bos_id is None else bos_id)
    last = next((index for index, piece in enumerate(pieces) if piece == LAST_RESORT), -1)
    begin = _index(file, "bos", size, _index(file, "eos", size, last))
    return bos_id, _index(file, "padding", size, eos_id), None if begin < 0 else begin


def _index(file: GgufFile, name: str, size: int, absent: int | None = None) -> int:
    """The id of a special piece."""
    key = f"{_PREFIX}{name}_token_id"
    if absent is not None and key not in file.metadata:
        return absent
    index = file.value(key)
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < size:
        raise ValueError(f"`{key}` must be the id of one of {size:,} pieces, got {index!r}")
    return index


def _flag(file: GgufFile, name: str, absent: bool) -> bool:
    value = file.metadata.get(f"{_PREFIX}{name}", absent)
    if not isinstance(value, bool):
        raise ValueError(f"`{_PREFIX}{name}` must be true or false, got {value!r}")
    return value
