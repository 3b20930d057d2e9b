"""Runs beside one another in one directory: elsewhere, other seeds, sites, SAEs; refusals that change nothing."""

import dataclasses
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jaxprobe import checkpoints, models, results
from jaxprobe import datasets as datasets_room
from jaxprobe.base import Site
from jaxprobe.checkpoints import save_sae
from jaxprobe.methods import probes
from jaxprobe.place import Place
from jaxprobe.runs import plans
from jaxprobe.stages import run as stage
from jaxprobe.store import StoreError
from tests import fakes

ROOT = Path(__file__).parents[2]
ONE, TWO = "blocks.1.resid_post", "blocks.2.resid_post"
TRAINED = f"jump_relu/{ONE}/width_64/l0_6"


@pytest.fixture
def quick(monkeypatch):
    """The fake model, and numbers in place of fits; lists the fits."""
    made = []

    def scores(*args, **kwargs):
        made.append(args[0])
        return fakes.scores(*args, **kwargs)

    monkeypatch.setattr(probes.grid, "fit_grid", scores)
    fakes.stand_in(monkeypatch)
    return made


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("csv")
    return [fakes.write_csv(folder, fakes.dataset(name, 220, gap=0.5)) for name in ("a", "b")]


def run(content, folder, stages=stage.STAGES, **more):
    return stage.run(stage.RunConfig.from_mapping(content), folder, stages, **more)


def listing(folder) -> dict[str, str]:
    """SHA-256 of every file and the names of all folders."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


def rows_of(folder):
    return results.read_rows(Place.parse(folder) / "results.parquet")


def numbers_of_page(folder) -> dict[str, str]:
    """The tables of numbers beside a page."""
    return {
        name: digest
        for name, digest in listing(folder).items()
        if name.endswith((".csv", ".parquet"))
    }


# A second start, in which nothing may be computed: not a fit, not a forward pass, not a draw.
AGAIN = """
import json, sys
import pytest
from jaxprobe.features import ranked, twins
from jaxprobe.methods import probes
from jaxprobe.saes import training
from jaxprobe.stages import run
from tests import fakes

def never(*args, **kwargs):
    raise AssertionError("computed again")

fakes.stand_in(pytest.MonkeyPatch())
from jaxprobe import models
models.load_model = probes.grid.fit_grid = ranked.rank = twins.draw = training.train_step = never
content, folder = json.loads(sys.argv[1]), sys.argv[2]
told = []
print(run.run(run.RunConfig.from_mapping(content), folder, tell=told.append))
assert told == ["Nothing is left to do but the report."], told
import jax
print(f"devices {jax.device_count()}")
"""


@pytest.mark.parametrize("devices", [1, 4])
def test_a_finished_run_resumes_with_another_number_of_processors(quick, paths, tmp_path, devices):
    text = run(fakes.job(paths), tmp_path / "work")
    before = listing(tmp_path / "work")
    environment = {
        **os.environ,
        **{"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        **{"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "3", "NPROC": "1"},
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"
        " --xla_cpu_multi_thread_eigen=false",
    }
    command = [sys.executable, "-c", AGAIN, json.dumps(fakes.job(paths)), str(tmp_path / "work")]
    one_cpu = ["taskset", "-c", "0"] if devices == 1 and shutil.which("taskset") else []
    got = subprocess.run([*one_cpu, *command], env=environment, capture_output=True, text=True)
    assert got.returncode == 0, got.stderr[-3000:]
    assert f"devices {devices}" in got.stdout
    assert text.splitlines()[-1] in got.stdout
    after = listing(tmp_path / "work")
    after.pop("run.json"), before.pop("run.json")  # the times of stages that look for work
    assert after == before


def test_other_seeds_sites_and_saes_live_beside_the_first(quick, paths, tmp_path):
    """Each says what it is, all stay, and the first command still makes the first page."""
    sae = fakes.loaded_sae(Site.parse(TWO))
    where = str(save_sae(tmp_path / "sae", sae, {"id": "named", "site": TWO}))
    first, work = fakes.job(paths), tmp_path / "work"
    text = run(first, work)
    kept, page = listing(work), numbers_of_page(work)
    for changes, features, sites in (
        ({"seed": 8}, {"activations", TRAINED, "random_sae"}, {ONE}),
        ({"train_sae": None, "saes": (where,)}, {"activations", "named", "random_sae"}, {ONE, TWO}),
        (
            {"train_sae": {**first["train_sae"], "seed": 3}},
            {"activations", TRAINED, "random_sae"},
            {ONE},
        ),
    ):
        job = fakes.job(paths, **changes)
        run(job, work)
        plan = plans.name_of(dataclasses.asdict(stage.RunConfig.from_mapping(job).job))
        objects = json.loads((work / "plans" / f"{plan}.json").read_text())["objects"]
        parts = [results.read_job(Place.parse(work) / "results" / name) for name in objects]
        rows = [row for part in parts for row in part.rows]
        assert {row.features for row in rows} == features
        assert {row.site for row in rows} == sites
        assert {row.seed for row in rows} == {changes.get("seed", 7)}
    fits = len(quick)
    now = listing(work)
    lost = {n for n in kept if now.get(n) != kept[n] and not n.startswith("activations/")}
    reports = ("results.parquet", "metrics.parquet", "quiver", "report/", "run.json")
    assert all(name.startswith(reports) for name in lost), lost
    # The first command again computes nothing, and its page tells its own SAE's numbers.
    again = run(first, work)
    assert len(quick) == fits
    assert {name for name in kept if name.startswith(("results/", "latents/", "saes/"))} <= {*now}
    rows = [row for row in rows_of(work) if row.site == ONE and row.features == TRAINED]
    alone = tmp_path / "alone"
    run(first, alone)
    wanted = [row for row in rows_of(alone) if row.features == TRAINED]
    assert repr(rows) == repr(wanted)
    assert text.splitlines()[0].split(";")[0] == again.splitlines()[0].split(";")[0]
    assert page


def test_another_seed_leaves_the_first_page_as_it_was(quick, paths, tmp_path):
    """No row of one job stands on the other's page."""
    work = tmp_path / "work"
    text = run(fakes.job(paths), work)
    page = numbers_of_page(work)
    run(fakes.job(paths, seed=8), work)
    assert {row.seed for row in rows_of(work)} == {8}
    assert numbers_of_page(work) != page
    assert run(fakes.job(paths), work) == text
    both = numbers_of_page(work)
    assert {name: both[name] for name in page} == page


