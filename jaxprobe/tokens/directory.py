"""Tokenizer files beside a model's weights: `tokenizer.json`, `tokenizer.model`, or vocabulary and merges."""

import json
from pathlib import Path
from typing import Any

import tokenizers

from jaxprobe.tokens.begin import begin_id
from jaxprobe.tokens.merges_file import MERGES, VOCABULARY, read_merges
from jaxprobe.tokens.pieces import backend_of
from jaxprobe.tokens.spm_model import read_model
from jaxprobe.tokens.tokenizer import Tokenizer, pinned

_FAST, _SENTENCEPIECE, _CONFIG = "tokenizer.json", "tokenizer.model", "tokenizer_config.json"
_KINDS = ((_FAST,), (_SENTENCEPIECE,), (VOCABULARY, MERGES))  # the first that is there counts


def directory_files(folder: Path) -> tuple[Path, ...]:
    """The files of `folder` that decide the ids; none where it holds no tokenizer."""
    for names in _KINDS:
        found = [folder / name for name in names]
        if all(path.is_file() for path in found):
            settings = folder / _CONFIG
            return (*found, *([settings] if settings.is_file() else []))
    return ()


def from_directory(folder: Path) -> Tokenizer | None:
    """The tokenizer of a Hugging Face directory, or None where it holds none.

    Whether a prompt opens with BOS is the reference tokenizer's rule: what the post-processor of
    tokenizer.json does (transformers 5 no longer asks tokenizer_config.json then); with a SentencePiece
    model, `add_bos_token` of tokenizer_config.json, by default yes if it has a BOS; with `vocab.json` and
    `merges.txt`, the same field, by default no. Truncation and
    padding that tokenizer.json asks for are left out: `token_ids` truncates, from the left.

    Raises:
        ValueError: A damaged file, or a rule that is not supported: an EOS, several tokens in front.
    """
    files = directory_files(folder)
    if not files:
        return None
    settings = _settings(folder / _CONFIG)
    if files[0].name == _FAST:
        return _fast(files[0], settings)
    if files[0].name == VOCABULARY:
        return read_merges(folder, settings, folder / _CONFIG)
    if settings.get("add_eos_token"):
        raise ValueError(
            f"`add_eos_token` of {folder / _CONFIG} must be false, got true: a prompt is read at its own"
            " last token"
        )
    given, bos_id, pad_id = read_model(files[0])
    backend = backend_of(given)
    begin = begin_id(backend, settings) if bos_id is None else bos_id
    bos_id = None if settings.get("add_bos_token") is False else bos_id
    return pinned(backend, bos_id, pad_id if pad_id is not None else bos_id or 0, begin)


def _fast(path: Path, settings: dict[str, Any]) -> Tokenizer:
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exceptions
        raise ValueError(
            f"{path} is not a tokenizer of the `tokenizers` library ({error})"
        ) from error
    backend.no_truncation()
    backend.no_padding()
    bos_id = _post_processed_bos(path, backend)
    marks = [_token_id(backend, settings, name) for name in ("pad", "eos")]
    known = [i for i in (*marks, bos_id) if i is not None]
    return pinned(backend, bos_id, known[0] if known else 0, begin_id(backend, settings))


def _post_processed_bos(path: Path, backend: tokenizers.Tokenizer) -> int | None:
    """What the post-processor puts in front of a text."""
    bare = backend.encode("a", add_special_tokens=False).ids
    full = backend.encode("a", add_special_tokens=True).ids
    front = len(full) - len(bare)
    if front > 1 or full[front:] != bare:
        raise ValueError(
            f"the post-processor of {path} must put one token at most, in front of a text; it makes"
            f" {full} of {bare}"
        )
    return full[0] if front else None


def _token_id(backend: tokenizers.Tokenizer, settings: dict[str, Any], name: str) -> int | None:
    token = settings.get(f"{name}_token")
    text = token.get("content") if isinstance(token, dict) else token
    return None if text is None else backend.token_to_id(text)


def _settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} must hold JSON ({error})") from error
    return settings if isinstance(settings, dict) else {}
