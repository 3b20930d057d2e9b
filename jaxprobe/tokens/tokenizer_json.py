"""`tokenizer.json`, read with limits: the library's own parser trusts whatever a file claims."""

import base64
import json
from pathlib import Path
from typing import Any

import tokenizers

from jaxprobe.boundary import MIB, UNPACK_VARIABLE, FileError, read_bytes, reader, unpacked_limit
from jaxprobe.tokens.charsmap import check_charsmap

_FILE_BYTES = 40 * MIB  # Gemma 3's has 33 MB
# Memory that the library's parser takes, measured: per list or object (such as a merge), per value.
_OPENED_BYTES, _VALUE_BYTES = 360, 32
_MEMORY_BYTES = 240 * MIB  # Gemma 3's takes 219
_MOST_IDS = 1 << 22  # vocabularies end below 2^18; the library walks every id up to the largest
_MOST_KEYS = (
    600_000  # in the whole file: a vocabulary of 262,144 and 6,415 added tokens have 310,000
)
_MOST_ADDED = 1 << 15  # added tokens
_ADDED = b'"added_tokens"'
_GROWTH = 64  # most characters that one character may become; Unicode's own forms make 18


def read_tokenizer_json(path: Path) -> tuple[tokenizers.Tokenizer, bool, str | None]:
    """Reads a tokenizer of the `tokenizers` library, without its truncation and padding.

    Returns:
        The tokenizer, whether one of its steps is named ByteLevel, and the token that its padding
        names: to transformers that is a declared token.

    Raises:
        FileError: Not a tokenizer.json, or its ids or steps exceed the limits.
    """
    with reader(path, "a tokenizer of the `tokenizers` library", "fetch or save it again"):
        raw = read_bytes(path, _FILE_BYTES)
        _check_memory(path, raw)
        backend = tokenizers.Tokenizer.from_buffer(raw)
        _check_ids(backend, raw)
        if backend.normalizer is not None:
            growth = _growth(json.loads(backend.normalizer.__getstate__()))
            if growth > _GROWTH:
                raise ValueError(
                    f"its normalizer must make at most {_GROWTH} characters of one, got {growth:,.0f}"
                )
        unknown = getattr(backend.model, "unk_token", None)
        words = isinstance(backend.model, tokenizers.models.WordPiece | tokenizers.models.WordLevel)
        if words and backend.model.token_to_id(unknown) is None:
            raise ValueError(f"`unk_token` of its model must be in the vocabulary, got {unknown!r}")
        if getattr(backend.model, "dropout", None):
            raise ValueError(
                "`dropout` of its model must be null: with it, a text's ids differ each time"
            )
        pad = backend.padding["pad_token"] if backend.padding else None
        backend.no_truncation()
        backend.no_padding()
        return backend, b'"ByteLevel"' in raw, pad


def _check_memory(path: Path, raw: bytes) -> None:
    for what, count, most in (
        ("entries", raw.count(b'":'), _MOST_KEYS),
        ("added tokens", raw.count(b'"single_word"'), _MOST_ADDED),
    ):
        if count > most:
            raise FileError(f"{path} must have at most {most:,} {what}, got {count:,}")
    opened = raw.count(b"[") + raw.count(b"{")
    needed = _OPENED_BYTES * opened + _VALUE_BYTES * raw.count(b",")
    if needed > max(_MEMORY_BYTES, unpacked_limit(len(raw))):
        raise FileError(
            f"{path} would take about {needed // MIB} MiB to read; if that is intended, set"
            f" {UNPACK_VARIABLE} (or --unpack_limit_mib) to the MiB it may take"
        )


def _check_ids(backend: tokenizers.Tokenizer, raw: bytes) -> None:
    ids = backend.get_vocab(with_added_tokens=True)
    largest = max(ids.values(), default=0)
    if largest >= _MOST_IDS:
        token = max(ids, key=ids.__getitem__)
        raise ValueError(f"the id of {token[:50]!r} must be below {_MOST_IDS:,}, got {largest:,}")
    # The library numbers added tokens by itself, whatever the file says.
    at = raw.find(_ADDED)
    if at >= 0:
        part = raw[at + len(_ADDED) : max(raw.find(b'"model"', at), 0) or None]
        listed, _ = json.JSONDecoder().raw_decode(part.lstrip(b": \r\n\t").decode())
        for token in listed:
            text, index = token["content"], token["id"]
            if ids.get(text) != index:
                raise ValueError(
                    f"added token {text[:50]!r} has the id {index}, but after the vocabulary and the"
                    f" tokens before it, its id is {ids.get(text)}"
                )


def _growth(step: dict[str, Any]) -> float:
    """An upper bound on how many characters a normalizer makes of one."""
    kind = step.get("type")
    if kind == "Prepend":
        return 1.0 + len(step["prepend"])
    if kind == "Sequence":
        growth = 1.0
        for inner in step["normalizers"]:
            growth *= _growth(inner)
            if growth > 1e9:  # a long chain of steps would overflow
                break
        return growth
    if kind == "Replace":
        (text,) = step["pattern"].values()
        # A pattern may match the empty string between any two characters.
        least = len(text) if "String" in step["pattern"] else 1
        return max(1.0, len(step["content"]) / max(1, least))
    if kind == "Precompiled":
        check_charsmap(base64.b64decode(step["precompiled_charsmap"]))
    return 1.0
