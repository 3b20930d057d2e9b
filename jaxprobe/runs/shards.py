"""One job as n independent ones: each takes every n-th dataset.

Results and latents are objects named by what they were made from, so shards write to one work directory and
nothing is merged. Each shard extracts into its own store, unless the job's store holds all that it needs.
"""

import dataclasses
import re
from collections.abc import Sequence

from jaxprobe.place import Place
from jaxprobe.store import is_store
from jaxprobe.workdir import Workdir

STAGES = ("extract", "encode", "fit")  # the stages that a shard can run
EXAMPLE = "write i/n, e.g. 0/4 for the first of four and 3/4 for the last"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One of `count` parts of a job, from 0."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Reads `i/n`.

        Raises:
            ValueError: Any other text, or a number that is not below n.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
        if not found:
            raise ValueError(f"a shard is two numbers, got {text!r}; {EXAMPLE}")
        shard = cls(index=int(found[1]), count=int(found[2]))
        if shard.index >= shard.count:
            raise ValueError(f"a shard's number must be below their count, got {text!r}; {EXAMPLE}")
        return shard

    def __str__(self) -> str:
        """The text that `parse` reads."""
        return f"{self.index}/{self.count}"

    def part(self, names: Sequence[str]) -> tuple[str, ...]:
        """The shard's datasets: every n-th, so that neighbours of one kind are spread.

        Raises:
            ValueError: There are fewer datasets than shards.
        """
        if self.count > len(names):
            raise ValueError(
                f"{len(names)} datasets cannot be split into {self.count} shards; use at most"
                f" {len(names)}"
            )
        return tuple(names[self.index :: self.count])


def check_stages(stages: set[str]) -> None:
    """Raises ValueError for a stage that works on the whole job."""
    if other := sorted(stages - {*STAGES}):
        raise ValueError(
            f"a shard runs {', '.join(STAGES)}; {' and '.join(other)} works on the whole job: leave"
            " --shard out"
        )


def own_activations(shard: Shard | None, work: Workdir) -> Place:
    """The store that the shard, or the whole job, writes to."""
    if shard is None:
        return work.activations
    return work.root / f"shard-{shard.index}-of-{shard.count}" / "activations"


def activations(shard: Shard | None, work: Workdir) -> Place:
    """The store that it reads: its own, or the job's where it has none."""
    own = own_activations(shard, work)
    return own if shard is None or is_store(own) else work.activations


def told(shard: Shard | None) -> str:
    """What to do after a shard's fits."""
    if shard is None:
        return ""
    return (
        f"Shard {shard} is done. When all {shard.count} are, run.py or report.py without --shard"
        " writes the report."
    )
