"""The main job on fakes: its config, its record, its subsets of stages, its second start."""

import collections
import dataclasses
import functools
import json
import math
import shutil

import numpy as np
import pytest

from jaxprobe import base, checkpoints, datasets, models, regimes, table
from jaxprobe import probes as probes_room
from jaxprobe.checkpoints import save_sae
from jaxprobe.stages import preflight
from jaxprobe.stages import run as stage
from jaxprobe.store import ActivationStore, StoreError
from tests import fakes

TRAINED = "jump_relu/blocks.1.resid_post/width_64/l0_6"


def mapping(paths, **changes):
    """A config file's content for the fakes."""
    return {
        "model": "fake",
        "dtype": "float32",
        "site": "blocks.1.resid_post",
        "datasets": tuple(paths),
        "seed": 7,
        "extract": {"batch_tokens": 512},
        "train_sae": {"d_sae": 64, "target_l0": 6.0, "num_tokens": 4096, "batch_size": 128},
        "encode": {"protocols": ("paper",), "max_latents": 8, "random_latents": 8},
        "fit": {"num_latents": (2, 4), "regime_num_latents": (4,)},
        **changes,
    }


@dataclasses.dataclass(frozen=True)
class Identity:
    """What `models.identify` tells of the fake."""

    name: str = "fake"
    dtype: str = "float32"
    d_model: int = 32
    widths: dict[str, int] = dataclasses.field(default_factory=lambda: {"attn_z": 48})
    fingerprint: str = "fake weights"
    num_blocks: int = 4


@pytest.fixture
def loads(monkeypatch):
    """Puts the fake model in place of the real one; lists its loadings."""
    loaded = []

    def load_model(source, dtype):
        loaded.append((source, dtype))
        return fakes.FakeModel()

    monkeypatch.setattr(models, "load_model", load_model)
    monkeypatch.setattr(models, "identify", lambda source, dtype: Identity())
    extract = functools.partial(
        stage.extraction.extract,
        identify=lambda source, dtype: Identity(),
        make_forward=fakes.make_forward,
    )
    monkeypatch.setattr(stage.extraction, "extract", extract)
    return loaded


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("csv")
    return [fakes.write_csv(folder, fakes.dataset(name, 300, gap=0.5)) for name in ("a", "b")]


def files(folder):
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != "run.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_the_whole_job_one_stage_at_a_time_and_again(loads, paths, tmp_path):
    config = stage.RunConfig.from_mapping(mapping(paths))
    for alone in stage.STAGES:
        text = stage.run(config, tmp_path / "alone", (alone,))
    assert loads == [("fake", "float32")]
    assert "blocks.1.resid_post" in text
    whole = stage.run(config, tmp_path / "whole")
    assert whole.splitlines()[-1] == text.splitlines()[-1]
    rows = table.read_rows(tmp_path / "whole" / "results.parquet")
    alone = table.read_rows(tmp_path / "alone" / "results.parquet")
    assert [row.key() for row in rows] == [row.key() for row in alone]
    assert repr(rows) == repr(alone)  # NaN is not equal to itself
    assert {row.features for row in rows} == {"activations", TRAINED, "random_sae"}
    assert {row.seed for row in rows} == {7}
    # The record.
    record = json.loads((tmp_path / "alone" / "run.json").read_text())
    assert set(record["times"]) == set(stage.STAGES)
    assert all(seconds >= 0 for seconds in record["times"].values())
    assert record["config"]["train_sae"]["d_sae"] == 64
    assert record["config"]["encode"]["datasets"] == list(paths)
    assert record["seeds"] == {"splits": 7, "train_sae": 0}
    assert record["solver"] == "converged"
    assert record["versions"]["numpy"] == np.__version__
    assert "cpu" in record["device"] or "gpu" in record["device"]
    assert record["fingerprints"]["activations"]["weights"] == "fake weights"
    assert len(record["fingerprints"][TRAINED]) == 64
    assert 0 < record["sae_quality"][TRAINED]["all_tokens"]["l0"] < 64
    assert record["leaks"]["a"]["rows"] == 300
    marks = {row.fingerprint for row in rows if (row.dataset, row.features) == ("a", TRAINED)}
    assert record["results"]["a"][TRAINED] == sorted(marks)
    # A second start: no model, no new bytes, but its time is added.
    before = files(tmp_path / "whole")
    assert len(loads) == 2
    stage.run(config, tmp_path / "whole")
    assert len(loads) == 2
    after = files(tmp_path / "whole")
    assert {name for name in before if before[name] != after[name]} <= {"report/index.html"}
    assert before.keys() == after.keys()
    again = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert set(again["times"]) == set(stage.STAGES)
    # Another run's results in this place are not reported as this one's.
    other = [dataclasses.replace(row, fingerprint="another") for row in rows]
    table.write(tmp_path / "whole" / "results.parquet", table.of_rows(other))
    with pytest.raises(
        table.TableError, match=r"fingerprint another, run\.json beside it tells of"
    ):
        stage.run(config, tmp_path / "whole", ("report",))


