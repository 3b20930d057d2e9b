"""What the files beside a tokenizer say: settings, special tokens, added tokens, and which class reads them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxprobe.boundary import FileError, read_json

SETTINGS, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
MODEL = "config.json"
SIDE_FILES = (SETTINGS, SPECIAL, ADDED)
NAMES = (
    *("bos_token", "eos_token", "unk_token", "sep_token"),
    *("pad_token", "cls_token", "mask_token"),
)
LISTS = ("additional_special_tokens", "extra_special_tokens")
AS_STORED = "TokenizersBackend"  # the class that takes tokenizer.json as it is
# transformers' class of a `model_type`; the other families have none of their own.
_REGISTERED: Mapping[str, str] = {
    **dict.fromkeys(("gemma", "gemma2", "gemma3", "gemma3_text"), "GemmaTokenizer"),
    **dict.fromkeys(("qwen2", "qwen3"), "Qwen2Tokenizer"),
    "gpt_neox": "GPTNeoXTokenizer",
    "mistral": AS_STORED,
}
_MISNAMED = ("qwen2",)  # here the registered class wins over the one that the folder names
_GENERIC = (AS_STORED, "PreTrainedTokenizer", "PythonBackend")
_CLASSES = (
    "LlamaTokenizer",
    "GemmaTokenizer",
    "Qwen2Tokenizer",
    "GPTNeoXTokenizer",
    "GPT2Tokenizer",
)
# Fields that hand transformers another vocabulary, other files, or code.
_REFUSED = (
    *("init_inputs", "fast_tokenizer_files", "tokenizer_object", "gguf_file", "vocab", "merges"),
    *("post_processor", "tokenizer_padding", "tokenizer_truncation", "unk_id"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folder:
    """The side files of a tokenizer, as read.

    Attributes:
        path: The directory.
        settings: tokenizer_config.json; empty where there is none.
        special: special_tokens_map.json; None where there is none.
        added: added_tokens.json, text to id; None where there is none.
        model: config.json; None where there is none.
    """

    path: Path
    settings: Mapping[str, Any]
    special: Mapping[str, Any] | None
    added: Mapping[str, Any] | None
    model: Mapping[str, Any] | None

    def has(self, key: str) -> bool:
        """Whether a boolean of tokenizer_config.json is set."""
        return bool(self.settings.get(key))

    @property
    def names_a_class(self) -> bool:
        """Whether transformers' AutoTokenizer would know how to read the folder."""
        return self.model is not None or bool(self.settings.get("tokenizer_class"))

    def refused(self, name: str, wanted: str) -> FileError:
        """The error that says what a file of the folder must hold."""
        return FileError(f"{self.path / name} {wanted}")


def open_folder(path: Path) -> Folder:
    """Reads the side files of a directory.

    Raises:
        FileError: A file is not a JSON object, or sets a field that is not supported.
    """
    read = {name: _object(path / name) for name in (*SIDE_FILES, MODEL)}
    folder = Folder(
        path=path,
        settings=read[SETTINGS] or {},
        special=read[SPECIAL],
        added=read[ADDED],
        model=read[MODEL],
    )
    for key in _REFUSED:
        if folder.settings.get(key):
            raise folder.refused(SETTINGS, f"must not set `{key}`, which is not supported")
    code = folder.settings.get("auto_map")
    if code and (not isinstance(code, dict) or code.get("AutoTokenizer")):
        raise folder.refused(SETTINGS, "must not name custom code in `auto_map`")
    for key in folder.special or {}:
        if key not in LISTS and not key.endswith("_token"):
            raise folder.refused(SPECIAL, f"must hold special tokens only, got the field {key!r}")
    return folder


def class_of(folder: Folder, byte_level: bool) -> str:
    """The class that transformers' AutoTokenizer reads a folder with, without the ending `Fast`.

    Args:
        folder: The side files.
        byte_level: Whether tokenizer.json holds a step named ByteLevel.

    Raises:
        FileError: The class is not supported.

    References:
        transformers 5.24, models/auto/tokenization_auto.py
    """
    model = folder.model or {}
    kind = str(model.get("model_type"))
    registered = _REGISTERED.get(kind)
    named = folder.settings.get("tokenizer_class") or model.get("tokenizer_class")
    if not named:
        return registered or AS_STORED
    given = str(named).removesuffix("Fast")
    if given == "LlamaTokenizer" and byte_level and kind not in _MISNAMED:
        return AS_STORED  # Llama 3's files name Llama 2's class
    if registered == AS_STORED or (given in _GENERIC and kind not in _MISNAMED):
        return AS_STORED
    given = registered if registered and kind in _MISNAMED else given
    if given not in _CLASSES:
        known = ", ".join((*_CLASSES, *_GENERIC[:2]))
        raise folder.refused(
            SETTINGS if folder.settings.get("tokenizer_class") else MODEL,
            f"must name one of the tokenizer classes {known} in `tokenizer_class`, got {named!r};"
            " save the tokenizer as a `PreTrainedTokenizerFast`",
        )
    return given


def _object(path: Path) -> dict[str, Any] | None:
    try:
        content = read_json(path)
    except FileNotFoundError:
        return None
    if not isinstance(content, dict):
        raise FileError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content