@pytest.mark.parametrize(
    ("changes", "model", "message"),
    [
        ({}, fakes.FakeModel(name="other", fingerprint="other weights"), "model: wanted 'other'"),
        (
            {"extract": {"batch_tokens": 512, "max_length": 64}},
            None,
            "max_length: wanted 64, got 1024",
        ),
        ({"dtype": "bfloat16"}, fakes.FakeModel(dtype="bfloat16"), "dtype: wanted 'bfloat16'"),
        ({"site": "blocks.77.resid_post"}, None, "is not in fake"),
        ({"datasets": ("nowhere.csv",)}, None, "nowhere"),
    ],
)
def test_what_cannot_stand_here_is_refused_before_anything_changes(
    quick, paths, tmp_path, monkeypatch, changes, model, message
):
    run(fakes.job(paths), tmp_path)
    before = listing(tmp_path)
    if model is not None:
        fakes.stand_in(monkeypatch, model)
    for stages in (stage.STAGES, ("extract",), ("encode",), ("fit",)):
        with pytest.raises((StoreError, ValueError, OSError, RuntimeError), match=message):
            run(fakes.job(paths, **changes), tmp_path, stages, tell=lambda text: None)
        assert listing(tmp_path) == before
    fakes.stand_in(monkeypatch)
    run(fakes.job(paths), tmp_path)
    assert listing(tmp_path) == before


def test_two_sites_and_two_saes_in_one_run(quick, paths, tmp_path):
    """Baselines read every site, each SAE its own, each site has its own random SAE."""
    saes = []
    for name, site in (("one", ONE), ("two", TWO)):
        sae = fakes.loaded_sae(Site.parse(site), seed=len(saes))
        saes.append(str(save_sae(tmp_path / name, sae, {"id": name, "site": site})))
    job = fakes.job(paths, site="", sites=(ONE, TWO), train_sae=None, saes=tuple(saes))
    run(job, tmp_path / "work")
    found = {(row.site, row.features) for row in rows_of(tmp_path / "work")}
    both = {(site, features) for site in (ONE, TWO) for features in ("activations", "random_sae")}
    assert found == {*both, (ONE, "one"), (TWO, "two")}
    keys = [row.key() for row in rows_of(tmp_path / "work")]
    assert len({*keys}) == len(keys)
    # As each would stand alone.
    for site, sae in zip((ONE, TWO), saes, strict=True):
        alone = fakes.job(paths, site=site, train_sae=None, saes=(sae,))
        run(alone, tmp_path / site)
        wanted = {row.key(): row.test_auroc for row in rows_of(tmp_path / site)}
        its = {row.key(): row.test_auroc for row in rows_of(tmp_path / "work") if row.site == site}
        assert its == wanted


