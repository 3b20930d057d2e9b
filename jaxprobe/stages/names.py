"""Names that results are told apart by: SAEs' ids and datasets' names, checked before any work."""

from collections.abc import Iterable, Sequence

from jaxprobe import assets, base, datasets
from jaxprobe.checkpoints import LoadedSae, load_sae
from jaxprobe.stages.encode import RANDOM_SAE

RESERVED = (base.ACTIVATIONS, RANDOM_SAE)  # values of `features` that are no SAE's id


def load_labelled(text: str) -> LoadedSae:
    """The SAE of an entry of `saes`: a source, or NAME=SOURCE, which makes NAME its id."""
    label, source = assets.split_label(text)
    return load_sae(source, id=label or None)


def check_ids(found: Iterable[tuple[str, str]]) -> None:
    """Raises ValueError for an SAE's id that is reserved, empty or taken.

    Args:
        found: Pairs (id, source).
    """
    seen: dict[str, str] = {}
    for name, source in found:
        if name in RESERVED or not name.strip():
            raise ValueError(
                f"the SAE at {source} must have an id of its own, got {name!r}"
                f"{', which the results use themselves' if name.strip() else ''}; give it one in"
                f" the config: saes=('my_name={source}',)"
            )
        if name in seen:
            raise ValueError(
                f"SAEs must differ in their ids, got {name!r} from {seen[name]} and {source}; name"
                f" only one of them, or give one an id in the config: saes=('my_name={source}',)"
            )
        seen[name] = source


def check_datasets(names: Sequence[str], source: str) -> None:
    """Raises ValueError for two datasets of one name, or a user's file with a published one's.

    Args:
        names: Entries of `datasets`: published names, files, or NAME=FILE.
        source: Where published datasets come from; looked at only where some are named.
    """
    seen: dict[str, str] = {}
    for entry in names:
        name = datasets.name_of(entry)
        if name in seen:
            raise ValueError(
                f"datasets must differ in their names, got {name!r} from {seen[name]!r} and"
                f" {entry!r}; give a file another name in the config: datasets=('my_name=FILE.csv',)"
            )
        seen[name] = entry
    own = {name: entry for name, entry in seen.items() if datasets.is_file(entry)}
    if not own or len(own) == len(seen):
        return
    for name in datasets.names(source):
        if name in own:
            raise ValueError(
                f"the dataset {own[name]!r} has the name of a published one, {name!r}; give it"
                " another in the config: datasets=('my_name=FILE.csv',)"
            )
