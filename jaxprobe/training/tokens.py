"""Which tokens an SAE is trained on, in which order: addressed by seed, epoch and prompt hash."""

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from jaxprobe.base import Site

READ_TOKENS = 4096  # read together: neighbours in the store are read fastest


class TokenStore(Protocol):
    """The part of `store.ActivationStore` that training reads."""

    @property
    def digest(self) -> str:
        """Hex digest of everything that changes the activations."""
        ...

    def num_tokens(self, site: Site) -> int:
        """Number of tokens."""
        ...

    def read_tokens(self, site: Site, rows: np.ndarray) -> np.ndarray:
        """float32 [n, D] of some tokens."""
        ...

    def token_prompt(self, site: Site) -> np.ndarray:
        """int64 position in `prompt_hashes()` of each token."""
        ...

    def prompt_hashes(self) -> list[str]:
        """Hex SHA-256 of each prompt."""
        ...


def held_out_prompts(hashes: Sequence[str], seed: int, fraction: float) -> np.ndarray:
    """Which prompts are held out; for each it depends only on the prompt and the seed.

    Args:
        hashes: Hex SHA-256 of each prompt.
        seed: The run's seed.
        fraction: Expected part of the prompts.

    Returns:
        Bool, one per prompt.
    """
    lots = (hashlib.sha256(f"held out {seed} {text}".encode()).digest() for text in hashes)
    return np.array([int.from_bytes(lot[:8], "big") < fraction * 2**64 for lot in lots], bool)


class ShuffledTokens:
    """Batches of tokens in an order that is a function of (seed, step), within bounded memory.

    An epoch is cut into equal loads that fit in memory; tokens are shuffled inside a load, and
    which runs of tokens share a load is drawn anew each epoch. What fits in one load is read once.
    """

    def __init__(
        self,
        *,
        store: TokenStore,
        site: Site,
        row_N: np.ndarray,
        batch_size: int,
        seed: int,
        max_bytes: int,
    ):
        """Plans the reading.

        Args:
            store: Where to read.
            site: Whose tokens.
            row_N: Rows to train on, ascending.
            batch_size: Tokens per batch.
            seed: Decides the order.
            max_bytes: Most memory for one load.

        Raises:
            ValueError: Not even one batch.
        """
        if len(row_N) < batch_size:
            raise ValueError(
                f"`batch_size` = {batch_size} needs as many tokens to train on, got {len(row_N)}"
                f" at {site}; extract more prompts or take a smaller batch"
            )
        self._store, self._site, self._seed, self._batch_size = store, site, seed, batch_size
        d_model = store.read_tokens(site, row_N[:1]).shape[1]
        most_rows = max(max_bytes // (4 * d_model), batch_size + READ_TOKENS)
        self._num_loads = -(-len(row_N) // most_rows)
        runs_per_load = max(1, len(row_N) // self._num_loads // READ_TOKENS)
        self._runs = np.array_split(row_N, self._num_loads * runs_per_load)
        shortest = runs_per_load * (len(row_N) // len(self._runs))
        self._batches_per_load = shortest // batch_size
        self._loaded: tuple[tuple[int, ...], np.ndarray] = ((), np.zeros((0, d_model), np.float32))
        self._order: tuple[tuple[int, int], np.ndarray] = ((-1, -1), np.zeros(0, np.int64))

    def batch(self, step: int) -> np.ndarray:
        """float32 [batch_size, D] for a step; cheap as long as steps follow one another."""
        load_number, position = divmod(step, self._batches_per_load)
        epoch, load = divmod(load_number, self._num_loads)
        x_ND = self._load(epoch, load)
        if self._order[0] != (epoch, load):
            rng = np.random.default_rng([self._seed, epoch, load])
            self._order = ((epoch, load), rng.permutation(len(x_ND)))
        start = position * self._batch_size
        return x_ND[self._order[1][start : start + self._batch_size]]

    def sample(self, num_tokens: int) -> np.ndarray:
        """float32 [at most num_tokens, D], drawn from the first load."""
        x_ND = self._load(0, 0)
        rng = np.random.default_rng([self._seed])
        return x_ND[rng.permutation(len(x_ND))[:num_tokens]]

    def _load(self, epoch: int, load: int) -> np.ndarray:
        """All tokens of a load, in the order of the store."""
        rng = np.random.default_rng([self._seed, epoch])
        drawn = np.array_split(rng.permutation(len(self._runs)), self._num_loads)[load]
        names = tuple(sorted(drawn.tolist()))
        if self._loaded[0] != names:
            self._loaded = ((), self._loaded[1][:0].copy())  # free the last load before reading
            rows = [self._runs[name] for name in names]
            x_ND = np.empty((sum(map(len, rows)), self._loaded[1].shape[1]), np.float32)
            start = 0
            for part in rows:
                x_ND[start : start + len(part)] = self._store.read_tokens(self._site, part)
                start += len(part)
            self._loaded = (names, x_ND)
        return self._loaded[1]
