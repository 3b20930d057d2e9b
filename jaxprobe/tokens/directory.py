"""Tokenizer files beside a model's weights: `tokenizer.json`, `tokenizer.model`, or vocabulary and merges."""

import dataclasses
import hashlib
from pathlib import Path

import tokenizers
from tokenizers import AddedToken

from jaxprobe.boundary import FileError, reader
from jaxprobe.tokens.begin import begin_id
from jaxprobe.tokens.classes import CLASSES, added_bos, finish, pad_of
from jaxprobe.tokens.declared import Declared, declared
from jaxprobe.tokens.folder import AS_STORED, SETTINGS, SIDE_FILES, Folder, class_of, open_folder
from jaxprobe.tokens.merges_file import MERGES, VOCABULARY, read_merges
from jaxprobe.tokens.pieces import USER_DEFINED
from jaxprobe.tokens.spm_backend import backend_of_model, marked_pieces, model_of_class
from jaxprobe.tokens.spm_model import read_model
from jaxprobe.tokens.tokenizer import Tokenizer, pinned
from jaxprobe.tokens.tokenizer_json import read_tokenizer_json

_FAST, _SENTENCEPIECE = "tokenizer.json", "tokenizer.model"
_KINDS = ((_FAST,), (_SENTENCEPIECE,), (VOCABULARY, MERGES))  # the first that is there counts
_PATCHED_FROM = 100_000  # vocabulary size above which transformers patches Mistral's tokenizers


def directory_files(folder: Path) -> tuple[Path, ...]:
    """The files of `folder` that decide the ids, config.json aside; none where it holds no tokenizer."""
    for names in _KINDS:
        found = [folder / name for name in names]
        if all(path.exists() for path in found):
            return (*found, *(folder / name for name in SIDE_FILES if (folder / name).exists()))
    return ()


def from_directory(folder: Path) -> Tokenizer | None:
    """The tokenizer of a Hugging Face directory, or None where it holds none.

    The ids are those of transformers' AutoTokenizer on the same folder: its class, its order of added and
    special tokens, and its rule for BOS: the post-processor of tokenizer.json, or, where there is no
    tokenizer.json, `add_bos_token` of tokenizer_config.json (false by default). A tokenizer.model in a
    folder without config.json is read as SentencePiece reads it, with BOS if it has one. Truncation and
    padding that tokenizer.json asks for are ignored: `token_ids` truncates, from the left.

    Raises:
        FileError: A damaged file, or an unsupported rule: an EOS, or several tokens in front.
    """
    files = directory_files(folder)
    if not files:
        return None
    given = open_folder(folder)
    if files[0].name == _FAST:
        made = _from_json(files[0], given)
    elif files[0].name == _SENTENCEPIECE:
        made = _from_pieces(files[0], given)
    else:
        made = read_merges(given)
    if not given.has("split_special_tokens"):
        return made
    made.backend.encode_special_tokens = True  # not part of the library's own description
    digest = hashlib.sha256(f"split {made.fingerprint}".encode())
    return dataclasses.replace(made, fingerprint=digest.hexdigest())


def _from_json(path: Path, folder: Folder) -> Tokenizer:
    backend, byte_level, pad = read_tokenizer_json(path)
    padded = {} if pad is None else {"pad_token": pad}
    _check_patched(backend, folder)
    name = class_of(folder, byte_level)
    stored, post_processor = backend.get_added_tokens_decoder(), backend.post_processor
    if name == AS_STORED:
        tokens = declared(folder, stored, padded)
    else:
        kind = CLASSES[name]
        tokens = declared(folder, stored, {**padded, **kind.assumed})
        with reader(path, f"what `{name}` reads", "save it as a `PreTrainedTokenizerFast`"):
            if not isinstance(backend.model, tokenizers.models.BPE):
                raise ValueError(f"its model must be BPE, got {type(backend.model).__name__}")
            backend = kind.build(backend.model, folder.settings, tokens.text("unk_token"))
        if kind.keeps_post_processor and post_processor is not None:
            backend.post_processor = post_processor
    finish(name, backend, tokens, folder)
    bos_id, begin = _post_processed_bos(path, backend), begin_id(backend, tokens.named)
    return pinned(backend, bos_id, pad_of(backend, tokens), begin)


def _from_pieces(path: Path, folder: Folder) -> Tokenizer:
    given, bos_id, pad_id = read_model(path)
    name = class_of(folder, byte_level=False)
    marked = marked_pieces(given)
    if name == AS_STORED:
        # A step of its own splits off user-defined pieces.
        whole = set(given.of_kind(USER_DEFINED))
        marked = [token for token in marked if token.content not in whole]
        tokens = declared(folder, {}, given.named, marked)
        if given.space_prefix:
            tokens = _unnormalised(tokens)
        legacy = bool(folder.settings.get("legacy", True))
        with reader(path, "a SentencePiece model", "fetch it again"):
            backend = backend_of_model(given, legacy=legacy)
    else:
        kind = CLASSES[name]
        if not kind.pieces:
            raise FileError(
                f"{path} cannot be the tokenizer of class `{name}`, which does not read it; save the"
                " tokenizer again"
            )
        tokens = declared(folder, {}, kind.assumed, marked)
        with reader(path, f"what `{name}` reads", "fetch it again"):
            model = model_of_class(given)
            backend = kind.build(model, folder.settings, tokens.text("unk_token"))
    finish(name, backend, tokens, folder)
    begin = begin_id(backend, tokens.named) if bos_id is None else bos_id
    asked = added_bos(backend, tokens, folder)
    if folder.names_a_class or "add_bos_token" in folder.settings:
        bos_id = asked
    return pinned(backend, bos_id, pad_of(backend, tokens) if pad_id is None else pad_id, begin)


def _unnormalised(tokens: Declared) -> Declared:
    """Makes numbered tokens match the raw text, so that every part between them starts the same way."""
    numbered = {
        index: AddedToken(
            token.content,
            single_word=token.single_word,
            lstrip=token.lstrip,
            rstrip=token.rstrip,
            normalized=False,
            special=token.special,
        )
        for index, token in tokens.numbered.items()
    }
    return dataclasses.replace(tokens, numbered=numbered)


def _check_patched(backend: tokenizers.Tokenizer, folder: Folder) -> None:
    """Refuses the one setting that changes how a large Mistral vocabulary cuts a text."""
    if folder.has("fix_mistral_regex") and backend.get_vocab_size() > _PATCHED_FROM:
        if (folder.model or {}).get("model_type") in ("mistral", None):
            raise folder.refused(
                SETTINGS, "must not set `fix_mistral_regex`, which is not supported"
            )


def _post_processed_bos(path: Path, backend: tokenizers.Tokenizer) -> int | None:
    """What the post-processor puts in front of a text."""
    with reader(path, "a tokenizer of the `tokenizers` library", "fetch or save it again"):
        bare = backend.encode("a", add_special_tokens=False).ids
        full = backend.encode("a", add_special_tokens=True).ids
        front = len(full) - len(bare)
        if not 0 <= front <= 1 or full[front:] != bare:
            raise FileError(
                f"the post-processor of {path} must add at most one token, in front of a text; it"
                f" turns {bare} into {full}"
            )
        if front and backend.id_to_token(full[0]) is None:
            raise ValueError(f"its post-processor puts the unknown id {full[0]} in front of a text")
        return full[0] if front else None
