"""The main job on fakes: its record, its subsets of stages, its second start, shards, what it refuses."""

import collections
import dataclasses
import json
import math
import re

import numpy as np
import pytest

from jaxprobe import base, checkpoints, datasets, regimes, results
from jaxprobe import probes as probes_room
from jaxprobe.base import Site
from jaxprobe.checkpoints import save_sae
from jaxprobe.experiments import EXPERIMENTS
from jaxprobe.experiments.config import saes_to_train, sites_of
from jaxprobe.experiments.probing import checking
from jaxprobe.methods import probes
from jaxprobe.place import Place
from jaxprobe.runs import gathering, run_file
from jaxprobe.runs.shards import Shard
from jaxprobe.stages import preflight, settling
from jaxprobe.stages import run as stage
from jaxprobe.store import ActivationStore, StoreError
from jaxprobe.workdir import Workdir
from tests import fakes

TRAINED = "jump_relu/blocks.1.resid_post/width_64/l0_6"
mapping = fakes.job


@pytest.fixture
def loads(monkeypatch):
    """Puts the fake model in place of the real one; lists its loadings."""
    return fakes.stand_in(monkeypatch)


@pytest.fixture
def quick(monkeypatch):
    """Numbers in place of fits; lists the calls."""
    made = []

    def scores(*args, **kwargs):
        made.append(args[0])
        return fakes.scores(*args, **kwargs)

    monkeypatch.setattr(probes.grid, "fit_grid", scores)
    return made


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("csv")
    return [fakes.write_csv(folder, fakes.dataset(name, 300, gap=0.5)) for name in ("a", "b")]


def config_of(content):
    return stage.RunConfig.from_mapping(content)


def files(folder):
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != "run.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def rows_of(folder):
    return results.read_rows(Place.parse(folder) / "results.parquet")


def test_the_whole_job_one_stage_at_a_time_and_again(loads, quick, paths, tmp_path):
    config = config_of(mapping(paths))
    for alone in stage.STAGES:
        text = stage.run(config, tmp_path / "alone", (alone,))
    assert loads == [("fake", "float32")]
    assert "blocks.1.resid_post" in text
    whole = stage.run(config, tmp_path / "whole")
    assert whole.splitlines()[-1] == text.splitlines()[-1]
    rows, alone = rows_of(tmp_path / "whole"), rows_of(tmp_path / "alone")
    assert repr(rows) == repr(alone)  # NaN is not equal to itself
    assert {row.features for row in rows} == {"activations", TRAINED, "random_sae"}
    assert {row.seed for row in rows} == {7}
    # One after the other or at once, the same objects, under the same names.
    first, second = (files(tmp_path / name) for name in ("alone", "whole"))
    same = [
        name for name in first if name.split("/")[0] in ("results", "latents", "saes", "records")
    ]
    assert len(same) > 18
    assert {name: first[name] for name in same} == {name: second.get(name) for name in same}
    # A second start: no model, no fit, no new byte.
    before, fits = files(tmp_path / "whole"), len(quick)
    record = (tmp_path / "whole" / "run.json").read_bytes()
    assert len(loads) == 2
    assert stage.run(config, tmp_path / "whole") == whole
    assert len(loads) == 2 and len(quick) == fits
    assert files(tmp_path / "whole") == before
    assert (tmp_path / "whole" / "run.json").read_bytes() == record


def test_the_record_tells_what_made_the_results(loads, quick, paths, tmp_path):
    config = config_of(mapping(paths))
    stage.run(config, tmp_path)
    found = gathering.gather(Workdir.parse(tmp_path))
    (record,) = found.records.values()
    assert record["config"]["train_sae"]["d_sae"] == 64
    assert record["config"]["datasets"] == list(paths)
    assert record["seeds"] == {"splits": 7, "train_sae": 0}
    assert record["config"]["fit"]["solver"] == "converged"
    assert record["versions"]["numpy"] == np.__version__
    assert "jaxprobe" in record["versions"]
    assert re.fullmatch(r"([0-9a-f]{12}\+?)?", record["commit"])
    assert "cpu" in record["device"] or "gpu" in record["device"]
    assert "cores" in record["processor"]
    assert record["fingerprints"]["activations"]["weights"] == "fake weights"
    assert len(record["fingerprints"][TRAINED]) == 64
    assert 0 < record["sae_quality"][TRAINED]["all_tokens"]["l0"] < 64
    assert found.facts["leaks"]["a"]["rows"] == 300
    # Every row's record is known; run.json holds the last one and the times.
    assert {row.fingerprint for row in found.rows} == {*found.record_of}
    last = json.loads((tmp_path / "run.json").read_text())
    assert last["command"] and set(last["times"]) <= {*stage.STAGES}
    assert {key: last[key] for key in record} == record


