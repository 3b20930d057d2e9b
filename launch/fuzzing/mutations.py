"""Mutations of valid files: bits, bytes, runs, sizes; and, where a file is JSON, its values and structure.

Nothing here depends on a format beyond that: the valid file itself leads mutations deep into a reader.
"""

import copy
import json
import random
import struct
import zlib
from typing import Any

MAX_BYTES = (
    1 << 20
)  # of a mutated file: size limits are tested by what a file claims, not by its length

_EDGES = (0, 1, 2, 3, 7, 8, 16, 31, 32, 64, 127, 128, 255, 256, 1000, 4096, 32767, 32768, 65535)
_HUGE = (
    *(2**16, 2**20, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 4 * 10**9, 2**40, 2**48),
    *(2**53, 2**60, 2**62, 2**63 - 1, 2**63, 2**64 - 1),
)
_FLOATS = (0.0, -0.0, -1.0, 1e-45, 1e30, 3.5e38, float("inf"), float("-inf"), float("nan"))
_TEXTS = (
    *("", ".", "..", "/", "../x", "/dev/zero", "a" * 300, "\x00", "\x1b[2J", "\u202e", "é" * 50),
    *("NaN", "null", "true", "-1", "1e999", "9" * 400, "=1+1", "\ud800", "<bos>", "\u2581"),
)
_JSON = (
    *(None, True, False, 0, 1, -1, 2, 3, 10**9, 4 * 10**9, 2**53 + 1, 2**63, 10**30, -(10**9)),
    *(0.5, -0.5, 1e-300, 1e300, float("nan"), float("inf"), [], {}, [[]], [0], {"": 0}),
    *_TEXTS,
)


def mutate(draw: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """`content` with one to a few mutations, usually one.

    Args:
        draw: Source of all random choices.
        content: A valid file.
        others: Further valid files, to splice from.
    """
    text = _json_of(content)
    if text is not None and draw.random() < 0.7:
        return _mutated_json(draw, text)[:MAX_BYTES]
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 1, 2, 3, 8))):
        _BYTES[draw.randrange(len(_BYTES))](draw, changed, others)
    if changed[:2] == b"PK" and draw.random() < 0.8:
        _mend_zip(changed)
    return bytes(changed[:MAX_BYTES])


# --- bytes


def _place(draw: random.Random, changed: bytearray, size: int = 1) -> int:
    """An offset; both ends are favoured, as headers come first and footers last."""
    last = max(0, len(changed) - size)
    near = min(last, 512)
    return draw.choice((draw.randint(0, last), draw.randint(0, near), last - draw.randint(0, near)))


def _flip(draw, changed, others) -> None:
    if changed:
        changed[_place(draw, changed)] ^= 1 << draw.randrange(8)


def _set(draw, changed, others) -> None:
    if changed:
        changed[_place(draw, changed)] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))


def _number(draw, changed, others) -> None:
    """Writes a number that is likely to be a size, count, offset or id."""
    code, bits = draw.choice((("<H", 16), ("<I", 32), ("<Q", 64), (">I", 32), (">Q", 64)))
    value = draw.choice((*_EDGES, *_HUGE, len(changed), len(changed) - 1, draw.getrandbits(bits)))
    raw = struct.pack(code, value % (1 << bits))
    at = _place(draw, changed, len(raw))
    changed[at : at + len(raw)] = raw


def _float(draw, changed, others) -> None:
    raw = struct.pack(draw.choice(("<f", "<d")), draw.choice(_FLOATS[:5] + _FLOATS[6:]))
    at = _place(draw, changed, len(raw)) // 4 * 4
    changed[at : at + len(raw)] = raw


def _cut(draw, changed, others) -> None:
    del changed[_place(draw, changed) :]


def _drop(draw, changed, others) -> None:
    at = _place(draw, changed)
    del changed[at : at + draw.choice((1, 2, 4, 8, 64, 1000))]


def _insert(draw, changed, others) -> None:
    at, count = _place(draw, changed), draw.choice((1, 2, 4, 8, 64, 4096))
    changed[at:at] = draw.choice((bytes(count), b"\xff" * count, draw.randbytes(count)))


