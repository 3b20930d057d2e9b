"""Special and added tokens that the files declare, put into a tokenizer in transformers' order.

The order decides the ids of tokens that are not in the vocabulary, and which flags win.

References:
    transformers 5.24, tokenization_utils_base.py (`_from_pretrained`, `__init__`) and
    tokenization_utils_tokenizers.py (`__init__`)
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import AddedToken

from jaxprobe.boundary import reader
from jaxprobe.tokens.folder import ADDED, LISTS, NAMES, SETTINGS, SPECIAL, Folder

_NUMBERED, _SPECIFIC = "added_tokens_decoder", "model_specific_special_tokens"
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_FIX = "save the tokenizer again"
Token = str | AddedToken


@dataclasses.dataclass(frozen=True, kw_only=True)
class Declared:
    """What the files declare.

    Attributes:
        named: Role (`bos_token`, `image_token`, ...) to token, in transformers' order.
        extra: Special tokens without a role.
        numbered: Added tokens by the id that they must have.
    """

    named: Mapping[str, Token]
    extra: Sequence[Token]
    numbered: Mapping[int, AddedToken]

    def text(self, role: str) -> str | None:
        """The text of the token of a role."""
        token = self.named.get(role)
        return None if token is None else _text(token)


def declared(
    folder: Folder,
    stored: Mapping[int, AddedToken],
    assumed: Mapping[str, str | None],
    marked: Sequence[AddedToken] = (),
) -> Declared:
    """Collects the tokens that a folder's files declare.

    tokenizer_config.json alone counts where it holds `added_tokens_decoder`; else special_tokens_map.json
    overrides its special tokens, and added_tokens.json and tokenizer.json number the added ones.

    Args:
        folder: The side files.
        stored: Added tokens of tokenizer.json by id.
        assumed: What the class takes for roles that no file names.
        marked: Control and user-defined pieces of tokenizer.model.

    Raises:
        FileError: A token that is neither a text nor an object with a `content`.
    """
    fields = dict(folder.settings)
    if LISTS[0] in fields and not fields.get(LISTS[1]):
        fields[LISTS[1]] = fields.pop(LISTS[0])
    specific = {
        key: fields.pop(key)
        for key, value in folder.settings.items()
        if key not in NAMES and key.endswith("_token") and isinstance(value, str)
    }
    if isinstance(fields.get(LISTS[1]), dict):
        specific |= fields.pop(LISTS[1])
    if specific:
        fields[_SPECIFIC] = specific
    with reader(folder.path / SETTINGS, "a tokenizer's settings", _FIX):
        if _NUMBERED in fields:
            numbered = {int(key): _token(value) for key, value in fields[_NUMBERED].items()}
        else:
            numbered = _older(folder, fields) | dict(stored)
        fields = {key: _revived(value) for key, value in fields.items() if key != _NUMBERED}
        if marked:
            fields[LISTS[0]] = list(marked)
        return _sorted(fields, assumed, numbered)


def add_to(backend: tokenizers.Tokenizer, given: Declared, folder: Folder) -> None:
    """Adds the declared tokens that a tokenizer lacks, or holds with other flags.

    Raises:
        FileError: A token got another id than the file declares.
    """
    with reader(folder.path, "a tokenizer's folder", _FIX):
        known = backend.get_added_tokens_decoder()
        same = {repr(token) for token in known.values()}
        new: list[Token] = [t for _, t in sorted(given.numbered.items()) if repr(t) not in same]
        texts = {token.content for token in known.values()} | {_text(token) for token in new}
        for token in given.named.values():
            if _text(token) not in texts and not _among(token, new):
                new.append(token)
        for token in given.extra:
            if _text(token) not in texts and not _among(token, new):
                new.append(token)
        roles = {_text(token) for token in given.named.values()}
        made = [AddedToken(t, special=True) if isinstance(t, str) else t for t in new]
        for token in made:
            token.special = token.special or token.content in roles
        backend.add_tokens(made)
    for index, token in given.numbered.items():
        got = backend.token_to_id(token.content)
        if got != index:
            name = SETTINGS if _NUMBERED in folder.settings else ADDED
            raise folder.refused(
                name,
                f"gives token {token.content!r} the id {index}, but after the vocabulary and the"
                f" tokens before it, its id is {got}; {_FIX}",
            )


def _older(folder: Folder, fields: dict[str, Any]) -> dict[int, AddedToken]:
    """Merges special_tokens_map.json into `fields`; returns the tokens of added_tokens.json."""
    with reader(folder.path / SPECIAL, "special tokens", _FIX):
        for key, value in (folder.special or {}).items():
            if isinstance(value, dict) and key != LISTS[1]:
                value = _token(value, special=True)
            elif key == LISTS[1] and isinstance(value, list):
                merged = list(fields.get(key) or [])
                for listed in value:
                    token = _token(listed, special=True) if isinstance(listed, dict) else listed
                    if not _among(token, merged):
                        merged.append(token)
                value = merged
            fields[key] = value
        if isinstance(fields.get(LISTS[1]), dict):
            fields[_SPECIFIC] = {**(fields.get(_SPECIFIC) or {}), **fields.pop(LISTS[1])}
    with reader(folder.path / ADDED, "added tokens", _FIX):
        special = {_text(_revived(fields[key])) for key in NAMES if fields.get(key)}
        special |= {_text(_revived(token)) for token in fields.get(LISTS[1]) or ()}
        return {
            _index(index): AddedToken(text, normalized=text not in special, special=text in special)
            for text, index in (folder.added or {}).items()
        }


def _sorted(
    fields: Mapping[str, Any], assumed: Mapping[str, str | None], numbered: dict[int, AddedToken]
) -> Declared:
    """Roles in transformers' order: the seven that all models have, then the model's own."""
    taken = {**assumed, **{key: fields[key] for key in NAMES if key in fields}}
    named: dict[str, Any] = {key: taken[key] for key in NAMES if taken.get(key) is not None}
    extra = fields[LISTS[1]] if LISTS[1] in fields else fields.get(LISTS[0])
    own = {
        key: value
        for key, value in fields.items()
        if key.endswith("_token") and key not in NAMES and isinstance(value, Token)
    }
    own |= fields.get(_SPECIFIC) or {}
    if isinstance(extra, dict):
        own = extra | own
        extra = []
    if not isinstance(extra, list | None):
        raise ValueError(f"`{LISTS[1]}` must be a list or an object, got {type(extra).__name__}")
    named |= own
    for role, token in (*named.items(), *((LISTS[1], token) for token in extra or ())):
        if not isinstance(token, Token):
            raise ValueError(f"`{role}` must be a text or an added token, got {str(token)[:100]!r}")
    return Declared(named=named, extra=extra or [], numbered=numbered)


def _token(value: Any, **forced: bool) -> AddedToken:
    """The added token that an object describes."""
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        said = str(value)[:100]
        raise ValueError(f"an added token must be an object with a `content`, got {said!r}")
    fields: dict[str, Any] = {k: v for k, v in value.items() if k != "__type"} | forced
    content: str = fields.pop("content")
    unknown = sorted(set(fields) - set(_FLAGS))
    if unknown:  # the library would only print a message
        raise ValueError(f"token {content[:50]!r} has the unknown field {unknown[0][:50]!r}")
    return AddedToken(content, **fields)


def _revived(value: Any) -> Any:
    """Turns the objects that transformers writes for added tokens back into added tokens."""
    if isinstance(value, dict):
        if value.get("__type") == "AddedToken":
            return _token(value)
        return {key: _revived(inner) for key, inner in value.items()}
    return [_revived(inner) for inner in value] if isinstance(value, list) else value


def _index(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"an id must be a whole number, got {value!r}")
    return value


def _text(token: Any) -> str:
    return token.content if isinstance(token, AddedToken) else str(token)


def _among(token: Token, tokens: Sequence[Token]) -> bool:
    """Whether `tokens` holds the same token; a text and an added token are not the same."""
    return any(type(token) is type(other) and token == other for other in tokens)
