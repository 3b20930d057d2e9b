"""Files that hold a digest of themselves: by an independent computation, and every byte flipped."""

import hashlib
import json

import numpy as np
import pytest

from jaxprobe import boundary, sealed

RECORD = {"id": "ü", "numbers": [1, 2.5, None], "zeros": "0" * 64}
ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([7], np.int64)}


def write(path, *, block=None):
    path.write_bytes(b"".join(sealed.to_safetensors(ARRAYS, "entry", RECORD)))


def test_what_is_written_comes_back(tmp_path):
    path = tmp_path / "x.safetensors"
    write(path)
    record, arrays = sealed.read_safetensors(path, "entry", "again")
    assert record == RECORD
    assert {name: value.tolist() for name, value in arrays.items()} == {
        name: value.tolist() for name, value in ARRAYS.items()
    }
    path.write_bytes(sealed.to_json(RECORD))
    assert sealed.read_json(path, "again") == RECORD


def test_the_digest_is_what_the_page_says_it_is(tmp_path, monkeypatch):
    """Many blocks, hashed by threads, as one short formula."""
    monkeypatch.setattr(sealed, "_BLOCK", 512)
    path = tmp_path / "x.safetensors"
    arrays = {"a": np.random.default_rng(0).normal(size=5000)}
    path.write_bytes(b"".join(sealed.to_safetensors(arrays, "entry", RECORD)))
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])["__metadata__"]["entry"]
    digest = json.loads(header)[sealed.KEY]
    plain = content.replace(digest.encode(), sealed.PLACEHOLDER.encode())
    blocks = [plain[start : start + 512] for start in range(0, len(plain), 512)]
    joined = b"".join(hashlib.sha256(block).digest() for block in blocks)
    assert hashlib.sha256(joined).hexdigest() == digest
    sealed.read_safetensors(path, "entry", "again")
    # Two blocks change places.
    path.write_bytes(content[:1024] + content[1536:2048] + content[1024:1536] + content[2048:])
    with pytest.raises(boundary.FileError, match="does not hold what was written"):
        sealed.read_safetensors(path, "entry", "again")


@pytest.mark.parametrize("kind", ["json", "safetensors"])
def test_every_byte_counts(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    if kind == "json":
        path.write_bytes(sealed.to_json(RECORD))
    else:
        write(path)
    content = path.read_bytes()
    draw = np.random.default_rng(0)
    damaged = [content[:-1], content + b"\n", content + b"\0", content[:40], b""]
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << int(draw.integers(8))
        damaged.append(bytes(changed))
    for one in damaged:
        path.write_bytes(one)
        with pytest.raises(boundary.FileError, match=rf"x\.{kind}.*again"):
            if kind == "json":
                sealed.read_json(path, "get it again")
            else:
                sealed.read_safetensors(path, "entry", "get it again")


def test_what_has_no_digest_is_refused_where_it_is_needed(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"a": 1}')
    assert sealed.read_json(path, "again", needed=False) == {"a": 1}
    with pytest.raises(boundary.FileError, match="must hold a digest of its content"):
        sealed.read_json(path, "again")
    with pytest.raises(FileNotFoundError):
        sealed.read_json(tmp_path / "none.json", "again")
    path.write_text("[]")
    with pytest.raises(boundary.FileError, match="must hold a JSON object, got a list"):
        sealed.read_json(path, "again")
    with pytest.raises(ValueError, match="must not hold"):
        sealed.to_json({"a": sealed.PLACEHOLDER})
