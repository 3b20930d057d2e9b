"""Vocabularies inside GGUF files against what they were written from."""

import json
from pathlib import Path

import gguf
import pytest
import tokenizers

from jaxprobe import tokens
from jaxprobe.boundary import FileError
from jaxprobe.tokens.spm_model import read_model
from tests.tokens import directory_test as other
from tests.tokens import hard_texts

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
    for text in (*ODD, *other.corpus()[:40], *hard_texts.texts()):
        assert ours.encode(text) == source.encode(text, add_special_tokens=False).ids, repr(text)


def llama(path, drop=(), **changes):
    """A SentencePiece vocabulary with every key that llama.cpp reads, but those in `drop`."""
    given, bos_id, _ = read_model(FIXTURES / "spm_llama.model")
    metadata = {
        **{"model": "llama", "tokens": given.pieces, "token_type": given.kinds},
        "scores": [float(score) for score in given.scores],
        **{"bos_token_id": bos_id, "eos_token_id": 2, "unknown_token_id": 0, "padding_token_id": 2},
        **{"add_bos_token": True, "add_eos_token": False, "add_space_prefix": True},
        "remove_extra_whitespaces": False,
    }
    kept = {key: value for key, value in metadata.items() if key not in drop}
    return write(path, "llama", **(kept | changes))


def byte_level(path, drop=(), **changes):
    """A vocabulary as Llama 3's, but the keys in `drop`."""
    source = other.byte_level(other.LLAMA3_SPLIT)
    model = json.loads(source.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].get)
    metadata = {
        **{"model": "gpt2", "pre": "llama-bpe", "tokens": pieces},
        "token_type": [3, 3, *([1] * (len(pieces) - 2))],
        "merges": [" ".join(pair) for pair in model["merges"]],
        **{"bos_token_id": 0, "eos_token_id": 1, "padding_token_id": 1, "add_bos_token": True},
    }
    kept = {key: value for key, value in metadata.items() if key not in drop}
    return write(path, "llama", **(kept | changes))


# Key to what a file without it means: the same ids, or an error that names the key.
@pytest.mark.parametrize(
    ("make", "same", "needed"),
    [
        (
            llama,
            {
                *("eos_token_id", "unknown_token_id", "padding_token_id", "add_bos_token"),
                *("add_eos_token", "add_space_prefix", "remove_extra_whitespaces"),
            },
            {"model", "tokens", "token_type", "scores", "bos_token_id"},
        ),
        (
            byte_level,
            {"eos_token_id", "padding_token_id", "add_bos_token"},
            {"model", "pre", "tokens", "token_type", "merges", "bos_token_id"},
        ),
    ],
)
def test_every_key_is_optional_or_missed_by_name(make, same, needed, tmp_path):
    texts = hard_texts.texts()[::10]
    whole = tokens.load_tokenizer(make(tmp_path / "v.gguf"))
    expected = (whole.bos_id, whole.encode_batch(texts))
    for key in same:
        ours = tokens.load_tokenizer(make(tmp_path / "v.gguf", drop=[key]))
        assert (ours.bos_id, ours.encode_batch(texts)) == expected, key
    for key in needed:
        with pytest.raises(FileError, match=rf"v\.gguf .*`tokenizer\.ggml\.{key}`"):
            tokens.load_tokenizer(make(tmp_path / "v.gguf", drop=[key]))


def test_keys_that_change_ids_are_obeyed(tmp_path):
    path = tmp_path / "v.gguf"
    assert tokens.load_tokenizer(llama(path, add_bos_token=False)).bos_id is None
    assert tokens.load_tokenizer(byte_level(path, add_bos_token=False)).bos_id is None
    bare = tokens.load_tokenizer(llama(path, add_space_prefix=False))
    assert bare.encode(" the") == tokens.load_tokenizer(llama(path)).encode("the")
    squeezed = tokens.load_tokenizer(llama(path, remove_extra_whitespaces=True))
    assert squeezed.encode("  a   b ") == squeezed.encode("a b")
    assert bare.encode("<unk>") == [0]  # as llama.cpp and the published tokenizers have it
    kinds = [1, 1, 1, *read_model(FIXTURES / "spm_llama.model")[0].kinds[3:]]
    unmarked = tokens.load_tokenizer(llama(path, token_type=kinds))
    assert unmarked.encode("<s>a</s>") == tokens.load_tokenizer(llama(path)).encode("<s>a</s>")
    digits = tokens.load_tokenizer(byte_level(path, pre="smollm")).encode("12345")
    assert len(digits) == 5


def test_gemmas_pieces_give_sentencepieces_ids(tmp_path):
    given, bos_id, pad_id = read_model(FIXTURES / "spm_gemma.model")
    metadata = {
        **{"model": "llama", "tokens": given.pieces, "token_type": given.kinds},
        "scores": [float(score) for score in given.scores],
        **{"bos_token_id": bos_id, "padding_token_id": pad_id, "eos_token_id": 1},
        **{"unknown_token_id": 3, "add_space_prefix": False},
    }
    ours = tokens.load_tokenizer(write(tmp_path / "v.gguf", "gemma2", **metadata))
    assert (ours.bos_id, ours.pad_id) == (bos_id, pad_id)
    for text, ids in json.loads((FIXTURES / "sentencepiece_ids.json").read_text())["gemma"]:
        assert ours.encode(text) == ids, repr(text)
    path = write(tmp_path / "v.gguf", "gemma2", **metadata, add_bos_token=False)
    silent = tokens.load_tokenizer(path)
    assert silent.bos_id is None
    assert silent.fingerprint != ours.fingerprint
    for key in ("add_space_prefix", "unknown_token_id", "bos_token_id", "token_type"):
        rest = {name: value for name, value in metadata.items() if name != key}
        with pytest.raises(FileError, match=f"`tokenizer.ggml.{key}`"):
            tokens.load_tokenizer(write(tmp_path / "v.gguf", "gemma2", **rest))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tokens", [1, 2]),
        ("tokens", ["a" * 200_000]),
        ("token_type", [3]),
        ("scores", [float("nan")] * 420),
        ("scores", [1.0]),
        ("bos_token_id", 420),
        ("unknown_token_id", 4_000_000_000),
        ("eos_token_id", "</s>"),
        ("padding_token_id", 9999),
        ("add_bos_token", "yes"),
        ("precompiled_charsmap", [1, 2]),
        ("add_eos_token", True),
        ("model", "t5"),
    ],
)
def test_bad_values_are_refused_by_name(key, value, tmp_path):
    path = llama(tmp_path / "v.gguf", **{key: value})
    with pytest.raises(FileError, match=r"v\.gguf cannot be read as a GGUF file with a tokenizer"):
        tokens.load_tokenizer(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("pre", "default"), ("pre", "tekken"), ("pre", ""), ("merges", ["a"]), ("merges", ["a b c"])],
)
def test_bad_byte_level_values_are_refused_by_name(key, value, tmp_path):
    path = byte_level(tmp_path / "v.gguf", **{key: value})
    with pytest.raises(FileError, match=rf"v\.gguf .*`tokenizer\.ggml\.{key}`"):
        tokens.load_tokenizer(path)