def test_a_stage_without_what_it_reads_says_which_stage_makes_it(loads, paths, tmp_path):
    config = stage.RunConfig.from_mapping(mapping(paths))
    for name in ("train_sae", "encode", "fit"):
        with pytest.raises(StoreError, match="run the extract stage"):
            stage.run(config, tmp_path, (name,))
    with pytest.raises(table.TableError, match="run the fit stage first"):
        stage.run(config, tmp_path, ["report"])
    stage.run(config, tmp_path, ("extract",))
    with pytest.raises(FileNotFoundError, match="run the train_sae stage first"):
        stage.run(config, tmp_path, ("encode",))
    stage.run(config, tmp_path, ("train_sae",))
    with pytest.raises(FileNotFoundError, match="run the encode stage first"):
        stage.run(config, tmp_path, ("fit",))
    with pytest.raises(ValueError, match="unknown stage 'repot'; known: report"):
        stage.run(config, tmp_path, ("repot",))


def test_an_sae_from_a_file_needs_no_training(loads, paths, tmp_path):
    config = stage.RunConfig.from_mapping(mapping(paths))
    stage.run(config, tmp_path / "first", ("extract", "train_sae"))
    (trained,) = (tmp_path / "first" / "saes").iterdir()
    given = stage.RunConfig.from_mapping(mapping(paths, train_sae=None, saes=(str(trained),)))
    assert given.train_sae is None
    assert given.extract.token_sites == ()
    stage.run(given, tmp_path / "second", ("extract", "encode", "fit"))
    rows = table.read_rows(tmp_path / "second" / "results.parquet")
    assert {row.features for row in rows} == {"activations", TRAINED, "random_sae"}
    assert not (tmp_path / "second" / "saes").exists()


def test_covariate_shift_goes_through_all_stages(loads, tmp_path):
    sets = [fakes.dataset(name, 220, gap=0.5) for name in ("a", "b")]
    shifted = fakes.dataset("b", 60, seed=1, gap=0.5)
    source = fakes.write_source(tmp_path / "source", sets, [shifted])
    job = mapping(
        (),
        source=source,
        encode={
            **{"regimes": ("standard", "covariate_shift"), "protocols": ("paper",)},
            **{"max_latents": 4, "random_latents": 4},
        },
        fit={"num_latents": (4,), "regime_num_latents": (4,), "controls": False},
    )
    stage.run(stage.RunConfig.from_mapping(job), tmp_path / "run")
    rows = table.read_rows(tmp_path / "run" / "results.parquet")
    probes = [row for row in rows if row.method == "logistic"]
    counts = collections.Counter((row.dataset, row.regime) for row in probes)
    assert counts == {("a", "standard"): 1, ("b", "standard"): 1, ("b", "covariate_shift"): 1}
    assert len(rows) == 2 * len(probes)  # the baseline and the SAE
    moved = {row.features: row for row in rows if row.regime == "covariate_shift"}
    assert len(moved) == 2
    assert {(row.num_train, row.num_test) for row in moved.values()} == {(220, 60)}
    # Another shifted set is another fingerprint, for its own rows alone.
    fakes.write_source(tmp_path / "source", sets, [fakes.dataset("b", 60, seed=2, gap=0.5)])
    with pytest.raises(table.TableError, match="logistic on b with fingerprint"):
        stage.run(stage.RunConfig.from_mapping(job), tmp_path / "run", ("fit",))
    fakes.write_source(tmp_path / "source", sets, [shifted])
    # The baseline once more, by hand, from the store.
    store = ActivationStore.open(tmp_path / "run" / "activations")
    data = datasets.load("b", source)
    (split,) = regimes.splits(data, "covariate_shift", seed=7, shifted=shifted)
    site = base.Site.parse("blocks.1.resid_post")
    x_train = store.read(site, [data.texts[row] for row in split.train_N])
    score = probes_room.fit_probe(
        "logistic", x_train, split.y_train_N, store.read(site, shifted.texts), shifted.y_N, seed=7
    )
    assert moved["activations"].test_auroc == pytest.approx(score.test_auroc, abs=1e-6)
    assert moved["activations"].valid_auroc == pytest.approx(score.valid_auroc, abs=1e-6)


