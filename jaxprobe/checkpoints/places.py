"""Where an SAE lies, and what its path says about it."""

import dataclasses
import re
from pathlib import Path

from absl import logging

from jaxprobe import place
from jaxprobe.base import Site
from jaxprobe.sites import site_named

LONGEST_ID = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `load_sae` was told beside the source; see there."""

    id: str | None = None
    site: str | None = None
    llama_scope_gate: str = "official"
    norm_scaling_factor: float | None = None
    active_groups: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """One SAE on the disk.

    Attributes:
        folder: The folder with its files.
        file: The weight file, where the user named one.
        source: What the user named.
        options: What else was asked.
        elsewhere: The weight file, where it lies in no file system; `folder` then only names it.
    """

    folder: Path
    file: Path | None
    source: str
    options: Options = dataclasses.field(default_factory=Options)
    elsewhere: place.Place | None = None

    def has(self, *names: str) -> bool:
        """Whether the folder holds all these files, and the user named none or the last one."""
        named = self.file is None or self.file == self.folder / names[-1]
        return named and all((self.folder / name).is_file() for name in names)

    def text(self, pattern: str) -> str:
        """What may tell layer and width: the source, or the path where only it has the pattern."""
        path = (self.file or self.folder).as_posix()
        return next((text for text in (self.source, path) if re.search(pattern, text)), self.source)

    def id(self) -> str:
        """A short name: repository and folders of a Hub address, or the last folders of a path."""
        found = re.match(r"hf://[^/]+/([^@]+)", self.source)
        if found:
            return found[1].strip("/")
        parts = self.folder.absolute().parts
        repository = [n for n, part in enumerate(parts) if re.search(r"scope|models--", part)]
        first = repository[-1] if repository else max(1, len(parts) - 2)
        name = "/".join(parts[first:]).removeprefix("models--")
        return (f"{name}/{self.file.stem}" if self.file else name)[-LONGEST_ID:]


def hook_site(hook: str | None, library: str = "any", port: str = "output") -> Site | None:
    """The site that a hook's name in an SAE's file means; see `sites.site_named`.

    Returns:
        The site, or None where there is no name, or (with a warning) one that is refused: the SAE can
        still be used, on activations that the user vouches for.
    """
    if not hook or not isinstance(hook, str):
        return None
    try:
        return site_named(hook, library, port)
    except ValueError as error:
        logging.warning("the SAE's site is left open, to be named as `site`: %s", error)
        return None


def site_of(place: Place, found: Site | None) -> Site | None:
    """The site that the user named, else the one that the files tell."""
    return Site.parse(place.options.site) if place.options.site else found


def number(pattern: str, text: str) -> float | None:
    """The first group of a pattern, as a number."""
    found = re.search(pattern, text)
    return float(found[1]) if found else None
