"""Ids of every family, stored in every way, against transformers' AutoTokenizer on the same folder."""

import json

import pytest

from jaxprobe import tokens
from tests.tokens import hard_texts, layouts

TEXTS = hard_texts.texts()
pytestmark = pytest.mark.filterwarnings("ignore::Warning")


def different(folder):
    """Texts of which ours and the reference's ids differ, with both."""
    transformers = pytest.importorskip("transformers", reason="install the `parity` extra")
    ours = tokens.from_directory(folder)
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    expected = reference(TEXTS, return_attention_mask=False)["input_ids"]
    first = [] if ours.bos_id is None else [ours.bos_id]
    got = [[*first, *row] for row in ours.encode_batch(TEXTS)]
    return [rows for rows in zip(TEXTS, got, expected, strict=True) if rows[1] != rows[2]]


def cases():
    return [(family, layout) for family in layouts.FAMILIES for layout in layouts.layouts(9, {})]


@pytest.mark.parametrize(("family", "layout"), cases())
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
    assert not different(tmp_path / "m")[:3]