def test_shards_make_the_rows_of_the_whole_job(loads, tmp_path):
    sets = [fakes.dataset(name, 300, gap=0.5) for name in ("a", "b", "c")]
    source = fakes.write_source(tmp_path / "source", sets)
    extract = {"batch_tokens": 512, "token_datasets": ("a", "c")}
    config = stage.RunConfig.from_mapping(mapping((), source=source, extract=extract))
    whole, root = tmp_path / "whole", tmp_path / "parts"
    text = stage.run(config, whole)
    shards = [
        dataclasses.replace(config, shard=stage.sharding.Shard(index=index, count=2))
        for index in range(2)
    ]
    with pytest.raises(FileNotFoundError, match="on the whole job, before any shard"):
        stage.run(shards[0], root)
    stage.run(config, root, ("extract",))
    stage.run(config, root, ("train_sae",))
    with pytest.raises(ValueError, match="leave --shard out"):
        stage.run(shards[0], root, ("report",))
    assert "Shard 1/2 is done" in stage.run(shards[1], root)
    with pytest.raises(ValueError, match=r"1 of 2 shards in .* are missing or not done: 0/2"):
        stage.run(config, root)
    # The other one on another machine: no activations there, but the trained SAE.
    alone = tmp_path / "alone"
    shutil.copytree(root / "saes", alone / "saes")
    for name in ("extract", "encode", "fit"):
        stage.run(shards[0], alone, (name,))
    assert not (root / "shard-1-of-2" / "activations").exists()
    assert (alone / "shard-0-of-2" / "activations").exists()
    shutil.copytree(alone / "shard-0-of-2", root / "shard-0-of-2")
    merged = stage.run(config, root)
    assert merged.splitlines()[-1] == text.splitlines()[-1]
    paths = [folder / "results.parquet" for folder in (whole, root)]
    first, second = (table.merge([path]) for path in paths)
    assert len(first) > 10
    assert repr(first.to_pylist()) == repr(second.to_pylist())


def test_two_names_of_one_tensor_are_one_site(loads, paths, tmp_path, monkeypatch):
    model = fakes.FakeModel()
    monkeypatch.setattr(models, "identify", lambda source, dtype: model)
    sae = fakes.loaded_sae(base.Site.parse("blocks.1.mlp_module_out"))
    where = save_sae(tmp_path / "sae", sae, {"id": "sae", "site": str(sae.site)})
    names = {"site": "model.layers.1.mlp.output", "saes": (str(where),)}
    config = stage.RunConfig.from_mapping(mapping(paths[:1], **names))
    one = base.Site.parse("blocks.1.mlp_out")
    stage.run(config, tmp_path / "run", ("extract",))
    store = ActivationStore.open(tmp_path / "run" / "activations")
    assert set(store.taps) == {(one, "last"), (one, "tokens")}
    trained, job = fakes.loaded_sae(one), stage.with_stored_sites(config)
    assert {loaded.site for loaded in stage.load_saes(job, tmp_path, trained)} == {one}
    places = (job.site, *job.extract.sites, *job.extract.token_sites, job.train_sae.site)
    assert set(places) == {str(one)}
    # Where a norm stands between the two, they are two sites.
    model = fakes.FakeModel(post_norms=True)
    assert stage.with_stored_sites(config) == config
    assert stage.load_saes(config, tmp_path, trained)[1].site == sae.site


def test_a_damaged_record_is_written_anew(loads, paths, tmp_path):
    (tmp_path / "run.json").write_text('{"times": ')
    stage.run(stage.RunConfig.from_mapping(mapping(paths)), tmp_path, ("extract",))
    assert set(json.loads((tmp_path / "run.json").read_text())["times"]) == {"extract"}


def test_what_stages_share_is_said_once(paths):
    config = stage.RunConfig.from_mapping(mapping(paths, source="elsewhere"))
    assert config.extract.sites == config.extract.token_sites == ("blocks.1.resid_post",)
    assert config.train_sae.site == config.site == "blocks.1.resid_post"
    assert config.extract.source == config.encode.source == "elsewhere"
    assert config.extract.datasets == config.encode.datasets == tuple(paths)
    assert (config.encode.seed, config.train_sae.seed) == (7, 0)
    # Lists become tuples, and an absent section has its defaults.
    own = mapping(paths, encode={"protocols": ["dedup"]}, fit=None, train_sae=None)
    config = stage.RunConfig.from_mapping(own)
    assert (config.encode.seed, config.encode.protocols) == (7, ("dedup",))
    assert config.train_sae is None
    assert config.fit == stage.fitting.FitConfig()