def test_times_of_stages_that_worked_add_up(loads, quick, paths, tmp_path, monkeypatch):
    monkeypatch.setattr(run_file, "_NO_WORK", 0.0)
    config = config_of(mapping(paths))
    stage.run(config, tmp_path)
    first = json.loads((tmp_path / "run.json").read_text())["times"]
    assert set(first) == set(stage.STAGES)
    assert all(seconds >= 0 for seconds in first.values())
    stage.run(config, tmp_path)
    second = json.loads((tmp_path / "run.json").read_text())["times"]
    assert all(second[name] >= first[name] for name in first)


def test_results_that_are_missing_or_damaged_are_no_page(loads, quick, paths, tmp_path):
    config = config_of(mapping(paths))
    stage.run(config, tmp_path)
    lost = sorted((tmp_path / "results").iterdir())[3]
    content = lost.read_bytes()
    lost.unlink()
    with pytest.raises(results.TableError, match=rf"1 of 12 jobs have no results .* {lost.name}"):
        stage.run(config, tmp_path, ("report",))
    lost.write_bytes(content[:-3] + b"???")
    with pytest.raises(results.TableError, match=rf"{lost.name} is damaged"):
        stage.run(config, tmp_path, ("report",))
    # Deleted as the message says, it is made again, to the same bytes.
    lost.unlink()
    before = len(quick)
    stage.run(config, tmp_path)
    assert len(quick) == before + 1
    assert lost.read_bytes() == content


def test_a_stage_without_what_it_reads_says_which_stage_makes_it(loads, quick, paths, tmp_path):
    config = config_of(mapping(paths))
    for name in ("train_sae", "encode", "fit"):
        with pytest.raises(StoreError, match="run the extract stage"):
            stage.run(config, tmp_path, (name,))
    with pytest.raises(results.TableError, match="run the fit stage first"):
        stage.run(config, tmp_path, ["report"])
    stage.run(config, tmp_path, ("extract",))
    with pytest.raises(FileNotFoundError, match="run the train_sae stage first"):
        stage.run(config, tmp_path, ("encode",))
    stage.run(config, tmp_path, ("train_sae",))
    with pytest.raises(FileNotFoundError, match="run the encode stage first"):
        stage.run(config, tmp_path, ("fit",))
    with pytest.raises(ValueError, match="unknown stage 'repot'; known: report"):
        stage.run(config, tmp_path, ("repot",))


def test_a_work_directory_of_an_earlier_version_is_refused_untouched(loads, paths, tmp_path):
    results.write(Place.parse(tmp_path) / "results.parquet", [])
    before = files(tmp_path)
    for stages in (stage.STAGES, ("report",)):
        with pytest.raises(results.TableError, match=r"of an earlier version.*use another work"):
            stage.run(config_of(mapping(paths)), tmp_path, stages)
    assert files(tmp_path) == before and not loads


def test_an_sae_from_a_file_needs_no_training(loads, quick, paths, tmp_path):
    config = config_of(mapping(paths))
    stage.run(config, tmp_path / "first", ("extract", "train_sae"))
    (trained,) = (tmp_path / "first" / "saes").iterdir()
    given = config_of(mapping(paths, train_sae=None, saes=(str(trained),)))
    assert not saes_to_train(given.job)
    stage.run(given, tmp_path / "second")
    rows = rows_of(tmp_path / "second")
    assert {row.features for row in rows} == {"activations", TRAINED, "random_sae"}
    # Nothing is trained, and no token is stored for it.
    (drawn,) = (tmp_path / "second" / "saes").iterdir()
    assert drawn.name.startswith("random-")
    taps = ActivationStore.open(tmp_path / "second" / "activations").taps
    assert [pooling for _, pooling in taps] == ["last"]


SHIFT = {
    "encode": {
        **{"regimes": ("standard", "covariate_shift"), "protocols": ("paper",)},
        **{"max_latents": 4, "random_latents": 4},
    },
    "fit": {"num_latents": (4,), "regime_num_latents": (4,), "controls": False},
}


def shifting(folder, seed=1):
    """A source of two datasets, of which `b` has a shifted test set; the source and that set."""
    sets = [fakes.dataset(name, 220, gap=0.5) for name in ("a", "b")]
    shifted = fakes.dataset("b", 60, seed=seed, gap=0.5)
    return fakes.write_source(folder / "source", sets, [shifted]), shifted


