"""Names that results tell SAEs apart by."""

from collections.abc import Mapping

from jaxprobe import base

RESERVED = (base.ACTIVATIONS, base.RANDOM_SAE)  # values of `features` that are no SAE's id


def check_id(name: str, source: str, taken: Mapping[str, str]) -> None:
    """Raises ValueError for an SAE's id that is reserved, empty or taken.

    Args:
        name: The id.
        source: Where the SAE comes from, for the message.
        taken: Ids of other SAEs of the run, and where those come from.
    """
    if name in RESERVED or not name.strip():
        raise ValueError(
            f"the SAE at {source} must have an id of its own, got {name!r}"
            f"{', which the results use themselves' if name.strip() else ''}; give it one in"
            f" the config: saes=('my_name={source}',)"
        )
    if name in taken:
        raise ValueError(
            f"SAEs must differ in their ids, got {name!r} from {taken[name]} and from {source}; name only"
            f" one of them, or give one an id in the config: saes=('my_name={source}',)"
        )
