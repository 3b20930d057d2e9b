"""A GGUF file without its vocabulary, which transformers reads entry by entry, twice, for a minute."""

import struct
from pathlib import Path

SIZES = {
    0: 1,
    1: 1,
    2: 2,
    3: 2,
    4: 4,
    5: 4,
    6: 4,
    7: 1,
    10: 8,
    11: 8,
    12: 8,
}  # bytes by type of value
UINT32, STRING, ARRAY = 4, 8, 9


def write(source: Path, target: Path, architecture: str) -> Path:
    """Copies a file less its tokenizer's keys; the size of the vocabulary becomes a key of the model's."""
    content = source.read_bytes()
    magic, version, num_tensors, num_keys = struct.unpack_from("<4sIQQ", content)
    at, kept = 24, []
    for _ in range(num_keys):
        start, name = at, _text(content, at)
        (kind,) = struct.unpack_from("<I", content, start + 8 + len(name))
        at = _end(content, start + 12 + len(name), kind)
        if name == b"tokenizer.ggml.tokens":
            (size,) = struct.unpack_from("<Q", content, start + 16 + len(name))
        if not name.startswith(b"tokenizer."):
            kept.append(content[start:at])
    name = f"{architecture}.vocab_size".encode()
    kept.append(struct.pack("<Q", len(name)) + name + struct.pack("<II", UINT32, size))
    tensors = at
    for _ in range(num_tensors):
        at += 8 + len(_text(content, at))
        (num_axes,) = struct.unpack_from("<I", content, at)
        at += 4 + 8 * num_axes + 4 + 8
    header = struct.pack("<4sIQQ", magic, version, num_tensors, len(kept))
    header += b"".join(kept) + content[tensors:at]
    with target.open("wb") as file:
        file.write(header + bytes(-len(header) % 32))
        file.write(content[at + -at % 32 :])
    return target


def _text(content: bytes, at: int) -> bytes:
    (length,) = struct.unpack_from("<Q", content, at)
    return content[at + 8 : at + 8 + length]


def _end(content: bytes, at: int, kind: int) -> int:
    """Where a value that begins here ends."""
    if kind == STRING:
        return at + 8 + struct.unpack_from("<Q", content, at)[0]
    if kind != ARRAY:
        return at + SIZES[kind]
    element, count = struct.unpack_from("<IQ", content, at)
    at += 12
    if element in SIZES:
        return at + count * SIZES[element]
    for _ in range(count):
        at = _end(content, at, element)
    return at