def test_covariate_shift_goes_through_all_stages(loads, quick, tmp_path):
    source, _ = shifting(tmp_path)
    stage.run(config_of(mapping((), source=source, **SHIFT)), tmp_path / "run")
    rows = rows_of(tmp_path / "run")
    probes = [row for row in rows if row.method == "logistic"]
    counts = collections.Counter((row.dataset, row.regime) for row in probes)
    assert counts == {("a", "standard"): 1, ("b", "standard"): 1, ("b", "covariate_shift"): 1}
    assert len(rows) == 2 * len(probes)  # the baseline and the SAE
    moved = [row for row in rows if row.regime == "covariate_shift"]
    assert len(moved) == 2
    assert {(row.num_train, row.num_test) for row in moved} == {(220, 60)}
    assert {row.test_set for row in moved} == {"shifted"}
    # A user's file of that name has no shifted set.
    own = fakes.write_csv(tmp_path, fakes.dataset("b", 220, gap=0.5))
    stage.run(config_of(mapping((own,), source=source, **SHIFT)), tmp_path / "own")
    assert {row.regime for row in rows_of(tmp_path / "own")} == {"standard"}


def test_a_shifted_sets_scores_are_those_of_a_fit_by_hand(loads, tmp_path):
    source, shifted = shifting(tmp_path)
    encode = {"regimes": ("covariate_shift",), "protocols": ("paper",)}
    only = {"train_sae": None, "encode": encode, "fit": {"controls": False}}
    stage.run(config_of(mapping((), source=source, **only)), tmp_path / "run")
    (row,) = rows_of(tmp_path / "run")
    store = ActivationStore.open(tmp_path / "run" / "activations")
    data = datasets.load("b", source)
    (split,) = regimes.splits(data, "covariate_shift", seed=7, shifted=shifted)
    site = Site.parse("blocks.1.resid_post")
    x_train = store.read(site, [data.texts[at] for at in split.train_N])
    score = probes_room.fit_probe(
        "logistic", x_train, split.y_train_N, store.read(site, shifted.texts), shifted.y_N, seed=7
    )
    assert row.test_auroc == pytest.approx(score.test_auroc, abs=1e-6)
    assert row.valid_auroc == pytest.approx(score.valid_auroc, abs=1e-6)


def test_another_shifted_set_makes_its_own_datasets_results_anew(loads, quick, tmp_path):
    only = {**SHIFT, "train_sae": None}
    for seed, calls in ((1, 3), (2, 2)):  # the second time the dataset that has such a set, alone
        source, _ = shifting(tmp_path, seed)
        quick.clear()
        stage.run(config_of(mapping((), source=source, **only)), tmp_path / "run")
        assert len(quick) == calls
        assert len(rows_of(tmp_path / "run")) == 3


def test_shards_make_the_objects_of_the_whole_job(loads, quick, tmp_path):
    sets = [fakes.dataset(name, 220, gap=0.5) for name in ("a", "b", "c")]
    source = fakes.write_source(tmp_path / "source", sets)
    extract = {"batch_tokens": 512, "token_datasets": ("a", "c")}
    config = config_of(mapping((), source=source, extract=extract))
    whole, root = tmp_path / "whole", tmp_path / "parts"
    text = stage.run(config, whole)
    shards = [dataclasses.replace(config, shard=Shard(index=index, count=2)) for index in range(2)]
    with pytest.raises(ValueError, match="leave --shard out"):
        stage.run(shards[0], root, ("train_sae", "fit"))
    with pytest.raises((FileNotFoundError, StoreError), match=r"run the extract stage"):
        stage.run(shards[0], root, ("encode",))
    stage.run(config, root, ("extract", "train_sae"))
    assert "Shard 1/2 is done" in stage.run(shards[1], root, ("extract", "encode", "fit"))
    assert not (root / "shard-1-of-2" / "activations").exists()
    with pytest.raises(results.TableError, match="there are no results of this config"):
        stage.run(config, root, ("report",))
    stage.run(shards[0], root, ("encode", "fit"))
    fits = len(quick)
    merged = stage.run(config, root)
    assert len(quick) == fits  # all is there
    assert merged.splitlines()[-1] == text.splitlines()[-1]
    assert repr(rows_of(whole)) == repr(rows_of(root))
    kept = [name for name in files(whole) if name.startswith(("results/", "latents/"))]
    assert len(kept) > 20
    assert {n: files(whole)[n] for n in kept} == {n: files(root).get(n) for n in kept}


