"""What the records of results say about SAEs and leaks."""

import math
from collections.abc import Mapping, Sequence

from jaxprobe.evidence import ChosenLatent as ChosenLatent
from jaxprobe.evidence import Facts as Facts
from jaxprobe.evidence import Record as Record
from jaxprobe.evidence import Results as Results


def quality(records: Sequence[Record], sae: str) -> dict[str, float]:
    """Numbers measured on an SAE's held-out tokens, by name; for several sets of tokens, those of all."""
    for record in reversed(records):
        facts = record.sae_quality.get(sae, {})
        inner = facts.get("all_tokens", facts)
        if isinstance(inner, Mapping):
            return {
                str(name): float(value)
                for name, value in inner.items()
                if isinstance(value, int | float) and math.isfinite(value)
            }
    return {}


def leak_records(records: Sequence[Record]) -> dict[str, Facts]:
    """What the records say about leaks, by dataset."""
    return {str(name): facts for record in records for name, facts in record.leaks.items()}
