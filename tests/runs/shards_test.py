"""Shards: how they are named and split, and where they read and write; `run_test` runs some."""

import pytest

from jaxprobe.base import Site
from jaxprobe.experiments import config
from jaxprobe.extraction.request import Request
from jaxprobe.jobs import Need
from jaxprobe.runs import shards
from jaxprobe.runs.shards import Shard
from jaxprobe.stages import extract
from jaxprobe.workdir import Workdir
from tests import fakes

NAMES = tuple("abcdefg")


@pytest.mark.parametrize(
    "text", ["4", "1/0", "0/0", "-1/4", "4/4", "1/4/2", "a/b", "", "1 / 4", "\u0661/4"]
)
def test_a_bad_shard_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"e\.g\. 0/4 for the first of four") as caught:
        Shard.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_dataset_is_in_one_shard(count):
    parts = [Shard.parse(f"{index}/{count}").part(NAMES) for index in range(count)]
    assert sorted(name for part in parts for name in part) == sorted(NAMES)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_more_shards_than_datasets_are_refused():
    with pytest.raises(ValueError, match="7 datasets cannot be split into 8 shards"):
        Shard.parse("0/8").part(NAMES)


def test_a_shard_says_what_it_may_and_what_is_next():
    shard = Shard.parse("1/3")
    shards.check_stages({"extract", "encode", "fit"})
    with pytest.raises(
        ValueError, match="report and train_sae works on the whole job: leave --shard"
    ):
        shards.check_stages({"fit", "train_sae", "report"})
    assert "Shard 1/3 is done. When all 3 are" in shards.told(shard)
    assert shards.told(None) == ""


def test_a_shard_extracts_into_its_own_store_and_reads_the_jobs_where_it_has_none(tmp_path):
    work, shard = Workdir.parse(tmp_path), Shard.parse("0/2")
    assert shards.own_activations(None, work) == shards.activations(None, work) == work.activations
    own = shards.own_activations(shard, work)
    assert str(own) == str(tmp_path / "shard-0-of-2" / "activations")
    assert shards.activations(shard, work) == work.activations
    need = Need(texts=("one two", "three"), taps=((Site.parse("blocks.1.resid_post"), "last"),))
    common = config.Common(model="fake", dtype="float32")
    model = {"model": fakes.FakeModel(), "make_forward": fakes.make_forward}
    extract.run(common, Request.of([need]), own, **model)
    assert shards.activations(shard, work) == own
