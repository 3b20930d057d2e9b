"""`jp.extract`: arguments that cannot be meant, sites by their text, BOS, and activations that are not finite."""

import dataclasses
import logging

import numpy as np
import pytest

from jaxprobe.base import Site
from jaxprobe.extraction import in_memory
from tests import fakes

SITE = Site(block=1, stream="resid_post")
TEXTS = ["one two three", "four"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unopened(fakes.FakeTokenizer):
    """Pythia's kind: a BOS that its files put nowhere."""

    bos_id: int | None = None
    begin_id: int | None = 3


def extract(texts=TEXTS, sites=(SITE,), tokenizer=None, forward=fakes.make_forward, **options):
    model = fakes.FakeModel(tokenizer=tokenizer or fakes.FakeTokenizer())
    return in_memory.extract_texts(model, texts, sites, make_forward=forward, **options)


def test_one_string_is_refused_and_one_site_is_taken():
    with pytest.raises(TypeError, match="`texts` must be a sequence of strings, got one string"):
        extract("one text")
    with pytest.raises(ValueError, match="`sites` must name at least one site"):
        extract(sites=())
    whole = extract(iter(TEXTS))[SITE]
    for site in (SITE, "blocks.1.resid_post"):
        np.testing.assert_array_equal(extract(sites=site)[SITE], whole)
    assert extract([])[SITE].shape == (0, 32)


def test_a_site_is_found_by_its_text():
    found = extract(sites=["blocks.1.hook_resid_post"])
    assert list(found) == [SITE]
    for key in (SITE, "blocks.1.resid_post", "blocks.1.hook_resid_post"):
        assert found[key] is found[SITE]
        assert found.get(key) is found[SITE]
        assert key in found
    assert "blocks.2.resid_post" not in found
    assert "no site" not in found
    assert found.get("blocks.2.resid_post") is None
    with pytest.raises(KeyError, match=r"activations at blocks\.1\.resid_post, got blocks\.2"):
        found["blocks.2.resid_post"]
    with pytest.raises(ValueError, match="a site is"):
        found["resid"]


def test_bos_is_what_the_setting_says(caplog):
    def by_hand(*first):
        ids = [[*first, *fakes.FakeTokenizer().encode(text)] for text in TEXTS]
        return np.stack([fakes.activations(np.array(row), SITE)[-1] for row in ids])

    for tokenizer, on in ((fakes.FakeTokenizer(), 1), (Unopened(), 3)):
        auto = [] if tokenizer.bos_id is None else [1]
        for bos, first in (("auto", auto), ("on", [on]), ("off", [])):
            got = extract(tokenizer=tokenizer, bos=bos)[SITE]
            np.testing.assert_array_equal(got, by_hand(*first))


def test_a_family_without_bos_in_its_files_is_told_once(caplog):
    for options in ({"bos": "on"}, {"bos": "off"}):
        extract(tokenizer=Unopened(), **options)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        in_memory._tell_unopened(fakes.FakeTokenizer(), "auto")
        assert not caplog.records
        extract(tokenizer=Unopened())
        extract(tokenizer=Unopened())
    told = [record.getMessage() for record in caplog.records]
    assert len(told) <= 1  # none where another test came first
    assert all("trained with token 3 in front" in text for text in told)


def test_activations_that_are_not_finite_are_told_with_their_text():
    def broken(model, sites, poolings):
        inner = fakes.make_forward(model, sites, poolings)

        def forward(tokens_BT, length_B):
            values = inner(tokens_BT, length_B)
            values[SITE, "last"][np.asarray(length_B) == 4] = np.nan
            return values

        return forward

    with pytest.raises(ValueError, match=r"blocks\.1\.resid_post of the prompt 'one two three'"):
        extract(forward=broken)
