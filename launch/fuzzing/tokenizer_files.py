"""Valid tokenizers in every storage format, and how they are read."""

import json
import struct
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from fuzzing.reader import Reader
from jaxprobe import tokens

TEXTS = (
    "the kettle sings",
    "  two  spaces ",
    "",
    "<bos>in<mark>side",
    "7 x 8 = 56",
    "cafe\u0301 \u2167",
)
_MARK = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}


def _byte_level() -> Tokenizer:
    vocabulary = {"<pad>": 0, "<bos>": 1, "<eos>": 2}
    for piece in [*sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "the"]:
        vocabulary[piece] = len(vocabulary)
    made = Tokenizer(models.BPE(vocabulary, [("t", "h"), ("th", "e")]))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.add_special_tokens(["<pad>", "<bos>", "<eos>"])
    made.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    return made


def make_json(folder: Path) -> None:
    """tokenizer.json with its side files."""
    made = _byte_level()
    made.save(str(folder / "tokenizer.json"))
    count = made.get_vocab_size()
    settings = {
        **{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>"},
        **{"eos_token": "<eos>", "pad_token": "<pad>"},
        "added_tokens_decoder": {str(count): {"content": "<mark>", **_MARK, "special": True}},
    }
    _write(folder / "tokenizer_config.json", settings)
    _write(folder / "special_tokens_map.json", {"bos_token": "<bos>"})
    _write(folder / "config.json", {"model_type": "llama"})


def make_merges(folder: Path) -> None:
    """vocab.json and merges.txt, as GPT-2's and Qwen's older folders."""
    made = _byte_level()
    model = json.loads(made.to_str())["model"]
    _write(folder / "vocab.json", model["vocab"])
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    marks = {"<pad>": 0, "<bos>": 1, "<eos>": 2}
    settings = {
        **{"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<eos>", "pad_token": "<pad>"},
        "bos_token": None,
        "unk_token": None,
        "added_tokens_decoder": {
            str(at): {"content": mark, **_MARK, "special": True} for mark, at in marks.items()
        },
    }
    _write(folder / "tokenizer_config.json", settings)
    _write(folder / "config.json", {"model_type": "qwen2"})


def make_pieces(folder: Path, unigram: bool) -> None:
    """A SentencePiece model, spelled out: a protocol buffer of pieces and three settings."""
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    pieces += [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    pieces += [("\u2581", -3.0, 1), ("\u2581th", -4.0, 1), ("th", -5.0, 1), ("<mark>", 0.0, 4)]
    pieces += [(chr(97 + at), -6.0 - at, 1) for at in range(26)]
    raw = b"".join(
        _field(1, _field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + _number(3, kind))
        for text, score, kind in pieces
    )
    trainer = _number(3, 1 if unigram else 2) + _number(35, 1) + _number(40, 0) + _number(41, 1)
    normalizer = _field(1, b"identity") + _number(3, 1) + _number(4, 0) + _number(5, 1)
    (folder / "tokenizer.model").write_bytes(raw + _field(2, trainer) + _field(3, normalizer))
    _write(folder / "config.json", {"model_type": "llama"})
    kind = "PreTrainedTokenizerFast" if unigram else "LlamaTokenizer"
    _write(folder / "tokenizer_config.json", {"tokenizer_class": kind})


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _write(path: Path, content) -> None:
    path.write_text(json.dumps(content))


def read(folder: Path) -> None:
    """Reads the folder's tokenizer, and computes ids of a few texts."""
    tokenizer = tokens.from_directory(folder)
    if tokenizer is not None:
        tokens.token_ids(tokenizer, TEXTS, 64)


READERS = {
    "tokenizer": Reader(
        makes={"json": make_json, "merges": make_merges},
        read=read,
        files=("tokenizer*.json", "special_tokens_map.json", "vocab.json", "merges.txt"),
    ),
    "sentencepiece": Reader(
        makes={
            "bpe": lambda folder: make_pieces(folder, False),
            "unigram": lambda folder: make_pieces(folder, True),
        },
        read=read,
        files=("tokenizer.model",),
    ),
}