def test_a_second_site_in_a_directory_is_a_second_site_of_its_results(quick, paths, tmp_path):
    plain = {"train_sae": None}
    run(fakes.job(paths, **plain), tmp_path)
    first = rows_of(tmp_path)
    assert {row.site for row in first} == {ONE}
    run(fakes.job(paths, site=TWO, **plain), tmp_path)
    rows = rows_of(tmp_path)
    assert {row.site for row in rows} == {ONE, TWO}
    assert rows[0].site == TWO  # the asked job's stand first
    assert repr([row for row in rows if row.site == ONE]) == repr(first)


@pytest.fixture
def counted(monkeypatch):
    """Counts what must happen once: by what is done, how often to which."""
    seen = {}

    def count(owner, name, what, key=lambda args: ""):
        plain = getattr(owner, name)

        def counting(*args, **kwargs):
            entry = (what, key(args))
            seen[entry] = seen.get(entry, 0) + 1
            return plain(*args, **kwargs)

        monkeypatch.setattr(owner, name, counting)

    count(datasets_room, "_parse", "parse", lambda args: args[0])
    digest = functools.cached_property(checkpoints.LoadedSae.digest.func)
    digest.__set_name__(checkpoints.LoadedSae, "digest")
    count(digest, "func", "hash", lambda args: args[0].id)
    monkeypatch.setattr(checkpoints.LoadedSae, "digest", digest)
    count(checkpoints, "load_sae", "load", lambda args: Path(str(args[0])).parts[-2])
    return seen


def test_nothing_is_parsed_or_hashed_twice(quick, paths, tmp_path, counted, monkeypatch):
    sae = fakes.loaded_sae(Site.parse(ONE))
    where = str(save_sae(tmp_path / "sae", sae, {"id": "named", "site": ONE}))
    job = fakes.job(paths, saes=(where,))
    hashed = []
    plain = hashlib.sha256
    texts = {
        text.encode() for name in ("a", "b") for text in fakes.dataset(name, 220, gap=0.5).texts
    }

    def sha256(data=b"", **options):
        if bytes(data) in texts:
            hashed.append(bytes(data))
        return plain(data, **options)

    monkeypatch.setattr(hashlib, "sha256", sha256)
    for _ in range(2):  # the second start finds all done
        counted.clear(), hashed.clear()
        run(job, tmp_path / "work", tell=lambda text: None)
        parsed = {key: count for key, count in counted.items() if key[0] == "parse"}
        assert parsed and {*parsed.values()} == {1}
        assert {key: n for key, n in counted.items() if key[0] == "hash" and n > 1} == {}
        assert {*hashed} == texts
        assert len(hashed) == 2 * 220  # a row once


def test_a_stage_alone_opens_only_what_it_reads(quick, paths, tmp_path, counted, monkeypatch):
    sae = fakes.loaded_sae(Site.parse(ONE))
    where = str(save_sae(tmp_path / "sae", sae, {"id": "named", "site": ONE}))
    job = fakes.job(paths, saes=(where,))
    run(job, tmp_path / "work", ("extract",))
    # `train_sae` loads no other SAE: what it is told of BOS stands in a file's header.
    counted.clear()
    run(job, tmp_path / "work", ("train_sae",))
    assert not [key for key in counted if key == ("load", "sae")]
    run(job, tmp_path / "work", ("encode", "fit"))
    # `report` needs neither datasets nor SAEs nor the model.
    counted.clear()
    for path in (*paths, where):
        shutil.move(path, f"{path}.away")
    try:
        monkeypatch.setattr(models, "identify", lambda *_: pytest.fail("the model was looked at"))
        shutil.move(tmp_path / "work" / "saes", tmp_path / "saes")
        assert ONE in run(job, tmp_path / "work", ("report",))
    finally:
        for path in (*paths, where):
            shutil.move(f"{path}.away", path)
    assert not counted


def test_a_damaged_object_is_refused_by_name(quick, paths, tmp_path):
    job = fakes.job(paths, train_sae=None)
    run(job, tmp_path)
    (victim, *_) = sorted((tmp_path / "results").iterdir())
    content = victim.read_bytes()
    for position in range(4, len(content) - 1, len(content) // 40):
        damaged = bytearray(content)
        damaged[position] ^= 64
        victim.write_bytes(damaged)
        try:
            found = results.read_job(Place.parse(victim))
        except results.TableError as error:
            assert victim.name in str(error)
        else:  # what nobody reads: no number has changed
            victim.write_bytes(content)
            assert repr(found) == repr(results.read_job(Place.parse(victim)))
    victim.write_bytes(content[: len(content) // 2])
    with pytest.raises(results.TableError, match=re.escape(victim.name)):
        run(job, tmp_path)
