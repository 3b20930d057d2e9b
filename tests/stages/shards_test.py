"""Shards: how they are named and split, and what merging refuses."""

import dataclasses
import json

import pytest

from jaxprobe import table
from jaxprobe.stages import shards as stage
from jaxprobe.stages.shards import Shard
from tests import fake_results

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


@pytest.fixture
def finished(tmp_path):
    """Three finished shards of seven datasets with one row a dataset; the rows."""
    (row,) = fake_results.rows()[:1]
    rows = [dataclasses.replace(row, dataset=name) for name in NAMES]
    for index in range(3):
        shard = Shard(index=index, count=3)
        own = shard.part(NAMES)
        part = [row for row in rows if row.dataset in own]
        table.append(shard.folder(tmp_path) / "results.parquet", part)
        assert f"{len(part)} rows" in stage.finish(shard, tmp_path, own)
    return rows


def test_shards_merge_to_the_whole_table_again_and_again(finished, tmp_path):
    for _ in range(2):
        assert stage.merge(tmp_path, NAMES) == 7
        assert repr(table.read_rows(tmp_path / "results.parquet")) == repr(finished)


def test_missing_shards_are_named(finished, tmp_path):
    (tmp_path / "shard-1-of-3" / "shard.json").unlink()
    for path in (tmp_path / "shard-2-of-3").iterdir():
        path.unlink()
    (tmp_path / "shard-2-of-3").rmdir()
    with pytest.raises(ValueError, match=r"2 of 3 shards in .* not done: 1/3, 2/3; run each"):
        stage.merge(tmp_path, NAMES)
    assert not (tmp_path / "results.parquet").exists()


def test_shards_of_two_counts_or_of_another_job_are_refused(finished, tmp_path):
    with pytest.raises(ValueError, match=r"job with other datasets \(.*h"):
        stage.merge(tmp_path, (*NAMES[:-1], "h"))
    (tmp_path / "shard-0-of-2").mkdir()
    with pytest.raises(ValueError, match="holds shards of 2 and of 3"):
        stage.merge(tmp_path, NAMES)


def test_a_shard_that_lost_rows_is_refused(finished, tmp_path):
    path = tmp_path / "shard-1-of-3" / "results.parquet"
    table.write(path, table.read(path).slice(0, 1))
    with pytest.raises(ValueError, match=r"shard 1/3 .* had 2 rows when it was done and has 1"):
        stage.merge(tmp_path, NAMES)
    assert json.loads((tmp_path / "shard-1-of-3" / "shard.json").read_text())["rows"] == 2
