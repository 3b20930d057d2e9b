"""Vocabularies inside GGUF files against what they were written from."""

import json
from pathlib import Path

import gguf
import pytest
import tokenizers

from jaxprobe import tokens
from jaxprobe.tokens.spm_model import read_model
from tests.tokens import directory_test as other

FIXTURES = Path(__file__).parents[1] / "fixtures"
ODD = [*other.ODD, "<|end|>in<|end|> between", "it's IT'S we'll 12345 x\r\n\r\n y", "e\u0301"]


def write(path, architecture, **metadata):
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in metadata.items():
        if isinstance(value, bool):
            writer.add_bool(f"tokenizer.ggml.{key}", value)
        elif isinstance(value, int):
            writer.add_uint32(f"tokenizer.ggml.{key}", value)
        elif isinstance(value, str):
            writer.add_string(f"tokenizer.ggml.{key}", value)
        else:
            writer.add_array(f"tokenizer.ggml.{key}", list(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_llamas_pieces_give_sentencepieces_ids(tmp_path):
    given, bos_id, _ = read_model(FIXTURES / "spm_llama.model")
    path = write(
        tmp_path / "v.gguf",
        "llama",
        model="llama",
        tokens=given.pieces,
        scores=[float(score) for score in given.scores],
        token_type=given.kinds,
        bos_token_id=bos_id,
        eos_token_id=2,
        unknown_token_id=0,
    )
    ours = tokens.load_tokenizer(path)
    assert (ours.bos_id, ours.vocab_size) == (1, len(given.pieces))
    for text, ids in json.loads((FIXTURES / "sentencepiece_ids.json").read_text())["llama"]:
        assert ours.encode(text) == ids, repr(text)


@pytest.mark.parametrize("pre", ["llama-bpe", "qwen2", "gpt-2"])
def test_byte_level_vocabularies_give_their_sources_ids(tmp_path, pre):
    split = {
        "llama-bpe": other.LLAMA3_SPLIT,
        "qwen2": other.LLAMA3_SPLIT.replace("{1,3}", ""),
        "gpt-2": None,
    }[pre]
    normalizer = tokenizers.normalizers.NFC() if pre == "qwen2" else None
    source = other.byte_level(split, normalizer)
    model = json.loads(source.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].get)
    path = write(
        tmp_path / "v.gguf",
        "llama" if pre == "llama-bpe" else "qwen2",
        model="gpt2",
        pre=pre,
        tokens=pieces,
        token_type=[3, 3, *([1] * (len(pieces) - 2))],
        merges=[" ".join(pair) for pair in model["merges"]],
        bos_token_id=0,
        eos_token_id=1,
    )
    ours = tokens.load_tokenizer(path)
    assert ours.bos_id == (0 if pre == "llama-bpe" else None)
    assert ours.pad_id == 1
    for text in (*ODD, *other.corpus()[:40]):
        assert ours.encode(text) == source.encode(text, add_special_tokens=False).ids, repr(text)


def test_what_is_not_supported_is_refused_by_name(tmp_path):
    for name, metadata in {
        "tokenizer.ggml.model": {"model": "t5"},
        "tokenizer.ggml.pre": {"model": "gpt2", "pre": "tekken"},
        "tokenizer.ggml.add_eos_token": {"model": "llama", "add_eos_token": True},
    }.items():
        path = write(tmp_path / "v.gguf", "llama", **metadata)
        with pytest.raises(ValueError, match=f"`{name}`"):
            tokens.load_tokenizer(path)