def test_a_shard_without_the_jobs_activations_extracts_its_own(loads, quick, tmp_path):
    """Another machine: the trained SAE was copied there, the activations were not."""
    sets = [fakes.dataset(name, 220, gap=0.5) for name in ("a", "b")]
    source = fakes.write_source(tmp_path / "source", sets)
    sae = fakes.loaded_sae(Site.parse("blocks.1.resid_post"))
    where = save_sae(tmp_path / "sae", sae, {"id": "sae", "site": str(sae.site)})
    config = config_of(mapping((), source=source, train_sae=None, saes=(str(where),)))
    alone, whole = tmp_path / "alone", tmp_path / "whole"
    stage.run(config, whole)
    for index in range(2):
        shard = Shard(index=index, count=2)
        stage.run(dataclasses.replace(config, shard=shard), alone, ("extract", "encode", "fit"))
        assert (alone / f"shard-{index}-of-2" / "activations").exists()
    assert not (alone / "activations").exists()
    stage.run(config, alone, ("report",))
    assert repr(rows_of(alone)) == repr(rows_of(whole))


def test_two_names_of_one_tensor_are_one_site(loads, paths, tmp_path, monkeypatch):
    sae = fakes.loaded_sae(Site.parse("blocks.1.mlp_module_out"))
    where = save_sae(tmp_path / "sae", sae, {"id": "sae", "site": str(sae.site)})
    config = config_of(mapping(paths[:1], site="model.layers.1.mlp.output", saes=(str(where),)))
    one = Site.parse("blocks.1.mlp_out")
    stage.run(config, tmp_path / "run", ("extract",))
    store = ActivationStore.open(tmp_path / "run" / "activations")
    assert set(store.taps) == {(one, "last"), (one, "tokens")}
    job = settling.with_stored_sites(config.job)
    assert {loaded.site for loaded in settling.load_saes(job)} == {one}
    assert {*sites_of(job), *(trained.site for trained in saes_to_train(job))} == {one}
    # Where a norm stands between the two, they are two sites.
    fakes.stand_in(monkeypatch, fakes.FakeModel(post_norms=True))
    assert sites_of(settling.with_stored_sites(config.job)) == (sae.site,)
    assert settling.load_saes(config.job)[0].site == sae.site


