"""`Features`: what a probe reads of a prompt, and how an SAE's part of it is computed.

Latents that are ranked per split are in the module `ranked`: they never form one dense array.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from jaxprobe import checks
from jaxprobe.base import ACTIVATIONS, POOLINGS, Site
from jaxprobe.checkpoints import LoadedSae, decode, encode

PARTS = ("activations", "latents", "reconstruction", "error")
ROWS_AT_ONCE = 2048  # rows per call of an SAE
MOST_BYTES = 4 << 30  # of a dense matrix of latents


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
    """What a probe reads of every prompt; a concatenation is a sequence of them.

    Attributes:
        site: Where activations are read.
        part: One of `PARTS`: the activations, or an SAE's latents, its reconstruction of the activations,
            or its error (activations minus reconstruction).
        sae: The SAE's id; empty for activations.
        pooling: `last`, `mean` or `max`. An SAE reads every token, and its results are pooled.
    """

    site: Site
    part: str = ACTIVATIONS
    sae: str = ""
    pooling: str = "last"

    def __post_init__(self):
        """Raises ValueError for an invalid combination."""
        checks.check_choice("part", self.part, PARTS)
        checks.check_choice("pooling", self.pooling, POOLINGS[:3])
        if bool(self.sae) == (self.part == ACTIVATIONS):
            raise ValueError(
                f"`sae` must be an SAE's id where `part` is one of {', '.join(PARTS[1:])}, and empty for"
                f" {ACTIVATIONS}, got {self.sae!r} for {self.part}"
            )

    def __str__(self) -> str:
        """The name in result rows, such as `activations`, an SAE's id, or `error of ID`."""
        if self.part == ACTIVATIONS:
            return ACTIVATIONS
        return self.sae if self.part == "latents" else f"{self.part} of {self.sae}"

    @property
    def of_tokens(self) -> bool:
        """Whether it is computed from the activations of single tokens."""
        return self.part != ACTIVATIONS and self.pooling != "last"

    @property
    def tap(self) -> tuple[Site, str]:
        """The array of the activation store from which it is computed, which must be extracted."""
        return self.site, "tokens" if self.of_tokens else self.pooling


def part_of(sae: LoadedSae, x_ND: np.ndarray, part: str) -> np.ndarray:
    """float32 [N, K]: an SAE's latents, reconstruction or error for rows of activations.

    Raises:
        ValueError: Another part than latents of a transcoder, which reconstructs another site.
    """
    if part != "latents" and "output_site" in sae.metadata:
        raise ValueError(f"`part` must be latents for the transcoder {sae.id}, got {part}")
    found = [_computed(sae, x_BD, part) for x_BD in _blocks(x_ND)]
    return np.concatenate(found) if found else np.zeros((0, _width(sae, part)), np.float32)


def pooled_part(
    sae: LoadedSae, x_TD: np.ndarray, start_N1: np.ndarray, part: str, pooling: str
) -> np.ndarray:
    """float32 [N, K]: the same for every token, pooled over the tokens of each prompt.

    Args:
        sae: The SAE.
        x_TD: Activations of all tokens, prompt after prompt.
        start_N1: int64 [N + 1]; prompt n has the tokens `start_N1[n]` to `start_N1[n + 1] - 1`, at least
            one.
        part: One of `PARTS`, not the activations.
        pooling: `mean` or `max`.
    """
    pool = {"mean": np.mean, "max": np.max}[pooling]
    pooled_NK = np.empty((len(start_N1) - 1, _width(sae, part)), np.float32)
    for first, stop in _spans(start_N1):
        start, end = start_N1[first], start_N1[stop]
        f_TK = part_of(sae, x_TD[start:end], part)
        for n in range(first, stop):
            pool(f_TK[start_N1[n] - start : start_N1[n + 1] - start], axis=0, out=pooled_NK[n])
    return pooled_NK


def check_size(sae: LoadedSae, num_rows: int, part: str) -> None:
    """Raises ValueError for a matrix of more than `MOST_BYTES`."""
    size = num_rows * _width(sae, part) * 4
    if size > MOST_BYTES:
        raise ValueError(
            f"the {part} of {sae.id} for {num_rows:,} rows would take {size / 2**30:.1f} GiB, more than"
            f" {MOST_BYTES >> 30}; give the job `latents` and `ranking`, which keep the columns that"
            " splits choose"
        )


def _computed(sae: LoadedSae, x_BD: np.ndarray, part: str) -> np.ndarray:
    # Padded to a few sizes, each a compiled program.
    size = min(ROWS_AT_ONCE, 1 << (len(x_BD) - 1).bit_length())
    padded_BD = np.pad(x_BD, ((0, size - len(x_BD)), (0, 0)))
    z_BS = encode(sae, padded_BD)
    if part == "latents":
        return np.asarray(z_BS)[: len(x_BD)]
    decoded_BD = np.asarray(decode(sae, z_BS, padded_BD))[: len(x_BD)]
    return decoded_BD if part == "reconstruction" else x_BD - decoded_BD


def _width(sae: LoadedSae, part: str) -> int:
    return sae.d_sae if part == "latents" else sae.d_model


def _blocks(x_ND: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(x_ND), ROWS_AT_ONCE):
        yield x_ND[start : start + ROWS_AT_ONCE]


def _spans(start_N1: np.ndarray) -> Iterator[tuple[int, int]]:
    """Runs of whole prompts with about `ROWS_AT_ONCE` tokens each."""
    first, num_prompts = 0, len(start_N1) - 1
    while first < num_prompts:
        stop = int(np.searchsorted(start_N1, start_N1[first] + ROWS_AT_ONCE, "right")) - 1
        stop = min(max(stop, first + 1), num_prompts)
        yield first, stop
        first = stop
