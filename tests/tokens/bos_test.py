"""BOS as a setting: the ids that TransformerLens makes with and without it, and a word where it is doubled."""

import json
import logging

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from jaxprobe import tokens

TEXTS = ("The orchard was quiet.", "kettle", " 7 x 8")
# What stands in tokenizer_config.json, and whether the files' own rule puts BOS in front.
FAMILIES = {
    "pythia": ({"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}, False),
    "qwen": ({"bos_token": None, "eos_token": "<|im_end|>"}, False),
    "llama": ({"bos_token": "<|begin|>", "eos_token": "<|endoftext|>"}, True),
    "unnamed": ({}, False),
}


def write(folder, family):
    """A byte-level tokenizer's files with the special tokens of a family."""
    settings, opens = FAMILIES[family]
    special = ["<|endoftext|>", "<|im_end|>", "<|begin|>"]
    pieces = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(models.BPE({piece: n for n, piece in enumerate(pieces)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(special)
    if opens:
        backend.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", pair="<|begin|> $A $B", special_tokens=[("<|begin|>", 2)]
        )
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    named = {"tokenizer_class": "PreTrainedTokenizerFast", **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    found = tokens.from_directory(folder)
    assert found is not None
    return found


def rows(tokenizer, bos, texts=TEXTS, max_length=64):
    return [row.tolist() for row in tokens.token_ids(tokenizer, texts, max_length, bos)]


@pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated:DeprecationWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_on_and_off_are_transformer_lens_prepend_bos(family, tmp_path):
    lens = pytest.importorskip("transformer_lens", reason="the reference is TransformerLens")
    transformers = pytest.importorskip("transformers")
    ours = write(tmp_path, family)
    config = lens.HookedTransformerConfig(
        n_layers=1, d_model=4, n_ctx=64, d_head=4, d_vocab=300, act_fn="relu", device="cpu"
    )
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    model = lens.HookedTransformer(config, tokenizer=theirs)
    for bos, prepends in (("on", True), ("off", False)):
        wanted = [model.to_tokens(text, prepend_bos=prepends)[0].tolist() for text in TEXTS]
        assert rows(ours, bos) == wanted
    assert rows(ours, "auto") == rows(ours, "on" if FAMILIES[family][1] else "off")


def test_truncation_keeps_the_bos_that_was_switched_on(tmp_path):
    ours = write(tmp_path, "pythia")
    whole, short = rows(ours, "on"), rows(ours, "on", max_length=4)
    assert [row[:1] + row[1:][-3:] for row in whole] == short
    assert rows(ours, "on", [""]) == [[ours.begin_id]]
    with pytest.raises(
        ValueError, match=r"`max_length` must be a whole number of tokens, got 2\.5"
    ):
        rows(ours, "on", max_length=2.5)


def test_on_needs_a_token_and_other_settings_are_refused(tmp_path):
    ours = write(tmp_path, "llama")
    with pytest.raises(ValueError, match="unknown bos True; known: auto, on, off"):
        rows(ours, True)
    bare = tokens.Tokenizer(
        backend=ours.backend, bos_id=None, pad_id=0, vocab_size=9, fingerprint="bare"
    )
    with pytest.raises(ValueError, match="name neither a BOS nor an EOS token, got on"):
        rows(bare, "on")


def test_a_doubled_bos_is_told_with_its_count_and_place(tmp_path, caplog):
    ours = write(tmp_path, "llama")
    with caplog.at_level(logging.WARNING):
        rows(ours, "off", ["<|begin|>a", "b"])
        rows(ours, "auto", ["a", "b <|begin|>"])
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        got = rows(ours, "auto", ["a", "<|begin|>b", "<|begin|>"])
    assert got[2] == [2, 2]
    (record,) = caplog.records
    assert "2 of 3 texts begin with the BOS token" in record.getMessage()
    assert "index 1 ('<|begin|>b')" in record.getMessage()


def test_a_sentencepiece_model_without_bos_in_front_still_has_it(tmp_path):
    from tests.tokens.directory_test import FIXTURES

    (tmp_path / "tokenizer.model").write_bytes((FIXTURES / "spm_llama.model").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": false}')
    ours = tokens.from_directory(tmp_path)
    assert ours is not None
    assert (ours.bos_id, ours.begin_id) == (None, 1)
    (row,) = tokens.token_ids(ours, ["kettle"], 9, "on")
    assert row[0] == 1
    np.testing.assert_array_equal(row[1:], tokens.token_ids(ours, ["kettle"], 9)[0])
