"""What an artefact is: a digest of what it was made from."""

import hashlib
import json
from collections.abc import Mapping


def digest(content: Mapping[str, object]) -> str:
    """Hex SHA-256 of JSON types, whatever their order."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
