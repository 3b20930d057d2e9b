"""Where an SAE lies, and what its path says about it."""

import dataclasses
import re
from pathlib import Path

from absl import logging

from jaxprobe.base import Site

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
    """

    folder: Path
    file: Path | None
    source: str
    options: Options = dataclasses.field(default_factory=Options)

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


def hook_site(hook: str | None, *, reads_output_of_layer: bool = True) -> Site | None:
    """The site that a hook's name means, in TransformerLens' or Hugging Face's words.

    Args:
        hook: For example `blocks.8.hook_resid_pre`, `model.layers.12.output`, `layers.3.mlp`.
        reads_output_of_layer: What a layer's bare name means: its output, or its input.

    Returns:
        The site, or None (with a warning) for a name that is not known.
    """
    if not hook:
        return None
    if re.fullmatch(r"(hook_embed|embed|(.*\.)?embed_tokens(\.output)?|transformer\.wte)", hook):
        return Site(block=-1, stream="embed")
    found = re.search(r"(?:^|\.)(?:blocks|layers|h)[._](\d+)(?:\.(.*))?$", hook)
    bare = "resid_post" if reads_output_of_layer else "resid_pre"
    part = (found[2] or bare) if found else ""
    for pattern, stream in _STREAMS:
        if found and re.fullmatch(pattern, part):
            return Site(block=int(found[1]), stream=stream)
    logging.warning("hook %r is not a site that jaxprobe knows; name the site yourself", hook)
    return None


_NORM_BEFORE_MLP = r"ln2\.hook_normalized|pre_feedforward_layernorm\.output"
_STREAMS = (
    (r"(hook_)?resid_post|output", "resid_post"),
    (r"(hook_)?resid_pre|input", "resid_pre"),
    (r"(hook_)?resid_mid", "resid_mid"),
    (r"(hook_)?mlp_out|mlp|mlp\.output|post_feedforward_layernorm\.output", "mlp_out"),
    (rf"(hook_)?mlp_in|mlp\.hook_in|mlp\.input|{_NORM_BEFORE_MLP}", "mlp_in"),
    (r"(attn\.)?(hook_)?z|attn_z|self_attn\.o_proj\.input", "attn_z"),
    (r"(hook_)?attn_out|self_attn|self_attn\.output", "attn_out"),
)


def site_of(place: Place, found: Site | None) -> Site | None:
    """The site that the user named, else the one that the files tell."""
    return Site.parse(place.options.site) if place.options.site else found


def number(pattern: str, text: str) -> float | None:
    """The first group of a pattern, as a number."""
    found = re.search(pattern, text)
    return float(found[1]) if found else None
