"""Texts to activations, in memory: `jp.extract`."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from absl import logging

from jaxprobe import models, tokens
from jaxprobe.base import Site
from jaxprobe.extraction.fingerprint import ExtractModel
from jaxprobe.extraction.passes import MakeForward, check_finite, computed


class Activations(dict[Site, np.ndarray]):
    """float32 [N, width] by site; a site's text works as well: `x["blocks.1.resid_post"]`."""

    def __getitem__(self, key: Site | str) -> np.ndarray:
        """The array of a site, or of the site that a text names.

        Raises:
            ValueError: The text is not a site.
            KeyError: Nothing was extracted there.
        """
        try:
            return super().__getitem__(Site.parse(key) if isinstance(key, str) else key)
        except KeyError:
            there = ", ".join(map(str, self.keys())) or "no site"
            raise KeyError(f"there are activations at {there}, got {key}; extract them") from None

    def __contains__(self, key: object) -> bool:
        """Whether there are activations at a site or a site's text."""
        try:
            return super().__contains__(Site.parse(key) if isinstance(key, str) else key)
        except ValueError:
            return False

    def get(self, key: Any, default: Any = None) -> Any:
        """As a dictionary's, for a site or its text."""
        return self[key] if key in self else default


def extract_texts(
    model: ExtractModel,
    texts: Iterable[str],
    sites: str | Site | Iterable[str | Site],
    *,
    max_length: int = 1024,
    bos: str = "auto",
    make_forward: MakeForward = models.make_forward,
) -> Activations:
    """Activations at the last token of each text, in memory.

    Args:
        model: What `load_model` returned.
        texts: N strings.
        sites: Where to read: a site or several, or their text.
        max_length: Most tokens of a text, BOS included; longer ones lose their beginning.
        bos: `auto` begins texts as the tokenizer's files say, `on` puts BOS in front in every family,
            `off` in none. SAEs say what they were trained with: `bos=sae.bos`.
        make_forward: Makes the compiled pass of (model, sites, poolings).

    Returns:
        float32 [N, width of the site] for each site, in the order of `texts`, by site or its text. The
        width is d_model except for `attn_z`, which holds all heads.

    Raises:
        TypeError: `texts` is a single string, or a text is not a string.
        ValueError: No site, a site that the model lacks, an unknown `bos`, or activations that are not
            finite.
    """
    texts, chosen = _texts(texts), _sites(sites)
    _tell_unopened(model.tokenizer, bos)
    ids = tokens.token_ids(model.tokenizer, texts, max_length, bos)
    forward = make_forward(model, chosen, ("last",))
    out = Activations(
        {
            site: np.zeros((len(texts), model.widths.get(site.stream, model.d_model)), np.float32)
            for site in chosen
        }
    )
    for batch, values in computed(forward, tokens.batches(ids, pad_id=model.tokenizer.pad_id)):
        real_B = batch.prompt_B >= 0
        rows = {(site, "last"): np.asarray(values[site, "last"])[real_B] for site in chosen}
        check_finite(rows, batch, lambda n: texts[n])
        for site in chosen:
            out[site][batch.prompt_B[real_B]] = rows[site, "last"]
    return out


def _texts(texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str | bytes):
        raise TypeError("`texts` must be a sequence of strings, got one string; put it into a list")
    return list(texts)


def _sites(sites: str | Site | Iterable[str | Site]) -> list[Site]:
    given = [sites] if isinstance(sites, str | Site) else list(sites)
    if not given:
        raise ValueError("`sites` must name at least one site, got none; try blocks.12.resid_post")
    return [site if isinstance(site, Site) else Site.parse(site) for site in given]


def _tell_unopened(tokenizer: Any, bos: str) -> None:
    """Warns once where SAEs of a family are commonly trained with a BOS that its files leave out."""
    if bos == "auto" and tokenizer.bos_id is None and tokenizer.begin_id is not None:
        logging.log_first_n(
            logging.WARNING,
            "texts do not open with BOS, as this model's tokenizer files say; SAEs whose `bos` is 'on'"
            " were trained with token %d in front: set bos to 'on' for them, to 'off' to silence this",
            1,
            tokenizer.begin_id,
        )
