"""The vocabulary inside a GGUF file: SentencePiece pieces, or byte-level BPE with its merges."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers.models import BPE

from jaxprobe.gguf_file import GgufFile, open_gguf
from jaxprobe.tokens.byte_level import GPT2_CUT, LLAMA3_CUT, QWEN_CUT, backend_of_bytes
from jaxprobe.tokens.pieces import CONTROL, SPACE, USER_DEFINED, Pieces, backend_of
from jaxprobe.tokens.tokenizer import Tokenizer, pinned

_PREFIX = "tokenizer.ggml."
# `tokenizer.ggml.pre` -> how a text is cut before merging, whether it is composed first, whether whole
# words of the vocabulary skip the merges, and whether BOS is the default.
_BYTE_LEVEL: Mapping[str, tuple[str | None, bool, bool, bool]] = {
    "llama-bpe": (LLAMA3_CUT, False, True, True),
    "llama3": (LLAMA3_CUT, False, True, True),
    "qwen2": (QWEN_CUT, True, False, False),
    "gpt-2": (GPT2_CUT, False, False, False),
}


def load_tokenizer(path: Path) -> Tokenizer:
    """Reads the tokenizer inside a GGUF file.

    Raises:
        ValueError: The file's vocabulary is of a kind that is not supported.
    """
    return from_gguf(open_gguf(path))


def from_gguf(file: GgufFile) -> Tokenizer:
    """Builds the tokenizer that an open GGUF file describes.

    Raises:
        ValueError: The metadata names another kind of tokenizer.
    """
    kind = file.value(f"{_PREFIX}model")
    if _optional(file, "add_eos_token", False):
        raise ValueError(
            f"`{_PREFIX}add_eos_token` must be false, got true: a prompt is read at its own last token"
        )
    if kind == "gpt2":
        return _byte_level(file)
    if kind != "llama":
        raise ValueError(
            f"the GGUF file's `{_PREFIX}model` must be 'llama' (SentencePiece) or 'gpt2' (byte-level"
            f" BPE), got {kind!r}"
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
        raise ValueError(f"the GGUF file's `{_PREFIX}add_space_prefix` must be False, got {got!r}")
    raw, kinds = file.value(f"{_PREFIX}tokens"), file.value(f"{_PREFIX}token_type")
    # Runs of two and more spaces are stored as spaces, which no normalised text holds.
    pieces = [SPACE * len(piece) if piece.isspace() and " " in piece else piece for piece in raw]
    bos_id, pad_id = (int(file.value(f"{_PREFIX}{name}_token_id")) for name in ("bos", "padding"))
    unknown = pieces[file.value(f"{_PREFIX}unknown_token_id")]
    backend = backend_of(Pieces(pieces=pieces, kinds=kinds, scores=None, unknown=unknown))
    digest = hashlib.sha256(b"sentencepiece-bpe 1 %d %d\n" % (bos_id, pad_id))
    digest.update("\0".join(pieces).encode())
    digest.update(np.asarray(kinds, np.int32).tobytes())
    return Tokenizer(
        backend=backend,
        bos_id=bos_id,
        pad_id=pad_id,
        vocab_size=len(pieces),
        fingerprint=digest.hexdigest(),
    )


def _llama(file: GgufFile) -> Tokenizer:
    """Llama 2's and Mistral's SentencePiece BPE: scores say the order of merges."""
    if len(_optional(file, "precompiled_charsmap", ())):
        raise ValueError(f"`{_PREFIX}precompiled_charsmap` of {file.path.name} is not supported")
    pieces = file.value(f"{_PREFIX}tokens")
    given = Pieces(
        pieces=pieces,
        kinds=file.value(f"{_PREFIX}token_type"),
        scores=np.asarray(file.value(f"{_PREFIX}scores")).tolist(),
        unknown=pieces[int(_optional(file, "unknown_token_id", 0))],
        space_prefix=bool(_optional(file, "add_space_prefix", True)),
        squeeze_spaces=bool(_optional(file, "remove_extra_whitespaces", False)),
    )
    return _with_marks(file, backend_of(given), has_bos=True)


def _byte_level(file: GgufFile) -> Tokenizer:
    """Byte-level BPE: Llama 3, Qwen 2 to 3."""
    name = str(_optional(file, "pre", "gpt-2"))
    if name not in _BYTE_LEVEL:
        raise ValueError(
            f"`{_PREFIX}pre` of {file.path.name} must be one of {', '.join(_BYTE_LEVEL)}, got {name!r}"
        )
    cut, composed, whole_words, has_bos = _BYTE_LEVEL[name]
    pieces = file.value(f"{_PREFIX}tokens")
    merges = [tuple(pair.split(" ", 1)) for pair in file.value(f"{_PREFIX}merges")]
    model = BPE(
        {piece: index for index, piece in enumerate(pieces)}, merges, ignore_merges=whole_words
    )
    backend = backend_of_bytes(model, cut, composed=composed)
    kinds = np.asarray(file.value(f"{_PREFIX}token_type"))
    special = [pieces[index] for index in np.flatnonzero(kinds == CONTROL)]
    added = [pieces[index] for index in np.flatnonzero(kinds == USER_DEFINED)]
    backend.add_special_tokens(
        [tokenizers.AddedToken(piece, normalized=False, special=True) for piece in special]
    )
    backend.add_tokens([tokenizers.AddedToken(piece, normalized=False) for piece in added])
    return _with_marks(file, backend, has_bos)


def _with_marks(file: GgufFile, backend: tokenizers.Tokenizer, has_bos: bool) -> Tokenizer:
    bos_id = None
    if _optional(file, "add_bos_token", has_bos):
        bos_id = int(file.value(f"{_PREFIX}bos_token_id"))
    end_id = _optional(file, "eos_token_id", None)
    fallback = end_id if end_id is not None else bos_id or 0
    begin = _optional(file, "bos_token_id", end_id)
    begin = backend.token_to_id("<|endoftext|>") if begin is None else int(begin)
    return pinned(backend, bos_id, int(_optional(file, "padding_token_id", fallback)), begin)


def _optional(file: GgufFile, key: str, default):
    return file.metadata.get(f"{_PREFIX}{key}", default)
