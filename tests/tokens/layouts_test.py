"""Ids of every family, stored in every way, against transformers' AutoTokenizer on the same folder."""

import json

import pytest

from jaxprobe import tokens
from jaxprobe.boundary import FileError
from jaxprobe.tokens.classes import CLASSES
from tests.tokens import hard_texts, layouts

TEXTS = hard_texts.texts()
WHOLE = ("plain", "decoder", "all files")  # all texts there; elsewhere every eighth, in turn
pytestmark = pytest.mark.filterwarnings("ignore::Warning")


def different(folder, layout, turn):
    """Texts of which ours and the reference's ids differ, with both."""
    transformers = pytest.importorskip("transformers", reason="install the `parity` extra")
    ours = tokens.from_directory(folder)
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    texts = TEXTS if layout in WHOLE else TEXTS[turn % 8 :: 8]
    # What a call does, without its arrays; the call itself for some.
    expected = [row.ids for row in reference.backend_tokenizer.encode_batch_fast(texts)]
    assert expected[::50] == reference(texts[::50])["input_ids"]
    first = [] if ours.bos_id is None else [ours.bos_id]
    got = [[*first, *row] for row in ours.encode_batch(texts)]
    return [rows for rows in zip(texts, got, expected, strict=True) if rows[1] != rows[2]]


NAMES = list(layouts.layouts(9, {}))
# What the class does with a layout is the same in all families of a class: one has all, the rest these.
FEW = ("plain", "decoder", "extra list", "map against settings", "all files", "prefix space")


def pairs(everything, few):
    return [(one, name) for one in everything for name in NAMES] + [
        (one, name) for one in few for name in FEW
    ]


@pytest.mark.parametrize(
    ("family", "layout"),
    pairs(("gemma", "llama2", "llama3", "qwen2", "pythia"), ("mistral", "qwen3", "smollm")),
)
def test_tokenizer_json(family, layout, tmp_path):
    kind, name, make, special = layouts.FAMILIES[family]
    backend = make()
    stored = backend.get_added_tokens_decoder()
    settings, files = layouts.layouts(backend.get_vocab_size(), stored)[layout]
    contents = {
        "tokenizer.json": backend.to_str().encode(),
        "config.json": {"model_type": kind},
        "tokenizer_config.json": {"tokenizer_class": name, **special, **settings},
        **files,
    }
    layouts.write(tmp_path / "m", contents)
    if layout == "decoder of one" and family in ("qwen2", "pythia"):
        # The class forgets the others, and <mark> would get the id of one of them.
        with pytest.raises(ValueError, match=r"tokenizer_config\.json gives token '<mark>' the id"):
            tokens.from_directory(tmp_path / "m")
        return
    assert not different(tmp_path / "m", layout, NAMES.index(layout))[:3]


@pytest.mark.parametrize("family", ["gemma", "llama2", "llama3", "mistral", "pythia"])
def test_padding_of_tokenizer_json_declares_its_token(family, tmp_path):
    transformers = pytest.importorskip("transformers", reason="install the `parity` extra")
    kind, name, make, special = layouts.FAMILIES[family]
    backend = make()
    backend.enable_padding(pad_id=5, pad_token="<mark>")
    for settings in ({}, {"pad_token": None}, {"pad_token": "<img>"}):
        contents = {
            "tokenizer.json": backend.to_str().encode(),
            "config.json": {"model_type": kind},
            "tokenizer_config.json": {"tokenizer_class": name, **special, **settings},
        }
        layouts.write(tmp_path / "m", contents)
        ours = tokens.from_directory(tmp_path / "m")
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
        for text in ("a<mark>b", "<img> the <mark>"):
            first = [] if ours.bos_id is None else [ours.bos_id]
            assert [*first, *ours.encode(text)] == theirs(text)["input_ids"], (settings, text)


MODELS = {
    "llama as stored": ("llama", "llama", None),
    "llama": ("llama", "llama", "LlamaTokenizer"),
    "mistral": ("llama", "mistral", "LlamaTokenizer"),
    "gemma": ("gemma", "gemma2", "GemmaTokenizer"),
    "gemma as stored": ("gemma", "gemma3_text", "PreTrainedTokenizerFast"),
    "gemma unnamed": ("gemma", "gemma", None),
    "unigram": ("unigram", "llama", None),
    "squeezed": ("plain_bpe", "llama", "PreTrainedTokenizer"),
}


@pytest.mark.parametrize(
    ("model", "layout"),
    pairs(
        ("llama as stored", "llama", "gemma"),
        ("mistral", "gemma as stored", "gemma unnamed", "unigram", "squeezed"),
    ),
)
def test_tokenizer_model(model, layout, tmp_path):
    fixture, kind, name = MODELS[model]
    settings, files = layouts.layouts(len(layouts.spm(fixture)), {})[layout]
    settings = {"tokenizer_class": name, **settings}
    contents = {
        "tokenizer.model": (layouts.FIXTURES / f"spm_{fixture}.model").read_bytes(),
        "config.json": {"model_type": kind},
        "tokenizer_config.json": settings,
        **files,
    }
    if settings == {"tokenizer_class": None}:
        del contents["tokenizer_config.json"]
    layouts.write(tmp_path / "m", contents)
    assert not different(tmp_path / "m", layout, NAMES.index(layout))[:3]


@pytest.mark.parametrize(("family", "layout"), pairs(("qwen2", "pythia"), ("qwen3", "smollm")))
def test_vocabulary_and_merges(family, layout, tmp_path):
    kind, name, make, special = layouts.FAMILIES[family]
    backend = make()
    size, stored = backend.get_vocab_size(), backend.get_added_tokens_decoder()
    settings, files = layouts.layouts(size, stored)[layout]
    model = json.loads(backend.to_str())["model"]
    merges = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in model["merges"]), ""])
    # Without numbered tokens the special ones stand in the vocabulary.
    named = {} if "added_tokens_decoder" in settings else {t.content: i for i, t in stored.items()}
    contents = {
        "vocab.json": {**model["vocab"], **named},
        "merges.txt": merges.encode(),
        "config.json": {"model_type": kind},
        "tokenizer_config.json": {"tokenizer_class": name, **special, **settings},
        **files,
    }
    if layout == "decoder of one":
        contents["vocab.json"] |= {token.content: index for index, token in stored.items()}
    layouts.write(tmp_path / "m", contents)
    assert not different(tmp_path / "m", layout, NAMES.index(layout))[:3]


@pytest.mark.parametrize("family", ["gemma", "llama2", "llama3", "qwen2"])
def test_every_class_in_every_family(family, tmp_path):
    kind, _, make, special = layouts.FAMILIES[family]
    raw = make().to_str().encode()
    classes = (*CLASSES, "PreTrainedTokenizerFast", "LlamaTokenizerFast", None)
    models = (kind, "mistral", None)
    for number, (name, model) in enumerate((name, model) for name in classes for model in models):
        if name is model is None:
            continue  # the reference cannot tell then
        settings = {"tokenizer_class": name, **special}
        contents = {"tokenizer.json": raw, "tokenizer_config.json": settings}
        if model is not None:
            contents["config.json"] = {"model_type": model}
        layouts.write(tmp_path / "m", contents)
        if name == "GemmaTokenizer" and "unk_token" not in special and model in ("llama", None):
            # The reference fails later, at the first text that it cannot spell.
            with pytest.raises(FileError, match="`unk_token` must be in the vocabulary"):
                tokens.from_directory(tmp_path / "m")
        else:
            assert not different(tmp_path / "m", "", number)[:3], (name, model)
