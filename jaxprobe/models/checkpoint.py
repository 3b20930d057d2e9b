"""What every format of model files comes to: numbers, tensors, names, a tokenizer."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from jaxprobe import tokens
from jaxprobe.models.config import TransformerConfig
from jaxprobe.models.parameters import Source, TensorFiles


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model's files, opened; no weights are read yet.

    Attributes:
        name: Short name, for result rows.
        config: The numbers that fix its mathematics.
        files: Where its tensors are.
        sources: The tensor of each parameter.
        tokenizer: Reads its tokenizer; None where the files hold none.
        contents: The files that decide the numbers, tokenizer files among them.
    """

    name: str
    config: TransformerConfig
    files: TensorFiles
    sources: Mapping[str, Source]
    tokenizer: Callable[[], tokens.Tokenizer | None]
    contents: tuple[Path, ...]


def short_name(text: str) -> str:
    """A name for result rows: small letters, digits, dots and dashes."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def folder_name(folder: Path) -> str:
    """A model's name by its folder's; in the Hub's cache, by its repository's."""
    folder = folder.absolute()
    for parent in (folder, *folder.parents):
        if parent.name.startswith("models--"):
            return short_name(parent.name.split("--")[-1])
    return short_name(folder.name)
