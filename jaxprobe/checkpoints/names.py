"""What an SAE is called: the `features` of its results, a column of tables, a part of file names."""

from absl import logging

from jaxprobe import boundary
from jaxprobe.base import ACTIVATIONS, RANDOM_SAE
from jaxprobe.checkpoints.places import LONGEST_ID, Place

RESERVED = (ACTIVATIONS, RANDOM_SAE)  # what results call activations and the random control


def wrong_id(name: object) -> str | None:
    """Why a text cannot name an SAE in results, tables and the terminal; None where it can."""
    if not isinstance(name, str) or not name.strip():
        return "is no name"
    if name in RESERVED:
        return "is what results call something else"
    if not name.isprintable() or name != name.strip():
        return "has characters that cannot be seen"
    if len(name) > LONGEST_ID:
        return f"has {len(name)} characters, more than {LONGEST_ID}"
    return None


def check_id(name: object) -> None:
    """Raises ValueError for an `id` that cannot name an SAE."""
    wrong = wrong_id(name)
    if wrong:
        raise ValueError(
            f"`id` must be a short printable name of an SAE, got {name!r:.80}: it {wrong}"
        )


def id_of(place: Place, found: object) -> str:
    """The name that the user gave, else the one that the files have, else that of the place.

    A file may call itself anything: what results call activations, or nothing at all.

    Raises:
        FileError: None of them can be used.
    """
    if place.options.id is not None:
        return place.options.id
    if not wrong_id(found):
        return str(found)
    name = place.id()
    if wrong_id(name):
        raise boundary.FileError(
            f"{place.source} has no name that results could carry ({name!r:.80} {wrong_id(name)}); give"
            " one as `id`"
        )
    logging.warning(
        "the SAE in %s calls itself %.80r, which %s; it is called %s",
        *(place.source, found, wrong_id(found), name),
    )
    return name
