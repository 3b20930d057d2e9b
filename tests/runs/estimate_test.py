"""The estimate before a run: its counts are what the run then does, its rates those of the last run."""

import dataclasses
import json
import os

import pytest

from jaxprobe import datasets, records, results
from jaxprobe.methods import probes
from jaxprobe.runs import estimate, shards
from jaxprobe.stages import run
from jaxprobe.stages.left import left as left_to_do
from jaxprobe.stages.start import Start
from jaxprobe.workdir import Workdir
from tests import fakes

STAGES = ("extract", "train_sae", "encode", "fit")


@pytest.fixture
def job(monkeypatch, tmp_path):
    """A job on two fake datasets of which one has a shifted set, and an empty cache for rates."""
    monkeypatch.setenv("JAXPROBE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(probes.grid, "fit_grid", fakes.scores)
    monkeypatch.setattr(estimate, "_product_gflops", lambda: 10.0)
    fakes.stand_in(monkeypatch)
    sets = [fakes.dataset(name, 220, gap=0.5) for name in ("a", "b")]
    source = fakes.write_source(tmp_path / "source", sets, [fakes.dataset("b", 60, seed=1)])
    encode = {
        **{"regimes": ("standard", "covariate_shift"), "protocols": ("paper",)},
        **{"max_latents": 4, "random_latents": 4},
    }
    return run.RunConfig.from_mapping(fakes.job((), source=source, encode=encode))


def left(job, folder) -> estimate.Estimate:
    """What the job would say before it starts."""
    start = Start(job.job, job.shard, Workdir.parse(folder))
    start.prepare(run.STAGES if job.shard is None else shards.STAGES)
    return left_to_do(start)


def with_fit(job, **changes):
    fit = dataclasses.replace(job.job.fit, **changes)
    return dataclasses.replace(job, job=dataclasses.replace(job.job, fit=fit))


def test_the_estimate_counts_what_the_run_then_does(job, tmp_path):
    work, told = tmp_path / "run", []
    before = left(job, work)
    assert not work.exists()
    source = job.job.source
    texts = {text for name in "ab" for text in datasets.load(name, source).texts}
    texts |= {*datasets.load_shifted("b", source).texts}
    shown = before.describe()
    assert f"of {len(texts)} of {len(texts)} distinct prompts" in shown
    assert "on 2 datasets" in shown
    assert "a guess, compiling included" in shown and "earlier run" not in shown
    assert "(partly a guess)" in shown
    run.run(job, work, STAGES, tell=told.append)
    assert told == [shown]
    place = Workdir.parse(work).jobs
    rows = [row for name in place.children() for row in results.read_job(place / name).rows]
    assert before.parts["fit"].count == len(rows)
    # Latents of every row, the shifted ones too, of the SAE and its control; a file per dataset and SAE.
    assert before.parts["encode"].count == 2 * 64 * (220 + 280)
    assert "in 4 files" in shown
    after = left(job, work)
    assert {name: part.count for name, part in after.parts.items()} == dict.fromkeys(STAGES, 0)
    assert after.describe() == "Nothing is left to do but the report."
    # What differs is counted, and what is there already is not.
    other = dataclasses.replace(job, job=dataclasses.replace(job.job, seed=8))
    assert left(other, work).parts["fit"].count == len(rows)
    assert left(other, work).parts["extract"].count == 0
    assert left(with_fit(job, dtype="float32"), work).parts["fit"].count == len(rows)
    assert left(with_fit(job, baselines=("logistic", "knn")), work).parts["fit"].count == 3
    # A job of several values of k is made whole.
    more = left(with_fit(job, num_latents=(1, 2, 4)), work)
    assert more.parts["fit"].count == 2 * 3
    assert more.describe().count("nothing: it is done") == 3


def test_a_finished_run_teaches_the_next_estimate(job, tmp_path):
    found = left(job, tmp_path / "run")
    work = found.parts["extract"].work
    found.learn({}, {"extract": 100.0, "fit": 0.5})
    again = left(job, tmp_path / "run")
    assert again.rates["extract"] == pytest.approx(work / 100)
    assert "100 s" not in again.describe()  # two minutes are minutes
    assert "2 min, as in an earlier run" in again.describe()
    assert again.learned == {"extract"}  # half a second of fits says nothing
    # A resumed run is measured by what it did itself.
    found.learn({"extract": 100.0}, {"extract": 150.0})
    assert left(job, tmp_path / "run").rates["extract"] == pytest.approx(work / 50)
    (tmp_path / "cache" / estimate.RATES).write_text("{")
    assert left(job, tmp_path / "run").learned == frozenset()


BAD_FILES = (
    *("[" * 200_000, "[]", "[1]", "3", "null", '{"DEVICE": 3}', '{"DEVICE": ["extract"]}'),
    *('{"DEVICE": {"extract": 0, "fit": true}}', '{"DEVICE": {"extract": "1", "fit": []}}'),
    *('{"DEVICE": {"extract": -2.5, "fit": NaN}}', '{"DEVICE": {"fit": 1' + "0" * 400 + "}}"),
)


def test_a_file_of_rates_that_is_bad_counts_as_absent(job, tmp_path):
    parts = left(job, tmp_path / "run").parts
    wanted = estimate.estimate(parts)
    rates = tmp_path / "cache" / estimate.RATES
    rates.parent.mkdir(exist_ok=True)
    for content in BAD_FILES:
        rates.write_text(content.replace("DEVICE", records.device()))
        found = estimate.estimate(parts)
        assert (found.rates, found.learned) == (wanted.rates, frozenset())
        found.describe()
        found.learn({}, {})
    rates.unlink()
    os.mkfifo(rates)
    assert estimate.estimate(parts).learned == frozenset()
    # One bad entry does not take the good ones with it.
    rates.unlink()
    rates.write_text(json.dumps({records.device(): {"extract": None, "fit": 2.0}, "other": 1}))
    assert estimate.estimate(parts).learned == {"fit"}


def test_a_shards_estimate_is_of_its_datasets(job, tmp_path):
    shard = dataclasses.replace(job, shard=shards.Shard.parse("1/2"))
    assert "on 1 datasets" in left(shard, tmp_path / "run").describe()


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0 s"), (89, "89 s"), (600, "10 min"), (9000, "2.5 h")]
)
def test_durations_are_rounded_as_people_do(seconds, shown):
    assert estimate.duration(seconds) == shown
