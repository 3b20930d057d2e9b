"""The tokenizer classes of the field: how each cuts a text around the vocabulary that a folder holds.

transformers 5 takes only the vocabulary, the merges, the added tokens and the post-processor from
tokenizer.json where one of these classes reads it, and builds the other steps itself.

References:
    transformers 5.24, models/{llama,gemma,qwen2,gpt_neox,gpt2}/tokenization_*.py
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from jaxprobe.tokens.byte_level import GPT2_CUT, QWEN_CUT, backend_of_bytes
from jaxprobe.tokens.declared import Declared, add_to
from jaxprobe.tokens.folder import SETTINGS, Folder
from jaxprobe.tokens.pieces import SPACE

_END = "<|endoftext|>"
Builder = Callable[[BPE, Mapping[str, Any], str | None], tokenizers.Tokenizer]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerClass:
    """What a class adds to the vocabulary of a folder.

    Attributes:
        assumed: Special tokens that it takes where no file names them, by role.
        build: Model, settings and unknown token to a tokenizer without added tokens.
        pieces: Whether it reads tokenizer.model; else it reads vocab.json with merges.txt.
        keeps_post_processor: Whether it keeps the post-processor of tokenizer.json.
    """

    assumed: Mapping[str, str | None]
    build: Builder
    pieces: bool = False
    keeps_post_processor: bool = True


def finish(name: str, backend: tokenizers.Tokenizer, given: Declared, folder: Folder) -> None:
    """Adds the declared tokens as the class `name` does."""
    add_to(backend, given, folder)
    if name == "Qwen2Tokenizer":  # adds its special tokens again, without flags
        tokens = (*given.named.values(), *given.extra)
        texts = dict.fromkeys(t if isinstance(t, str) else t.content for t in tokens)
        backend.add_tokens([AddedToken(text, special=True) for text in texts])


def added_bos(backend: tokenizers.Tokenizer, given: Declared, folder: Folder) -> int | None:
    """BOS as tokenizer_config.json asks for it; used only where there is no tokenizer.json.

    Raises:
        FileError: tokenizer_config.json asks for an EOS.
    """
    if folder.has("add_eos_token"):
        raise folder.refused(
            SETTINGS, "must not set `add_eos_token`: a prompt is read at its own last token"
        )
    text = given.text("bos_token")
    return None if text is None or not folder.has("add_bos_token") else backend.token_to_id(text)


def pad_of(backend: tokenizers.Tokenizer, given: Declared) -> int:
    """The id of the padding token, else of EOS or BOS, else 0."""
    texts = (given.text(role) for role in ("pad_token", "eos_token", "bos_token"))
    ids = [backend.token_to_id(text) for text in texts if text is not None]
    return next((index for index in ids if index is not None), 0)


def _llama(model: BPE, settings: Mapping[str, Any], unknown: str | None) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(_model(model, None, fuse=True, byte_fallback=True))
    prefix = settings.get("add_prefix_space")
    scheme = "always" if settings.get("legacy", False) else "first"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(
        SPACE, prepend_scheme=scheme if prefix is None or prefix else "never", split=False
    )
    backend.decoder = _decoder()
    return backend


def _gemma(model: BPE, settings: Mapping[str, Any], unknown: str | None) -> tokenizers.Tokenizer:
    if unknown is None or model.token_to_id(unknown) is None:
        raise ValueError(f"`unk_token` must be in the vocabulary, got {unknown!r}")
    backend = tokenizers.Tokenizer(_model(model, unknown, fuse=True, byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", SPACE)
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = _decoder()
    return backend


def _bytes(cut: str | None, composed: bool) -> Builder:
    def build(model: BPE, settings: Mapping[str, Any], unknown: str | None):
        model = _model(model, None, fuse=False, byte_fallback=False)
        prefix = bool(settings.get("add_prefix_space"))
        return backend_of_bytes(model, cut, composed=composed, space_prefix=prefix)

    return build


def _model(model: BPE, unknown: str | None, *, fuse: bool, byte_fallback: bool) -> BPE:
    """The same vocabulary and merges without the other settings of a file."""
    if model.continuing_subword_prefix or model.end_of_word_suffix:
        raise ValueError("its model must have neither subword prefix nor word suffix")
    model.dropout = None
    model.unk_token = unknown
    model.fuse_unk, model.byte_fallback = fuse, byte_fallback
    model.ignore_merges = False
    return model


def _decoder() -> decoders.Decoder:
    return decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )


CLASSES: Mapping[str, TokenizerClass] = {
    "LlamaTokenizer": TokenizerClass(
        assumed={"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
        build=_llama,
        pieces=True,
    ),
    "GemmaTokenizer": TokenizerClass(
        assumed={
            **{"unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>"},
            **{"pad_token": "<pad>", "mask_token": "<mask>"},
        },
        build=_gemma,
        pieces=True,
    ),
    "Qwen2Tokenizer": TokenizerClass(
        assumed={"unk_token": _END, "eos_token": _END, "pad_token": _END},
        build=_bytes(QWEN_CUT, composed=True),
    ),
    "GPTNeoXTokenizer": TokenizerClass(
        assumed={
            **{"unk_token": _END, "bos_token": _END, "eos_token": _END},
            "pad_token": "<|padding|>",
        },
        build=_bytes(GPT2_CUT, composed=True),
        keeps_post_processor=False,
    ),
    "GPT2Tokenizer": TokenizerClass(
        assumed={"unk_token": _END, "bos_token": _END, "eos_token": _END, "pad_token": None},
        build=_bytes(GPT2_CUT, composed=False),
    ),
}