def _repeat(draw, changed, others) -> None:
    """Repeats a run of the file many times: deep nesting, long tables, repeated keys."""
    at, count = _place(draw, changed), draw.choice((1, 2, 3, 8, 40, 200))
    run = bytes(changed[at : at + count])
    changed[at:at] = run * draw.choice((1, 2, 16, 1000, MAX_BYTES // (4 * count)))


def _move(draw, changed, others) -> None:
    at, count = _place(draw, changed), draw.choice((1, 4, 8, 64, 512))
    run = bytes(changed[at : at + count])
    del changed[at : at + count]
    to = _place(draw, changed)
    changed[to:to] = run


def _splice(draw, changed, others) -> None:
    other = draw.choice(others) if others else bytes(changed)
    if other:
        start, count = draw.randrange(len(other)), draw.choice((4, 32, 256, 4096))
        at = _place(draw, changed)
        changed[at : at + draw.choice((0, count))] = other[start : start + count]


def _text(draw, changed, others) -> None:
    at = _place(draw, changed)
    changed[at:at] = draw.choice(_TEXTS).encode("utf-8", "surrogatepass")


def _digits(draw, changed, others) -> None:
    """Replaces a number that the file has in decimal digits."""
    digits = [at for at, byte in enumerate(changed[:4096]) if 48 <= byte <= 57]
    if digits:
        at = end = draw.choice(digits)
        while end < len(changed) and 48 <= changed[end] <= 57:
            end += 1
        changed[at:end] = str(draw.choice((*_EDGES, *_HUGE, -1, 10**30, "1e999", ""))).encode()


_BYTES = (
    *(_flip, _flip, _set, _set, _number, _number, _number, _float, _cut, _drop, _insert),
    *(_repeat, _move, _splice, _text, _digits),
)


def _mend_zip(changed: bytearray) -> None:
    """Corrects the checksums of stored members, so that a mutation is not refused by the checksum alone."""
    at = 0
    sums: dict[int, bytes] = {}
    while (at := changed.find(b"PK\x03\x04", at)) >= 0 and at + 30 <= len(changed):
        method, _, _, _, size, _, name, extra = struct.unpack_from("<HHHIIIHH", changed, at + 8)
        start = at + 30 + name + extra
        if method == 0 and start + size <= len(changed):
            sums[at] = struct.pack("<I", zlib.crc32(changed[start : start + size]))
            changed[at + 14 : at + 18] = sums[at]
        at += 4
    at = 0
    while (at := changed.find(b"PK\x01\x02", at)) >= 0 and at + 46 <= len(changed):
        (where,) = struct.unpack_from("<I", changed, at + 42)
        if where in sums:
            changed[at + 16 : at + 20] = sums[where]
        at += 4


# --- JSON, alone or as the header of a safetensors file


def _json_of(content: bytes) -> tuple[bool, Any, bytes] | None:
    """(whether it is a safetensors header, the value, the bytes after it), or None."""
    if content[:1] in (b"{", b"["):
        try:
            return False, json.loads(content), b""
        except (ValueError, RecursionError):
            return None
    size = int.from_bytes(content[:8], "little")
    if content[8:9] == b"{" and 2 <= size <= len(content) - 8:
        try:
            return True, json.loads(content[8 : 8 + size]), content[8 + size :]
        except (ValueError, RecursionError):
            return None
    return None


def _mutated_json(draw: random.Random, parsed: tuple[bool, Any, bytes]) -> bytes:
    is_header, value, rest = parsed
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        value = _changed_value(draw, value)
    text = json.dumps(value)
    if draw.random() < 0.05:
        text = _broken_text(draw, text)
    raw = text.encode("utf-8", "surrogatepass")
    return len(raw).to_bytes(8, "little") + raw + rest if is_header else raw


def _broken_text(draw: random.Random, text: str) -> str:
    """JSON that no `dumps` writes: deep nesting, a repeated key, very long numbers."""
    deep = draw.choice((10, 2000, 100_000))
    return draw.choice(
        (
            "[" * deep + "]" * deep,
            '{"a":' * deep + "1" + "}" * deep,
            text[:-1] + ',"dtype":1,"dtype":2}' if text.endswith("}") else text,
            text.replace("1", "1" * draw.choice((20, 400, 100_000)), 1),
        )
    )


def _changed_value(draw: random.Random, value: Any) -> Any:
    """The tree with one entry replaced, dropped, doubled, renamed or swapped."""
    path = _some_path(draw, value)
    if not path:
        return _json_value(draw)
    *above, last = path
    parent = value
    for step in above:
        parent = parent[step]
    old, way = parent[last], draw.randrange(8)
    if way == 0:
        del parent[last]
    elif way == 1 and isinstance(parent, dict):
        parent[draw.choice((*parent, *_TEXTS))] = parent.pop(last)
    elif way == 2 and isinstance(parent, list):
        parent[last:last] = [old] * draw.choice((1, 3, 1000))
    elif way == 3:
        parent[last] = draw.choice(([old], {str(last): old}, str(old)))
    elif way == 4 and isinstance(old, int | float) and not isinstance(old, bool):
        parent[last] = draw.choice((-old, old + 1, old - 1, old * 2, old * 10**9, old / 3, 0))
    elif way == 5 and isinstance(old, str):
        at = draw.randint(0, len(old))
        parent[last] = old[:at] + draw.choice(_TEXTS) + old[at:]
    else:
        parent[last] = _json_value(draw)
    return value


def _json_value(draw: random.Random) -> Any:
    return copy.deepcopy(draw.choice(_JSON))  # later mutations change it


def _some_path(draw: random.Random, value: Any) -> list:
    """A random entry of a tree, as the path to it."""
    path = []
    while isinstance(value, dict | list) and value:
        steps = list(value) if isinstance(value, dict) else range(len(value))
        path.append(draw.choice(steps))
        value = value[path[-1]]
        if draw.random() < 0.25:
            break
    return path