def test_a_damaged_record_of_the_last_run_is_written_anew(loads, quick, paths, tmp_path):
    (tmp_path / "run.json").write_text('{"times": ')
    stage.run(config_of(mapping(paths, train_sae=None)), tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["config"]["model"] == "fake"


def test_absent_sections_have_their_defaults(paths):
    config = config_of(mapping(paths, encode={"protocols": ["dedup"]}, fit=None, train_sae=None))
    assert config.job.encode.protocols == ("dedup",)  # lists become tuples
    assert config.job.fit == type(config.job.fit)()
    assert not config.job.train_sae.train


SMALL = {
    "encode": {"max_latents": 80, "random_latents": 8},
    "train_sae": {"d_sae": 64, "target_l0": 6.0},
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trian_sae": {}}, "unknown key of config 'trian_sae'; known: train_sae"),
        ({"train_sae": {"d_sea": 3}}, "unknown key of config.train_sae 'd_sea'; known: d_sae"),
        ({"fit": {"num_latent": 3}}, "unknown key of config.fit 'num_latent'; known: num_latents"),
        ({"site": "blocks.one"}, "a site is `embed` or"),
        ({"encode": {"regimes": ("standart",)}}, "unknown regime 'standart'; known: standard"),
        (
            {"encode": {"regimes": ("covariate",)}},
            "unknown regime 'covariate'; known: covariate_shift",
        ),
        ({"encode": {"protocols": ("papers",)}}, "unknown protocol 'papers'; known: paper"),
        ({"encode": {"max_latents": 3}}, "must lie between 1 and encode.max_latents = 3, got 4"),
        (
            {"train_sae": {"d_sae": -5}},
            r"config.train_sae.d_sae` must lie between 1 and .*, got -5",
        ),
        ({"train_sae": {"d_sae": 3}}, r"`target_l0` must lie between 0 and d_sae = 3, got 62.0"),
        ({"train_sae": {"d_sae": 64.0}}, r"train_sae.d_sae` must be a whole number, got 64.0"),
        (
            {"train_sae": {"learning_rate": math.nan}},
            r"learning_rate` must be a finite number, got nan",
        ),
        ({"train_sae": {"max_gib": math.inf}}, r"max_gib` must be a finite number, got inf"),
        ({"train_sae": {"num_tokens": True}}, r"num_tokens` must be a whole number, got True"),
        ({"train_sae": {"d_sae": 10**400}}, r"d_sae` must lie between"),
        ({"train_sae": {"bandwidth": 10**400}}, r"bandwidth` must be a finite number"),
        (
            {"train_sae": {"sites": ("blocks.2.resid_post",)}},
            r"`config.train_sae.sites` must be among",
        ),
        ({"train_sae": {"d_sae": 128, "architecture": 3}}, r"architecture` must be a text, got 3"),
        (
            {"fit": {"num_latents": (65,), "regime_num_latents": (4,)}, **SMALL},
            r"fit.num_latents` asks for 65 latents, but SAE jump_relu/.* has 64",
        ),
        ({"fit": {"num_latents": 4}}, r"must be several values in brackets, got 4; write \(4,\)"),
        ({"fit": {"num_latents": (4, 4)}}, r"fit.num_latents` names 4 twice"),
        ({"fit": {"num_latents": (0,)}}, r"fit.num_latents` must lie between 1"),
        ({"fit": {"controls": 1}}, r"fit.controls` must be True or False, got 1"),
        (
            {"fit": {"baselines": "mlp"}},
            r"baselines` must be several values in brackets, got 'mlp'",
        ),
        ({"fit": {"baselines": ("mpl",)}}, "unknown method 'mpl'; known: mlp"),
        ({"fit": {"workers": -1}}, r"fit.workers` must lie between 1"),
        ({"extract": {"batch_tokens": 0}}, r"extract.batch_tokens` must lie between 1"),
        ({"extract": {"max_length": 2048}}, "must not exceed the largest of `extract.buckets`"),
        ({"extract": {"buckets": (8, -8)}}, r"extract.buckets` must lie between 1"),
        ({"extract": {"mesh": (1,)}}, r"extract.mesh` must hold 2 values, got \(1,\)"),
        ({"extract": {"token_dtype": "float16"}}, "unknown extract.token_dtype 'float16'"),
        (
            {"extract": {"sites": ("embed",)}},
            r"unknown key of config.extract 'sites'; known: .*; 'sites' is a key of config and of",
        ),
        ({"extract": 3}, r"`config.extract` must hold keys and values, got 3"),
        ({"encode": {"ranking": "row"}}, "unknown ranking 'row'; known: raw"),
        ({"encode": {"dedup_by": "nfc"}}, "unknown dedup_by 'nfc'; known: exact, normalised"),
        ({"encode": {"protocols": ()}}, "protocols` must name at least one of paper, dedup"),
        ({"seed": -1}, r"seed` must lie between 0 and 4,294,967,295, got -1"),
        ({"seed": 2**32}, r"seed` must lie between"),
        ({"model": ""}, "`model` must name a file"),
        ({"saes": "runs/x"}, r"saes` must be several values in brackets"),
        ({"report": {"regimes": ("standart",)}}, "unknown regime of config.report.regimes"),
        ({"report": {"baselines": ("mpl",)}}, "unknown method of config.report.baselines 'mpl'"),
        (
            {"report": {"datasets": ("c",)}},
            "unknown dataset of config.report.datasets 'c'; known: a",
        ),
        ({"encode": {"random_latents": 3, "max_latents": 8}}, "more than encode.random_latents"),
        ({"fit": {"solver": "fast"}}, "unknown solver 'fast'; known: converged"),
    ],
)
def test_misspelt_keys_and_choices_name_the_known_ones(paths, changes, message):
    with pytest.raises(ValueError, match=message):
        stage.RunConfig.from_mapping(mapping(paths, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"site": "blocks.99.resid_post"},
            r"`blocks.99.resid_post` is not in fake: its blocks are 0 to 3",
        ),
        (
            {"saes": ("{sae}",)},
            r"differ in their ids, got 'jump_relu/.*' from the train_sae stage and from .*sae;",
        ),
        (
            {"saes": ("random_sae={sae}",)},
            r"must be a short printable name of an SAE, got 'random_sae': it is what results call",
        ),
        (
            {"saes": ("activations={sae}",)},
            r"must be a short printable name of an SAE, got 'activations'",
        ),
        (
            {"saes": ("b={sae}", "b={sae}/")},
            r"differ in their ids, got 'b' from .*sae and from .*sae/;",
        ),
        (
            {"saes": ("{other}",)},
            r"other reads blocks.9.resid_post, which is not in fake: its blocks",
        ),
        ({"saes": ("{few}",)}, r"`fit.num_latents` asks for 4 latents, but SAE few has 3"),
        ({"saes": ("{wide}",)}, r"reads activations 33 wide, the model's at .* are 32"),
        (
            {"datasets": ("{a}", "{again}")},
            r"datasets must differ in their names, got 'a' from .*my_name",
        ),
        ({"datasets": ("{a}", "b"), "source": "{published}"}, None),
        (
            {"datasets": ("{a}", "b", "{again}"), "source": "{published}"},
            "must differ in their names",
        ),
        (
            {"datasets": ("b={a}", "c"), "source": "{published}"},
            "has the name of a published one, 'b'",
        ),
        (
            {"datasets": ("{tiny}",)},
            r"no dataset has a split in this job \(.*tiny.csv with 10 rows\)",
        ),
    ],
)
def test_names_sites_and_sizes_are_checked_before_extraction(
    loads, paths, tmp_path, changes, message
):
    places = {name: tmp_path / name for name in ("sae", "other", "few", "wide", "more", "source")}
    for name, (block, d_model, d_sae) in {
        **{"sae": (1, 32, 64), "other": (9, 32, 64), "few": (1, 32, 3), "wide": (1, 33, 64)},
    }.items():
        sae = fakes.loaded_sae(base.Site(block=block, stream="resid_post"), d_sae)
        if d_model != 32:
            weights = np.ones((d_model, d_sae), np.float32)
            sae = dataclasses.replace(
                sae.sae, W_enc_DS=weights, W_dec_SD=weights.T, b_dec_D=np.zeros(d_model, np.float32)
            )
        its = TRAINED if name == "sae" else name
        checkpoints.save_sae(places[name], sae, {"id": its, "site": f"blocks.{block}.resid_post"})
    places["more"].mkdir()
    again = fakes.write_csv(places["more"], fakes.dataset("a", 300, seed=1))
    tiny = fakes.write_csv(tmp_path, fakes.dataset("tiny", 10))
    published = fakes.write_source(
        places["source"], [fakes.dataset(name, 220) for name in ("b", "c")]
    )
    named = {**places, "a": paths[0], "again": again, "tiny": tiny, "published": published}
    changes = {
        key: value.format(**named)
        if isinstance(value, str)
        else tuple(v.format(**named) for v in value)
        for key, value in changes.items()
    }
    job = stage.RunConfig.from_mapping(mapping(paths, **changes))
    if message is None:
        preflight.check_inputs(EXPERIMENTS["probing"], job.job, (), fakes.FakeModel())
        return
    with pytest.raises(ValueError, match=message):
        stage.run(job, tmp_path / "run")
    assert loads == []
    assert not (tmp_path / "run").exists()