SMALL = {"encode": {"max_latents": 80, "random_latents": 8}}


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
        ({"train_sae": {"d_saes": (64, 128)}}, r"`config.train_sae` asks for 2"),
        ({"sites": ("embed", "blocks.1.resid_post")}, r"`config.sites` asks for 2"),
        ({"train_sae": {"d_sae": 128, "architecture": 3}}, r"architecture` must be a text, got 3"),
        (
            {"fit": {"num_latents": (65,), "regime_num_latents": (4,)}, **SMALL},
            r"fit.num_latents` asks for 65 latents, the SAE",
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
            r"differ in their ids, got 'jump_relu/.*' from the train_sae stage and",
        ),
        (
            {"saes": ("random_sae={sae}",)},
            r"must be a short printable name of an SAE, got 'random_sae': it is what results call",
        ),
        (
            {"saes": ("activations={sae}",)},
            r"must be a short printable name of an SAE, got 'activations'",
        ),
        ({"saes": ("b={sae}", "b={sae}/")}, r"differ in their ids, got 'b' from"),
        ({"saes": ("{other}",)}, r"the SAE at .* reads blocks.2.resid_post, the baselines read"),
        ({"saes": ("{few}",)}, r"`fit.num_latents` asks for 4 latents, the SAE at .* has 3"),
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
        ({"datasets": ("{tiny}",)}, r"no dataset has a split in standard: .*tiny.csv with 10 rows"),
    ],
)
def test_names_sites_and_sizes_are_checked_before_extraction(
    loads, paths, tmp_path, changes, message
):
    places = {name: tmp_path / name for name in ("sae", "other", "few", "wide", "more", "source")}
    for name, (block, d_model, d_sae) in {
        **{"sae": (1, 32, 64), "other": (2, 32, 64), "few": (1, 32, 3), "wide": (1, 33, 64)},
    }.items():
        sae = fakes.loaded_sae(base.Site(block=block, stream="resid_post"), d_sae)
        if d_model != 32:
            weights = np.ones((d_model, d_sae), np.float32)
            sae = dataclasses.replace(
                sae.sae, W_enc_DS=weights, W_dec_SD=weights.T, b_dec_D=np.zeros(d_model, np.float32)
            )
        checkpoints.save_sae(
            places[name], sae, {"id": TRAINED, "site": f"blocks.{block}.resid_post"}
        )
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
        preflight.check_inputs(job)
        return
    with pytest.raises(ValueError, match=message):
        stage.run(job, tmp_path / "run")
    assert loads == []
    assert not (tmp_path / "run").exists()


def test_a_job_runs_without_an_extra_that_is_not_installed(monkeypatch, caplog):
    def config(*baselines):
        return stage.fitting.FitConfig(baselines=baselines, latent_methods=("knn", "xgboost"))

    asked = config("logistic", "xgboost", "pca")
    monkeypatch.setattr(preflight.importlib.util, "find_spec", lambda name: name)
    assert preflight.with_installed(asked) == asked
    monkeypatch.setattr(preflight.importlib.util, "find_spec", lambda name: None)
    with caplog.at_level("WARNING"):
        left = preflight.with_installed(asked)
    assert left.baselines == ("logistic", "pca") and left.latent_methods == ("knn",)
    (record,) = caplog.records
    assert "xgboost is not installed, so the job runs without it" in record.getMessage()
    assert "pip install 'jaxprobe[xgboost]'" in record.getMessage()
    with pytest.raises(ValueError, match=r"`fit.baselines` names xgboost alone, which is not"):
        preflight.with_installed(config("xgboost"))


def test_an_sae_has_the_id_that_the_config_gives_it(tmp_path):
    site = base.Site.parse("blocks.1.resid_post")
    checkpoints.save_sae(
        tmp_path / "s", fakes.loaded_sae(site), {"id": "its own", "site": str(site)}
    )
    assert preflight.names.load_labelled(f"mine={tmp_path / 's'}").id == "mine"
    assert preflight.names.load_labelled(str(tmp_path / "s")).id == "its own"
