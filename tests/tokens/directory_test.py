"""Tokenizers of Hugging Face directories against SentencePiece and transformers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from jaxprobe import tokens
from tests.tokens import hard_texts

FIXTURES = Path(__file__).parents[1] / "fixtures"
EXPECTED = json.loads((FIXTURES / "sentencepiece_ids.json").read_text())
ODD = [text for text, _ in EXPECTED["llama"]]
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def corpus():
    text = (FIXTURES.parents[1] / "BUILD_NOTES.md").read_text()
    return [line for line in text.splitlines() if line.strip()]


def byte_level(split=None, normalizer=None, special=("<|begin|>", "<|end|>")):
    """A trained byte-level BPE, as Llama 3, Qwen and Pythia have."""
    backend = tokenizers.Tokenizer(models.BPE())
    steps = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)]
    if split:
        steps.insert(0, pre_tokenizers.Split(Regex(split), "isolated"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.normalizer = normalizer
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(corpus(), trainer)
    return backend


def save(folder, backend, **settings):
    backend.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokens.from_directory(folder)


def with_bos(backend):
    ids = [("<|begin|>", backend.token_to_id("<|begin|>"))]
    backend.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", pair="<|begin|> $A $B", special_tokens=ids
    )
    return backend


@pytest.mark.parametrize("name", EXPECTED)
def test_sentencepiece_models_give_sentencepieces_ids(name, tmp_path):
    shutil.copy(FIXTURES / f"spm_{name}.model", tmp_path / "tokenizer.model")
    ours = tokens.from_directory(tmp_path)
    assert ours.bos_id == (2 if name == "gemma" else 1)
    for text, ids in EXPECTED[name]:
        assert ours.encode(text) == ids, repr(text)
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": false}')
    assert tokens.from_directory(tmp_path).bos_id is None


@pytest.mark.parametrize("name", EXPECTED)
def test_sentencepiece_alone_encodes_hard_texts_as_its_library_does(name, tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece", reason="install the `parity` extra")
    shutil.copy(FIXTURES / f"spm_{name}.model", tmp_path / "tokenizer.model")
    ours = tokens.from_directory(tmp_path)
    library = sentencepiece.SentencePieceProcessor(str(tmp_path / "tokenizer.model"))
    # Marks are recognised by us and spelled out by the library; it ends a text at NUL where it normalises.
    # No family squeezes spaces or maps characters; where a model does, transformers and we part from the
    # library at visible spaces and at marks below a mapped letter.
    apart = ("\u2581", "\u0323") if name in ("plain_bpe", "unigram") else ()
    skipped = (*hard_texts.MARKS, *apart, "\0")
    texts = [t for t in hard_texts.texts() if not any(mark in t for mark in skipped)]
    assert len(texts) > 800
    wrong = [t for t in texts if ours.encode(t) != library.encode(t)]
    assert not wrong[:5]


def test_control_pieces_inside_a_text_are_recognised(tmp_path):
    shutil.copy(FIXTURES / "spm_gemma.model", tmp_path / "tokenizer.model")
    assert tokens.from_directory(tmp_path).encode("<s>a</s>") != [2, 1]
    assert tokens.from_directory(tmp_path).encode("</s>")[-1] == 1


def test_damaged_sentencepiece_models_are_refused(tmp_path):
    whole = (FIXTURES / "spm_llama.model").read_bytes()
    path = tmp_path / "tokenizer.model"
    for content in (b"", whole[:-9], b"PK\x03\x04 not a model", b"\x80\x05}q\x00."):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"tokenizer\.model"):
            tokens.from_directory(tmp_path)


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize(
    "family", ["llama3", "qwen", "pythia", "no_bos_in_spite_of_config", "bos_in_spite_of_config"]
)
def test_tokenizer_json_gives_the_reference_tokenizers_ids(family, tmp_path):
    transformers = pytest.importorskip("transformers", reason="install the `parity` extra")
    marks = {"bos_token": "<|begin|>", "eos_token": "<|end|>"}
    if family == "llama3":
        ours = save(tmp_path, with_bos(byte_level(LLAMA3_SPLIT)), **marks)
    elif family == "qwen":
        backend = byte_level(LLAMA3_SPLIT.replace("{1,3}", ""), normalizers.NFC())
        ours = save(tmp_path, backend, add_bos_token=False, eos_token="<|end|>", bos_token=None)
    elif family == "pythia":
        backend = byte_level(special=("<|end|>",))
        backend.post_processor = processors.ByteLevel(trim_offsets=True)
        ours = save(tmp_path, backend, bos_token="<|end|>", eos_token="<|end|>")
    elif family == "no_bos_in_spite_of_config":
        ours = save(tmp_path, byte_level(LLAMA3_SPLIT), add_bos_token=True, **marks)
    else:
        ours = save(tmp_path, with_bos(byte_level(LLAMA3_SPLIT)), add_bos_token=False, **marks)
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (ours.bos_id is not None) == (family in ("llama3", "bos_in_spite_of_config"))
    for text in (*ODD, "<|end|>in<|end|> between", *corpus()[:20]):
        ids = reference(text)["input_ids"]
        (row,) = tokens.token_ids(ours, [text], 4096)
        assert row.tolist() == (ids or [ours.pad_id]), repr(text)
        reference.truncation_side = "left"
        if len(ids) > 3:
            (row,) = tokens.token_ids(ours, [text], 3)
            kept = ids[-3:] if ours.bos_id is None else [ids[0], *ids[-2:]]
            assert row.tolist() == kept


def save_merges(folder, kind, **changes):
    """The files of a byte-level BPE as Qwen and GPT-NeoX once shipped them: no tokenizer.json."""
    qwen = kind.startswith("Qwen2")
    split = LLAMA3_SPLIT.replace("{1,3}", "") if qwen else None
    special = () if qwen else ("<|endoftext|>", "<|padding|>")  # inside vocab.json, or behind it
    backend = byte_level(split, normalizers.NFC(), special)
    size = backend.get_vocab_size()
    backend.model.save(str(folder))
    plain = {"lstrip": False, "rstrip": False, "single_word": False}
    names = ("<|endoftext|>", "<|im_start|>", "<tool>") if qwen else ("    ", "  ")
    listed = {
        str(size + number): {
            **{**plain, "content": name, "special": "|" in name, "normalized": not qwen}
        }
        for number, name in enumerate(names)
    }
    if not qwen:
        for number, name in enumerate(special):
            listed[str(number)] = {**plain, "content": name, "special": True, "normalized": False}
    settings = {
        "tokenizer_class": kind,
        "added_tokens_decoder": listed,
        "eos_token": "<|endoftext|>",
    }
    settings |= {"bos_token": None} if qwen else {"bos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | changes))
    return settings


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("kind", ["Qwen2Tokenizer", "GPTNeoXTokenizer"])
def test_vocabulary_and_merges_give_the_reference_tokenizers_ids(kind, bos, tmp_path):
    transformers = pytest.importorskip("transformers", reason="install the `parity` extra")
    marked = {"add_bos_token": True, "bos_token": "<|endoftext|>"} if bos else {}
    save_merges(tmp_path, kind, **marked)
    ours = tokens.from_directory(tmp_path)
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert type(reference).__name__ == kind
    assert (ours.bos_id is not None) == bos
    assert ours.pad_id == reference.convert_tokens_to_ids(reference.pad_token)
    more = [
        *("<|endoftext|>in<|im_start|>a  b    c <tool>x", "e\u0301 \u1e9b\u0323 12345 it's IT'S"),
        *("a\r\n\r\n  b \t c", "<|padding|>     six"),
    ]
    for text in (*ODD, *more, *corpus()[:20]):
        ids = reference(text)["input_ids"]
        (row,) = tokens.token_ids(ours, [text], 4096)
        assert row.tolist() == (ids or [ours.pad_id]), repr(text)


def test_vocabulary_and_merges_that_leave_something_open_are_refused(tmp_path):
    def refused(message, kind="Qwen2Tokenizer", **changes):
        save_merges(tmp_path, kind, **changes)
        with pytest.raises(ValueError, match=message):
            tokens.from_directory(tmp_path)

    settings = save_merges(tmp_path, "Qwen2TokenizerFast")
    assert tokens.from_directory(tmp_path).encode("<tool>") == [
        tokens.from_directory(tmp_path).pad_id + 2
    ]
    names = [path.name for path in tokens.directory_files(tmp_path)]
    assert names == ["vocab.json", "merges.txt", "tokenizer_config.json"]
    refused("must name one of the tokenizer classes .* got 'Roberta'", "Roberta")
    refused("is Qwen2Tokenizer or GPTNeoXTokenizer or GPT2Tokenizer, got", "LlamaTokenizer")
    refused("must not set `add_eos_token`", add_eos_token=True)
    listed = settings["added_tokens_decoder"]
    moved = {str(int(key) + 1): value for key, value in listed.items()}
    refused(
        r"tokenizer_config.json gives token '<\|endoftext\|>' the id",
        added_tokens_decoder=moved,
    )
    refused(
        "an added token must be an object with a `content`",
        added_tokens_decoder={"600": {"special": True}},
    )
    save_merges(tmp_path, "Qwen2Tokenizer")
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b c\n")
    with pytest.raises(
        ValueError, match=r"vocab.json cannot be read as a vocabulary that fits merges.txt"
    ):
        tokens.from_directory(tmp_path)


def test_truncation_and_padding_of_the_file_are_left_out(tmp_path):
    backend = with_bos(byte_level())
    backend.enable_truncation(4)
    backend.enable_padding(length=9)
    ours = save(tmp_path, backend)
    assert len(ours.encode("one two three four five six seven eight nine ten")) > 9
    assert len(ours.encode("a")) == 1


def test_prompts_without_bos_and_without_text_keep_one_token(tmp_path):
    ours = save(tmp_path, byte_level(), pad_token="<|end|>")
    rows = tokens.token_ids(ours, ["", "ab ab ab ab ab"], 2)
    assert rows[0].tolist() == [ours.pad_id] == [1]
    assert len(rows[1]) == 2


def test_rules_that_are_not_supported_are_refused(tmp_path):
    shutil.copy(FIXTURES / "spm_llama.model", tmp_path / "tokenizer.model")
    (tmp_path / "tokenizer_config.json").write_text('{"add_eos_token": true}')
    with pytest.raises(ValueError, match="add_eos_token"):
        tokens.from_directory(tmp_path)
    backend = byte_level()
    backend.post_processor = processors.TemplateProcessing(
        single="$A <|end|>", pair="$A $B <|end|>", special_tokens=[("<|end|>", 1)]
    )
    with pytest.raises(ValueError, match="at most one token"):
        save(tmp_path, backend)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json cannot be read as a tokenizer"):
        tokens.from_directory(tmp_path)


def test_fingerprints_tell_tokenizers_apart(tmp_path):
    first = save(tmp_path, with_bos(byte_level()))
    again = save(tmp_path, with_bos(byte_level()))
    other = save(tmp_path, byte_level())
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert tokens.from_directory(tmp_path / "absent") is None
    assert np.array(tokens.directory_files(tmp_path)).size == 2
