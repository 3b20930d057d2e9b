"""Gemma's Flax parameter trees in Orbax directories."""

from pathlib import Path


def find(folder: Path) -> Path | None:
    """The Orbax directory in or at `folder`."""
    return None


def open_directory(folder: Path):
    """Opens it."""
    raise NotImplementedError
