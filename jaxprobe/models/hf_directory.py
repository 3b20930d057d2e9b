"""Hugging Face directories: `config.json`, safetensors, tokenizer files."""

from pathlib import Path
from typing import Any

from jaxprobe import boundary, tokens
from jaxprobe.models import hf_config, hf_families, hf_names
from jaxprobe.models.checkpoint import Checkpoint, folder_name
from jaxprobe.models.config import TransformerConfig
from jaxprobe.models.safetensors_files import open_safetensors

CONFIG = "config.json"
_ADAPTER = "adapter_config.json"


def open_directory(folder: Path) -> Checkpoint:
    """Opens a directory as `save_pretrained` writes it.

    Raises:
        ValueError: A field or tensor that is not understood, or files that are missing or damaged.
    """
    path = folder / CONFIG
    raw, config, family = read_config(path)
    if (folder / _ADAPTER).exists():
        raise boundary.FileError(
            f"{folder} must hold a whole model, got {_ADAPTER} too, whose weights are meant to be added:"
            " merge the adapter (PEFT's `merge_and_unload`) and save the model, or remove that file"
        )
    files = open_safetensors(folder)
    with boundary.reader(folder, "a model's directory", "fetch or save it again"):
        sources = hf_names.sources(
            config, family.layout, raw["model_type"], files.places, str(folder)
        )
    return Checkpoint(
        name=folder_name(folder),
        config=config,
        files=files,
        sources=sources,
        tokenizer=lambda: tokens.from_directory(folder),
        contents=(path, *files.paths, *tokens.directory_files(folder)),
    )


def read_config(path: Path) -> tuple[dict[str, Any], TransformerConfig, hf_families.Family]:
    """A `config.json`: its fields, the model's numbers, its family.

    Raises:
        ValueError: No JSON object, or a field that is missing, not understood or out of range.
    """
    raw = boundary.read_json(path, unique=True)
    with boundary.reader(path, "a model's configuration", "correct it or fetch it again"):
        if not isinstance(raw, dict):
            raise ValueError(f"it must hold a JSON object, got {type(raw).__name__}")
        return (raw, *hf_config.read_config(raw))
