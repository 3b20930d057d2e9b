"""The activation store: create, append, read, resume, refuse on mismatch."""

from jaxprobe.store.files import locked as locked
from jaxprobe.store.files import replace_file as replace_file
from jaxprobe.store.layout import MANIFEST as MANIFEST
from jaxprobe.store.layout import Segment as Segment
from jaxprobe.store.layout import StoreError as StoreError
from jaxprobe.store.layout import Tap as Tap
from jaxprobe.store.layout import sha256_of as sha256_of
from jaxprobe.store.reading import ActivationStore as ActivationStore
from jaxprobe.store.writing import StoreWriter as StoreWriter


def is_store(place) -> bool:
    """Whether `place` holds a store, finished or not."""
    return (place / MANIFEST).exists()
