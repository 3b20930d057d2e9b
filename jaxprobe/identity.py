"""The identity of an artefact: a digest of what it was made from."""

import hashlib
import json
from collections.abc import Mapping


def digest(content: Mapping[str, object]) -> str:
    """Hex SHA-256 of a mapping of JSON types; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
