"""Which prompts to run, for which sites and poolings, and which of them a store lacks."""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from jaxprobe.extraction.fingerprint import Identity
from jaxprobe.jobs import Need
from jaxprobe.place import Place
from jaxprobe.sites import MODULE_OUT
from jaxprobe.store import ActivationStore, Tap, is_store

# Planned together, so that one dataset's rows are close together and few batches are part-filled.
SEGMENT_PROMPTS = 16384

Work = list[
    tuple[tuple[Tap, ...], np.ndarray]
]  # arrays, and positions of the prompts to run for them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """The distinct prompts of a run, and which of them each array needs.

    Attributes:
        texts: The prompts.
        hashes: Their SHA-256.
        wanted_N: Per site and pooling, which prompts are wanted there.
    """

    texts: tuple[str, ...]
    hashes: list[bytes]
    wanted_N: Mapping[Tap, np.ndarray]

    @classmethod
    def of(cls, needs: Iterable[Need]) -> "Request":
        """Distinct prompts in the order in which they are first needed.

        Raises:
            ValueError: Nothing is needed.
        """
        position: dict[str, int] = {}
        hashes: list[bytes] = []
        members: dict[Tap, set[int]] = {}
        for need in needs:
            for text, sha256 in zip(need.texts, need.hashes, strict=True):
                if position.setdefault(text, len(position)) == len(hashes):
                    hashes.append(sha256)
            numbers = {position[text] for text in need.texts}
            for tap in need.taps:
                members.setdefault(tap, set()).update(numbers)
        if not members:
            raise ValueError("nothing is to be extracted: the job names no site or no dataset")
        wanted_N = {}
        for tap in sorted(members):
            wanted_N[tap] = np.zeros(len(position), bool)
            wanted_N[tap][list(members[tap])] = True
        return cls(texts=tuple(position), hashes=hashes, wanted_N=wanted_N)

    def stored(self, model: Identity) -> "Request":
        """The request under the names by which the model's activations are stored."""
        named = {
            (model.stored(site) if site.stream in MODULE_OUT else site, pooling): wanted_N
            for (site, pooling), wanted_N in self.wanted_N.items()
        }
        return dataclasses.replace(self, wanted_N={tap: named[tap] for tap in sorted(named)})

    def missing(self, store: ActivationStore) -> Work:
        """The remaining work, one segment each.

        The order must not depend on how much is done, or a resumed run would plan differently.
        """
        need_AN = np.stack(
            [wanted_N & ~store.holds(tap, self.hashes) for tap, wanted_N in self.wanted_N.items()]
        )
        taps = list(self.wanted_N)
        work = []
        for pattern_A in sorted({tuple(column) for column in np.unique(need_AN, axis=1).T}):
            chosen = tuple(tap for tap, needed in zip(taps, pattern_A, strict=True) if needed)
            members = np.flatnonzero((need_AN == np.array(pattern_A)[:, None]).all(axis=0))
            for start in range(0, len(members) if chosen else 0, SEGMENT_PROMPTS):
                work.append((chosen, members[start : start + SEGMENT_PROMPTS]))
        return work

    def outstanding(self, *places: Place) -> list[str]:
        """The prompts that none of these places' stores holds completely."""
        missing: set[int] | None = None
        for place in places:
            if is_store(place):
                work = self.missing(ActivationStore.open(place))
                here = {int(index) for _, members in work for index in members}
                missing = here if missing is None else missing & here
        left = range(len(self.texts)) if missing is None else sorted(missing)
        return [self.texts[index] for index in left]
