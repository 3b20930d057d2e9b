"""Hugging Face directories: `config.json`, safetensors, tokenizer files."""

import json
from pathlib import Path

from jaxprobe import tokens
from jaxprobe.models import hf_config, hf_names
from jaxprobe.models.checkpoint import Checkpoint, folder_name
from jaxprobe.models.safetensors_files import open_safetensors

CONFIG = "config.json"


def open_directory(folder: Path) -> Checkpoint:
    """Opens a directory as `save_pretrained` writes it.

    Raises:
        ValueError: A field or tensor that is not understood, or files that are missing or damaged.
    """
    path = folder / CONFIG
    try:
        raw = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} must hold JSON ({error})") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(raw).__name__}")
    config, family = hf_config.read_config(raw)
    files = open_safetensors(folder)
    gemma = str(raw["model_type"]).startswith("gemma")
    sources = hf_names.sources(config, family.layout, gemma, files.places, str(folder))
    return Checkpoint(
        name=folder_name(folder),
        config=config,
        files=files,
        sources=sources,
        tokenizer=lambda: tokens.from_directory(folder),
        contents=(path, *files.paths, *tokens.directory_files(folder)),
    )