def test_a_job_runs_without_an_extra_that_is_not_installed(paths, monkeypatch, caplog):
    def config(*baselines):
        fit = {"baselines": baselines, "latent_methods": ("knn", "xgboost"), "controls": False}
        few = {"num_latents": (2,), "regime_num_latents": (2,)}
        return config_of(mapping(paths, fit=fit | few)).job

    asked = config("logistic", "xgboost", "pca")
    monkeypatch.setattr(checking.importlib.util, "find_spec", lambda name: name)
    assert checking.with_installed(asked) == asked
    monkeypatch.setattr(checking.importlib.util, "find_spec", lambda name: None)
    with caplog.at_level("WARNING"):
        left = checking.with_installed(asked).fit
    assert left.baselines == ("logistic", "pca") and left.latent_methods == ("knn",)
    (record,) = caplog.records
    assert "xgboost is not installed, so the job runs without it" in record.getMessage()
    assert "pip install 'jaxprobe[xgboost]'" in record.getMessage()
    with pytest.raises(ValueError, match=r"`fit.baselines` names only xgboost, which is not"):
        checking.with_installed(config("xgboost"))


def test_an_sae_has_the_id_that_the_config_gives_it(tmp_path):
    site = Site.parse("blocks.1.resid_post")
    checkpoints.save_sae(
        tmp_path / "s", fakes.loaded_sae(site), {"id": "its own", "site": str(site)}
    )
    assert checkpoints.load_labelled(f"mine={tmp_path / 's'}").id == "mine"
    assert checkpoints.load_labelled(str(tmp_path / "s")).id == "its own"
