"""How well an SAE reconstructs activations that it was not trained on."""

import dataclasses

import jax
import numpy as np

from jaxprobe.base import Site
from jaxprobe.saes import decode, encode
from jaxprobe.training.tokens import TokenStore

ROWS = 4096  # encoded at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quality:
    """Measured on one set of tokens.

    Attributes:
        variance_explained: 1 - sum |x - x_hat|^2 / sum |x - mean|^2, with the mean of this set.
        l0: Mean number of active latents.
        dead: Fraction of latents that were never active.
        num_tokens: Size of the set.
    """

    variance_explained: float
    l0: float
    dead: float
    num_tokens: int


def measure_quality(
    sae, store: TokenStore, site: Site, row_N: np.ndarray, is_last_N: np.ndarray
) -> dict[str, Quality]:
    """Quality over some tokens, and over those that are the last of their prompt.

    Args:
        sae: The SAE, for raw activations.
        store: Where the tokens are.
        site: Where they were read.
        row_N: Rows to measure on, ascending.
        is_last_N: Which of them are the last of their prompt, those that probes read.

    Returns:
        `all_tokens` and `last_tokens`.
    """
    measure = jax.jit(_measure)
    all_tokens, last_tokens = _Sums(sae), _Sums(sae)
    for start in range(0, len(row_N), ROWS):
        block = slice(start, start + ROWS)
        x_ND = store.read_tokens(site, row_N[block])
        padded_ND = np.zeros((ROWS, x_ND.shape[1]), np.float32)  # one shape, compiled once
        padded_ND[: len(x_ND)] = x_ND
        error_N, active_NS = (np.asarray(a)[: len(x_ND)] for a in measure(sae, padded_ND))
        all_tokens.add(x_ND, error_N, active_NS)
        last_N = is_last_N[block]
        last_tokens.add(x_ND[last_N], error_N[last_N], active_NS[last_N])
    return {"all_tokens": all_tokens.quality(), "last_tokens": last_tokens.quality()}


def _measure(sae, x_ND: jax.Array):
    """Squared error of each row and which latents are active there."""
    z_NS = encode(sae, x_ND)
    return ((decode(sae, z_NS, x_ND) - x_ND) ** 2).sum(axis=1), z_NS != 0


class _Sums:
    """Running sums, float64, about the decoder's bias so that no digits cancel."""

    def __init__(self, sae):
        self.centre_D = np.asarray(sae.b_dec_D, np.float64)
        self.num_tokens, self.error, self.active = 0, 0.0, 0
        self.first_D, self.second = np.zeros_like(self.centre_D), 0.0
        self.ever_S = np.zeros(sae.d_sae, bool)

    def add(self, x_ND: np.ndarray, error_N: np.ndarray, active_NS: np.ndarray) -> None:
        centred_ND = x_ND - self.centre_D[None, :]
        self.num_tokens += len(x_ND)
        self.error += float(error_N.sum(dtype=np.float64))
        self.active += int(active_NS.sum())
        self.first_D += centred_ND.sum(axis=0)
        self.second += float((centred_ND**2).sum())
        self.ever_S |= active_NS.any(axis=0)

    def quality(self) -> Quality:
        variance = self.second - float((self.first_D**2).sum()) / self.num_tokens
        return Quality(
            variance_explained=1.0 - self.error / variance,
            l0=self.active / self.num_tokens,
            dead=float((~self.ever_S).mean()),
            num_tokens=self.num_tokens,
        )
