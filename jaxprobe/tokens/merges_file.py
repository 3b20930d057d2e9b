"""`vocab.json` with `merges.txt`: byte-level BPE of Qwen 2 to 3 and GPT-NeoX without a tokenizer.json.

The two files do not say how a text is cut or which tokens stand beside the vocabulary: the cut is the
one of `tokenizer_class`, and tokenizer_config.json must list every added token.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers.models import BPE

from jaxprobe.tokens.begin import begin_id
from jaxprobe.tokens.byte_level import GPT2_CUT, QWEN_CUT, backend_of_bytes
from jaxprobe.tokens.tokenizer import Tokenizer, pinned

VOCABULARY, MERGES = "vocab.json", "merges.txt"
# Cut, and the special tokens that the class assumes where nothing names them.
_CLASSES: Mapping[str, tuple[str | None, dict[str, str]]] = {
    "Qwen2Tokenizer": (QWEN_CUT, {"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}),
    "GPTNeoXTokenizer": (
        GPT2_CUT,
        {"unk_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "pad_token": "<|padding|>"},
    ),
}
_ASSUMED = {"eos_token": "<|endoftext|>"}
_NAMES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "pad_token",
    "sep_token",
    "cls_token",
    "mask_token",
)
_LISTS = ("additional_special_tokens", "extra_special_tokens")
_REFUSED = ("add_eos_token", "add_prefix_space", "split_special_tokens")


def read_merges(folder: Path, settings: Mapping[str, Any], settings_path: Path) -> Tokenizer:
    """Builds the tokenizer of a folder's `vocab.json` and `merges.txt`.

    Args:
        folder: Where the two files lie.
        settings: The contents of tokenizer_config.json.
        settings_path: Its path, for messages.

    Raises:
        ValueError: A damaged file, a class that is not known, or a rule that is not supported.
    """
    name = str(settings.get("tokenizer_class") or "").removesuffix("Fast")
    if name not in _CLASSES:
        raise ValueError(
            f"{folder} holds {VOCABULARY} and {MERGES} without a tokenizer.json; they are read where"
            f" `tokenizer_class` of {settings_path.name} is {' or '.join(_CLASSES)}, got {name!r}; save"
            " the tokenizer with transformers, which writes tokenizer.json"
        )
    for key in _REFUSED:
        if settings.get(key):
            raise ValueError(f"`{key}` of {settings_path} must be false, got {settings[key]!r}")
    cut, assumed = _CLASSES[name]
    try:
        vocabulary, merges = BPE.read_file(str(folder / VOCABULARY), str(folder / MERGES))
        model = BPE(vocabulary, merges)
    except Exception as error:  # the library raises plain Exceptions
        raise ValueError(
            f"{folder} must hold {VOCABULARY} and {MERGES} that fit together ({error})"
        ) from error
    backend = backend_of_bytes(model, cut, composed=True)
    _add_tokens(backend, settings, settings_path)
    named = {**_ASSUMED, **assumed, **settings}
    known = backend.get_added_tokens_decoder().values()
    absent = sorted(set(_special(named)) - {token.content for token in known})
    if absent:
        raise ValueError(
            f"`added_tokens_decoder` of {settings_path} must list every special token, and lacks"
            f" {absent[0]!r}; save the tokenizer with transformers, which writes tokenizer.json"
        )
    pads = [_content(named[key]) for key in ("pad_token", "eos_token") if named[key]]
    bos_id = None
    if settings.get("add_bos_token") and named.get("bos_token"):
        bos_id = backend.token_to_id(_content(named["bos_token"]))
    pad_id = backend.token_to_id(pads[0]) or 0 if pads else 0
    return pinned(backend, bos_id, pad_id, begin_id(backend, named))


def _add_tokens(backend: tokenizers.Tokenizer, settings: Mapping[str, Any], path: Path) -> None:
    """Adds what `added_tokens_decoder` lists, each at its own id."""
    listed = settings.get("added_tokens_decoder") or {}
    try:
        tokens = {
            int(key): {"content": str(token["content"]), **token} for key, token in listed.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"`added_tokens_decoder` of {path} must map ids to tokens with a `content` ({error!r})"
        ) from error
    for index, fields in sorted(tokens.items()):
        flags = {
            key: bool(fields.get(key)) for key in ("single_word", "lstrip", "rstrip", "special")
        }
        normalized = fields.get("normalized", not flags["special"])
        backend.add_tokens(
            [tokenizers.AddedToken(fields["content"], normalized=normalized, **flags)]
        )
        got = backend.token_to_id(fields["content"])
        if got != index:
            raise ValueError(
                f"token {fields['content']!r} of `added_tokens_decoder` in {path} must have the id"
                f" {got} behind the vocabulary and the tokens before it, got {index}"
            )


def _special(settings: Mapping[str, Any]) -> Iterator[str]:
    """The texts of all named special tokens."""
    for key in _NAMES:
        if settings.get(key):
            yield _content(settings[key])
    for key in _LISTS:
        yield from (_content(token) for token in settings.get(key) or ())


def _content(token: Any) -> str:
    return token["content"] if isinstance(token, dict) else str(token)
