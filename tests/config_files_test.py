"""Every key of every config file can be overridden, by absl's own parser, in this process."""

import ast
import runpy
from pathlib import Path

import config_file
import flags as launch_flags  # launch/flags.py
import pytest
from absl import flags
from ml_collections import config_flags

from jaxprobe import settings
from jaxprobe.experiments import config, schemas
from jaxprobe.experiments.probing.config import Config

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path.name for path in (ROOT / "configs").glob("*.py"))
PAPER = ("logistic", "pca", "knn", "mlp", "xgboost")
BIG = ("gemma2_2b.py", "gemma2_9b.py", "llama3_8b.py")


@pytest.fixture
def parse(monkeypatch):
    """What `run.py` with some flags makes of a config file: its content, overrides included."""

    def content(file, *arguments):
        argv = ["run.py", f"--config={file}", *arguments]
        values = flags.FlagValues()
        holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
        monkeypatch.setattr(launch_flags, "_CONFIG", holder)
        launch_flags.fill_config(values, argv)
        values(argv)
        return launch_flags.job_content()

    return content


def leaves(kind, prefix=""):
    for key, hint in settings.keys(kind).items():
        if settings.is_section(hint):
            yield from leaves(hint, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", hint


def another(path, hint):
    """A value that no config file and no default has, as the command line spells it."""
    if path == "experiment":
        return "probing"
    plain = settings.plain(hint)
    if path == "extract.mesh":
        return "(3, 5)"
    entries = {str: "('x', 'y')", int: "(3, 5)", float: "(3.5, 5.0)"}
    if plain is tuple:
        wanted = settings.without_none(hint) if settings.allows_none(hint) else hint
        return entries[settings.plain(wanted.__args__[0])]
    return {str: "xyz", bool: "True", int: "77", float: "0.125"}[plain]


def value(nested, path):
    for key in path.split("."):
        nested = nested[key]
    return nested


@pytest.mark.parametrize("file", FILES)
def test_every_key_of_every_file_can_be_overridden(parse, file):
    given = {path: another(path, hint) for path, hint in leaves(Config)}
    assert len(given) > 50
    content = parse(f"{ROOT}/configs/{file}", *(f"--config.{p}={v}" for p, v in given.items()))
    for path, hint in leaves(Config):
        text = given[path]
        wanted = text if settings.plain(hint) is str else ast.literal_eval(text)
        assert value(content, path) == wanted, path
    schemas.read(content)


@pytest.mark.parametrize("file", FILES)
def test_a_file_is_filled_with_the_defaults_and_changed_by_nothing_else(parse, file):
    content = parse(f"{ROOT}/configs/{file}")
    own = config_file.executed(ROOT / "configs" / file, []).to_dict()
    assert schemas.read(content) == schemas.read(own)
    assert {path for path, _ in leaves(Config)} == {*flat(content)}


def flat(nested, prefix=""):
    for key, one in nested.items():
        if isinstance(one, dict):
            yield from flat(one, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_tuples_and_none_on_the_command_line(parse):
    tiny = f"{ROOT}/configs/tiny.py"
    for text, wanted in (
        ("()", ()),
        ("('logistic',)", ("logistic",)),
        ("('logistic', 'pca')", ("logistic", "pca")),
        ("['pca']", ("pca",)),
        ("pca", ("pca",)),
    ):
        assert parse(tiny, f"--config.fit.baselines={text}")["fit"]["baselines"] == wanted
    repeated = parse(tiny, "--config.fit.baselines=pca", "--config.fit.baselines=knn")
    assert repeated["fit"]["baselines"] == ("pca", "knn")
    for text, wanted in (("None", None), ("()", ()), ("('a',)", ("a",))):
        got = parse(tiny, f"--config.extract.token_datasets={text}")["extract"]["token_datasets"]
        assert got == wanted
    # A file that names some is brought back to all of them.
    every = parse(f"{ROOT}/configs/gemma3_270m.py", "--config.extract.token_datasets=None")
    assert every["extract"]["token_datasets"] is None
    assert parse(tiny, "--noconfig.fit.controls")["fit"]["controls"] is False


def write(tmp_path, body, head=""):
    path = tmp_path / "own.py"
    path.write_text(
        f"from ml_collections import ConfigDict, config_dict\n{head}\n"
        f"def get_config(which='one'):\n    return ConfigDict({body})\n"
    )
    return path


def test_a_config_file_runs_once(parse, tmp_path):
    path = write(tmp_path, "{}", head="with open(__file__ + '.count', 'a') as f: f.write('x')")
    parse(path, "--config.seed=3")
    assert Path(f"{path}.count").read_text() == "x"


def test_whole_numbers_and_lists_of_a_file_can_be_overridden(parse, tmp_path):
    path = write(tmp_path, "{'train_sae': {'max_gib': 1}, 'datasets': ['a']}")
    content = parse(path, "--config.train_sae.max_gib=0.5", "--config.datasets=('b',)")
    assert content["train_sae"]["max_gib"] == 0.5 and content["datasets"] == ("b",)
    assert parse(path)["train_sae"]["train"] is True


def test_a_file_may_lock_or_freeze_its_config(parse, tmp_path):
    for way in ("ConfigDict(x).lock()", "config_dict.FrozenConfigDict(x)"):
        path = tmp_path / "own.py"
        path.write_text(
            "from ml_collections import ConfigDict, config_dict\ndef get_config():\n"
            f"    x = {{'train_sae': {{'d_sae': 8}}}}\n    return {way}\n"
        )
        content = parse(path, "--config.train_sae.d_sae=9", "--config.seed=1")
        assert (content["train_sae"]["d_sae"], content["train_sae"]["train"]) == (9, True)


def test_what_a_file_leaves_open_is_filled_by_a_flag(parse, tmp_path):
    path = write(tmp_path, "{'seed': config_dict.placeholder(int, required=True)}")
    assert parse(path, "--config.seed=5")["seed"] == 5
    with pytest.raises(ValueError, match=r"`config.seed` must be a whole number, got None"):
        schemas.read(parse(path))
    tied = write(tmp_path, "{'seed': config_dict.FieldReference(4)}")
    assert (parse(tied)["seed"], parse(tied, "--config.seed=5")["seed"]) == (4, 5)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{'sead': 3}", "unknown key of config 'sead'; known: seed"),
        ("{'fit': {'seed': 3}}", "unknown key of config.fit 'seed'; .* is a key of config and of"),
        ("{'fit': 3}", "`config.fit` must hold keys and values, got 3"),
        ("{'seed': 'x'}", "`config.seed` must be a whole number, got 'x'"),
        ("{'seed': -1}", "`config.seed` must lie between"),
        ("{'experiment': 'x'}", "unknown config.experiment 'x'; known: probing"),
        ("{'experiment': 3}", "unknown config.experiment 3"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_by_its_key(tmp_path, body, message):
    with pytest.raises(config_file.ConfigFileError, match=message):
        config_file.load(str(write(tmp_path, body)))


def test_a_variant_reaches_the_file(parse, tmp_path):
    path = write(tmp_path, "{'model': which}")
    content = parse(f"{path}:two", "--config.seed=3")
    assert (content["model"], content["seed"]) == ("two", 3)
    path = write(tmp_path, "{'model': which}", head="VARIANTS = ('one', 'two')")
    with pytest.raises(
        config_file.ConfigFileError, match=r"unknown variant of .* 'tow'; known: two"
    ):
        config_file.load(f"{path}:tow")
    with pytest.raises(
        config_file.ConfigFileError, match=r"takes no variant, got 'x'; leave out :x"
    ):
        config_file.load(f"{ROOT}/configs/quickstart.py:x")


@pytest.mark.parametrize("file", FILES)
def test_every_variant_is_a_job(file):
    module = runpy.run_path(str(ROOT / "configs" / file))
    plain = module["get_config"]().to_dict()
    variants = {name: module["get_config"](name).to_dict() for name in module.get("VARIANTS", ())}
    jobs = {name: schemas.read(content) for name, content in variants.items()}
    for job in (schemas.read(plain), *jobs.values()):
        assert config.sites_of(job)
        config.saes_to_train(job)
    if jobs:
        assert next(iter(jobs.values())) == schemas.read(plain)
        assert len({*map(repr, jobs.values())}) == len(jobs)


def test_the_big_configs_run_the_papers_job():
    for file in BIG:
        job = schemas.read(runpy.run_path(str(ROOT / "configs" / file))["get_config"]().to_dict())
        assert {*job.fit.baselines} == {*PAPER}, file
        assert len(job.encode.regimes) == 5, file
        assert len(config.sites_of(job)) == (1 if file == "gemma2_2b.py" else 5), file
        assert job.saes


def test_a_key_of_another_section_is_said_to_be_there():
    with pytest.raises(config_file.ConfigFileError, match=r"'sites' is a key of config and of"):
        config_file.load(f"{ROOT}/configs/tiny.py", ["extract.sites"])


def test_variants_work_in_folders_of_their_own():
    assert launch_flags.default_workdir("configs/tiny.py") == Path("runs/tiny")
    assert launch_flags.default_workdir("configs/tiny.py:layers") == Path("runs/tiny_layers")
