"""The estimate before a run: its counts are what the run then does, its rates those of the last run."""

import dataclasses
import functools
import json
import os

import pytest

from jaxprobe import datasets, models, table
from jaxprobe.stages import estimate as stage
from jaxprobe.stages import run
from tests import fakes


@pytest.fixture
def job(monkeypatch, tmp_path):
    """A job on two fake datasets of which one has a shifted set, and an empty cache for rates."""
    monkeypatch.setenv("JAXPROBE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(models, "load_model", lambda source, dtype: fakes.FakeModel())
    monkeypatch.setattr(models, "identify", lambda source, dtype: fakes.FakeModel())
    extract = functools.partial(
        run.extraction.extract,
        identify=lambda source, dtype: fakes.FakeModel(),
        make_forward=fakes.make_forward,
    )
    monkeypatch.setattr(run.extraction, "extract", extract)
    sets = [fakes.dataset(name, 220, gap=0.5) for name in ("a", "b")]
    source = fakes.write_source(tmp_path / "source", sets, [fakes.dataset("b", 60, seed=1)])
    return run.RunConfig.from_mapping(
        {
            **{"model": "fake", "dtype": "float32", "site": "blocks.1.resid_post"},
            **{"source": source, "extract": {"batch_tokens": 512}},
            "train_sae": {"d_sae": 64, "target_l0": 6.0, "num_tokens": 2048, "batch_size": 128},
            "encode": {
                **{"regimes": ("standard", "covariate_shift"), "protocols": ("paper",)},
                **{"max_latents": 4, "random_latents": 4},
            },
            "fit": {"num_latents": (2, 4), "regime_num_latents": (4,)},
        }
    )


def test_the_estimate_counts_what_the_run_then_does(job, tmp_path):
    before = stage.plan(job, tmp_path)
    source = job.encode.source
    texts = {text for name in "ab" for text in datasets.load(name, source).texts}
    texts |= {*datasets.load_shifted("b", source).texts}
    shown = before.describe()
    assert f"of {len(texts)} of {len(texts)} distinct prompts" in shown
    assert "on 3 splits of 2 datasets" in shown
    assert "a guess" in shown and "earlier run" not in shown
    run.run(job, tmp_path, ("extract", "train_sae", "encode", "fit"))
    rows = table.read_rows(tmp_path / "results.parquet")
    assert before.parts["fit"].count == len(rows)
    after = stage.plan(job, tmp_path)
    assert {name: part.count for name, part in after.parts.items()} == dict.fromkeys(
        ("extract", "train_sae", "encode", "fit"), 0
    )
    assert after.describe().count("as many are there as it asks for") == 4
    # Rows of another seed are not this job's.
    other = dataclasses.replace(job, encode=dataclasses.replace(job.encode, seed=8))
    assert stage.plan(other, tmp_path).parts["fit"].count == len(rows)
    assert "another way" not in stage.plan(other, tmp_path).describe()
    # Nor does "nothing left" stand before a refusal.
    wrong = dataclasses.replace(job, fit=dataclasses.replace(job.fit, dtype="float32"))
    told = stage.plan(wrong, tmp_path)
    assert told.parts["fit"].count == len(rows)
    assert "results of 3 of them that were made in another way, which the fit" in told.describe()
    with pytest.raises(table.TableError, match="use another work directory"):
        run.run(wrong, tmp_path, ("fit",))
    more = dataclasses.replace(job, fit=dataclasses.replace(job.fit, num_latents=(1, 2, 4)))
    assert stage.plan(more, tmp_path).parts["fit"].count == 2


def test_a_finished_run_teaches_the_next_estimate(job, tmp_path):
    plan = stage.plan(job, tmp_path)
    work = plan.parts["extract"].work
    (tmp_path / "run.json").write_text(json.dumps({"times": {"extract": 100.0, "fit": 0.5}}))
    plan.learn()
    again = stage.plan(job, tmp_path / "elsewhere")
    assert again.rates["extract"] == pytest.approx(work / 100)
    assert "100 s" not in again.describe()  # two minutes are minutes
    assert "2 min, as in an earlier run" in again.describe()
    assert again.learned == {"extract"}  # half a second of fits says nothing
    (tmp_path / "cache" / stage.RATES).write_text("{")
    assert stage.plan(job, tmp_path / "elsewhere").learned == frozenset()


BAD_FILES = (
    *("[" * 200_000, "[]", "[1]", "3", "null", '{"times": [1]}', '{"times": {"extract": "x"}}'),
    *('{"times": {"extract": null, "fit": -1}}', '{"DEVICE": 3}', '{"DEVICE": ["extract"]}'),
    *('{"DEVICE": {"extract": 0, "fit": true}}', '{"DEVICE": {"extract": "1", "fit": []}}'),
    *('{"DEVICE": {"extract": -2.5, "fit": NaN}}', '{"DEVICE": {"fit": 1' + "0" * 400 + "}}"),
)


def test_files_that_only_inform_count_as_absent_where_they_are_bad(job, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "_product_gflops", lambda: 10.0)
    wanted = stage.plan(job, tmp_path)
    rates, record = tmp_path / "cache" / stage.RATES, tmp_path / "run.json"
    rates.parent.mkdir(exist_ok=True)
    for content in BAD_FILES:
        for path in (rates, record):
            path.write_text(content.replace("DEVICE", run.device()))
        found = stage.plan(job, tmp_path)
        assert (found.rates, found.learned, found.before) == (wanted.rates, frozenset(), {})
        found.describe()
        found.learn()
    for path in (rates, record):
        path.unlink()
        os.mkfifo(path)
    assert stage.plan(job, tmp_path).learned == frozenset()
    # One bad entry does not take the good ones with it.
    rates.unlink()
    rates.write_text(json.dumps({run.device(): {"extract": None, "fit": 2.0}, "other": 1}))
    assert stage.plan(job, tmp_path).learned == {"fit"}


def test_a_shards_estimate_is_of_its_datasets(job, tmp_path):
    shard = dataclasses.replace(job, shard=run.sharding.Shard.parse("1/2"))
    assert "on 2 splits of 1 datasets" in stage.plan(shard, tmp_path).describe()


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0 s"), (89, "89 s"), (600, "10 min"), (9000, "2.5 h")]
)
def test_durations_are_rounded_as_people_do(seconds, shown):
    assert stage.duration(seconds) == shown
