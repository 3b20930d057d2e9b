"""Tokenizer files that claim too much: one named error each, soon and in little memory."""

import json
import os
import time
from pathlib import Path

import pytest

from jaxprobe import tokens
from jaxprobe.boundary import FileError
from tests.tokens import layouts

MIB = 1 << 20


def peak_bytes(reset=False):
    """Most memory that the process has held since the last reset; None where Linux does not say."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024


def field(number, content):
    """A field of bytes of a protocol buffer."""
    size, out = len(content), b""
    while size >= 0x80:
        out, size = out + bytes([size & 0x7F | 0x80]), size >> 7
    return bytes([number << 3 | 2]) + out + bytes([size]) + content


def spm(*pieces, normalizer=b""):
    """A SentencePiece BPE model of normal pieces."""
    body = b"".join(field(1, field(1, p.encode()) + b"\x15\0\0\0\0") for p in pieces)
    return {"tokenizer.model": body + field(2, b"\x18\x02") + field(3, normalizer)}


def fast(**changes):
    """A tokenizer.json with changes at its first level, as text."""
    backend = json.loads(layouts.byte_level(None, ["<s>"]).to_str())
    return {"tokenizer.json": json.dumps(backend | changes).encode()}


def replaced(old, new):
    (raw,) = fast().values()
    assert old in raw
    return {"tokenizer.json": raw.replace(old, new, 1)}


def with_model(**changes):
    (raw,) = fast().values()
    return fast(model=json.loads(raw)["model"] | changes)


def beside(**files):
    (raw,) = fast().values()
    renamed = {name.replace("__", "."): content for name, content in files.items()}
    return {"tokenizer.json": raw, **renamed}


def step(content):
    return {"type": "Replace", "pattern": {"String": "a"}, "content": content}


TOKEN = layouts.flags("<x>")
CHARSMAP = b"\x07\x00\x00\x00abc"
DEEP = b"[" * 200_000
MANY = b"[" + b'["a","b"],' * 3_000_000 + b'["a","b"]]'
HOSTILE = {
    "varint of 5 MB": lambda: {"tokenizer.model": b"\x08" + b"\x80" * 5_000_000},
    "long piece": lambda: spm("<unk>", "a" * 200_000),
    "long pieces": lambda: spm("<unk>", *(f"{n:05}" * 100 for n in range(20_000))),
    "many fields": lambda: {"tokenizer.model": b"\x0a\x00" * 7_000_000},
    "many fields of a piece": lambda: {"tokenizer.model": field(1, b"\x0a\x00" * 7_000_000)},
    "large model": lambda: {"tokenizer.model": b"\0" * (17 * MIB)},
    "bad map": lambda: spm("<unk>", "a", normalizer=field(2, CHARSMAP)),
    "map without trie": lambda: spm("<unk>", normalizer=field(2, b"\xff" * 4096)),
    "map that leaves": lambda: spm(
        "<unk>", normalizer=field(2, b"\0\x04\0\0" + b"\xff\xff\xff\x7f" * 256)
    ),
    "repeated pieces": lambda: spm("<unk>", "a", "a"),
    "no pieces": lambda: spm(),
    "id of 4e9": lambda: replaced(b'"!": 0', b'"!": 4000000000'),
    "added id of 4e9": lambda: replaced(
        b'"added_tokens": [',
        b'"added_tokens": [%s,' % json.dumps({"id": 4_000_000_000, **TOKEN}).encode(),
    ),
    "deep steps": lambda: replaced(b'"normalizer": null', b'"normalizer": ' + b'{"a":' * 100_000),
    "chain of replace": lambda: fast(
        normalizer={"type": "Sequence", "normalizers": [step("a" * 10)] * 12}
    ),
    "one long replace": lambda: fast(normalizer=step("a" * 1_000_000)),
    "map in tokenizer.json": lambda: fast(
        normalizer={"type": "Precompiled", "precompiled_charsmap": "BwAAAGFiYw=="}
    ),
    "many merges": lambda: replaced(b'"merges": ', b'"merges": ' + MANY + b', "x": '),
    "many values": lambda: replaced(b'"merges"', b'"x": [' + b"1," * 10_000_000 + b'1], "merges"'),
    "dropout": lambda: with_model(dropout=0.5),
    "long prepend": lambda: fast(normalizer={"type": "Prepend", "prepend": "a" * 5_000_000}),
    "large vocabulary": lambda: with_model(vocab={f"t{n}": n for n in range(1_500_000)}),
    "many added tokens": lambda: replaced(
        b'"added_tokens": [',
        b'"added_tokens": [' + b",".join([json.dumps({"id": 1, **TOKEN}).encode()] * 50_000) + b",",
    ),
    "word pieces without an unknown": lambda: fast(
        model={
            **{"type": "WordPiece", "unk_token": "[U]", "continuing_subword_prefix": "##"},
            **{"max_input_chars_per_word": 10**18, "vocab": {"a": 0}},
        }
    ),
    "large json": lambda: {"tokenizer.json": b" " * (41 * MIB)},
    "unknown in front": lambda: fast(
        post_processor={
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "q", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [],
            "special_tokens": {"q": {"id": "q", "ids": [4_000_000_000], "tokens": ["q"]}},
        }
    ),
    "deep settings": lambda: beside(tokenizer_config__json=DEEP),
    "deep map": lambda: beside(special_tokens_map__json=DEEP),
    "long number": lambda: beside(added_tokens__json=b'{"a": %s}' % (b"1" * 100_000)),
    "added object": lambda: beside(added_tokens__json={"a": {}}),
    "settings no object": lambda: beside(tokenizer_config__json=[1]),
    "decoder of null": lambda: beside(tokenizer_config__json={"added_tokens_decoder": None}),
    "decoder of texts": lambda: beside(
        tokenizer_config__json={"added_tokens_decoder": {"9": "<x>"}}
    ),
    "decoder far away": lambda: beside(
        tokenizer_config__json={"added_tokens_decoder": {"4000000000": TOKEN}}
    ),
    "unknown flag": lambda: beside(
        tokenizer_config__json={"added_tokens_decoder": {"9": {**TOKEN, "lstripp": True}}}
    ),
    "role of a number": lambda: beside(tokenizer_config__json={"pad_token": 7}),
    "role of an object": lambda: beside(tokenizer_config__json={"bos_token": {"content": "<s>"}}),
    "lone surrogate": lambda: beside(tokenizer_config__json=b'{"pad_token": "\\ud800"}'),
    "extra text": lambda: beside(tokenizer_config__json={"extra_special_tokens": "<x>"}),
    "unknown class": lambda: beside(tokenizer_config__json={"tokenizer_class": "T5Tokenizer"}),
    "class no text": lambda: beside(tokenizer_config__json={"tokenizer_class": [1]}),
    "other files": lambda: beside(tokenizer_config__json={"fast_tokenizer_files": ["a.json"]}),
    "own code": lambda: beside(
        tokenizer_config__json={"auto_map": {"AutoTokenizer": ["a.B", None]}}
    ),
    "unknown field in the map": lambda: beside(special_tokens_map__json={"add_bos_token_": True}),
    "class of pieces": lambda: {
        **spm("<unk>", "a"),
        "tokenizer_config.json": {"tokenizer_class": "Qwen2Tokenizer"},
    },
    "vocabulary id": lambda: {
        "vocab.json": {"a": 4_000_000_000},
        "merges.txt": b"",
        "tokenizer_config.json": {"tokenizer_class": "Qwen2Tokenizer"},
    },
    "deep vocabulary": lambda: {
        "vocab.json": DEEP,
        "merges.txt": b"",
        "tokenizer_config.json": {"tokenizer_class": "Qwen2Tokenizer"},
    },
    "merge of three": lambda: {
        "vocab.json": {"a": 0},
        "merges.txt": b"a b c\n",
        "tokenizer_config.json": {"tokenizer_class": "Qwen2Tokenizer"},
    },
}


@pytest.mark.parametrize("name", HOSTILE)
def test_files_without_measure_end_in_one_named_error(name, tmp_path):
    folder = tmp_path / "m"
    layouts.write(folder, HOSTILE[name]())
    before, start = peak_bytes(reset=True), time.process_time()
    with pytest.raises(FileError) as caught:
        tokens.from_directory(folder)
    seconds, after = time.process_time() - start, peak_bytes()
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    assert seconds < 10  # 2 on a quiet machine; what is unbounded takes far longer
    if before is not None:
        assert after - before < 300 * MIB


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model", "vocab.json"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_only_regular_files_are_read(name, kind, tmp_path):
    files = fast() if name == "tokenizer.json" else {"merges.txt": b""}
    layouts.write(
        tmp_path / "m", {**files, "tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer"}}
    )
    path = tmp_path / "m" / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    if name == "tokenizer.model":
        (tmp_path / "m" / "tokenizer_config.json").unlink()
    with pytest.raises(FileError, match=rf"{name} must be a regular file, got a {kind}"):
        tokens.from_directory(tmp_path / "m")
    for side in ("tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"):
        layouts.write(tmp_path / "n", fast())
        os.mkfifo(tmp_path / "n" / side)
        with pytest.raises(FileError, match=rf"{side} must be a regular file, got a pipe"):
            tokens.from_directory(tmp_path / "n")
