"""The launch scripts as a person meets them: help, and errors that say what to do."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("extract", "train_sae", "encode", "fit", "report")
SCRIPTS = sorted(path.name for path in (ROOT / "launch").glob("*.py"))
TINY = "--config=configs/tiny.py"


@pytest.fixture(scope="module")
def launch():
    """Runs a script by `tests/launch_runner.py`: `(script, arguments, variables) -> what came of it`.

    That a script starts alone, from nothing, is what tests of signals, of kills and of README see.
    """
    with subprocess.Popen(
        [sys.executable, "tests/launch_runner.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as runner:

        def run(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
            command = [f"launch/{script}", *arguments]
            order = json.dumps({"command": command, "variables": variables})
            print(order, file=runner.stdin, flush=True)
            return subprocess.CompletedProcess(command, **json.loads(runner.stdout.readline()))

        yield run
        runner.stdin.close()


def test_every_stage_has_a_script_and_a_section_of_its_name():
    from jaxprobe.experiments.probing.config import Config
    from jaxprobe.stages import run

    assert run.STAGES == STAGES
    fields = Config.__dataclass_fields__
    for name in STAGES:
        assert f"{name}.py" in SCRIPTS
        assert (ROOT / "jaxprobe" / "stages" / f"{name}.py").exists()
        assert name in fields
    for name in {*SCRIPTS} - {"bench.py"}:
        text = (ROOT / "launch" / name).read_text()
        most = 60 if "__main__" in text and "app.run(" in text else 200  # what the scripts share
        assert len(text.splitlines()) <= most, f"{name} is more than flags and a call"


@pytest.mark.parametrize("script", [f"{name}.py" for name in (*STAGES, "run", "bench")])
def test_scripts_explain_themselves(launch, script):
    got = launch(script, "--helpfull")
    shown = got.stdout + got.stderr
    assert f"python launch/{script} --" in shown
    assert "--workdir" in shown
    assert "--config.KEY=VALUE" in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), r"error: --config=FILE is needed, e\.g\. --config=configs/quickstart\.py"),
        ((TINY, "stray"), r"error: unknown argument 'stray'; flags are --config=FILE, --workdir"),
        (
            (TINY, "--config.trian_sae.d_sae=3"),
            r"error: unknown key of config 'trian_sae'; known: train_sae, ",
        ),
        (
            (TINY, "--config.train_sae.d_sea=3"),
            r"error: unknown key of config.train_sae 'd_sea'; known: d_sae",
        ),
        ((TINY, "--config.seed.x=3"), r"error: `config.seed` is a value and has no key 'x'"),
        (
            (f"{TINY}:lairs",),
            r"error: unknown variant of configs/tiny.py 'lairs'; known: layers, one",
        ),
        (
            ("--config=configs/gemma2_2b.py", "--config.train_sae.d_sae=64"),
            r"error: config.train_sae.d_sae has no effect, .* add --config.train_sae.train=True",
        ),
        ((TINY, "--config.seed=many"), r"--config.seed=many: invalid literal for int"),
        ((TINY, "--wrkdir=x"), r"Unknown command line flag 'wrkdir'. Did you mean: workdir"),
        (
            ("--config=configs/tny.py",),
            r"error: there is no config file configs/tny.py; known: .*configs/tiny.py",
        ),
        (("--config", "configs/tny.py"), r"error: there is no config file configs/tny.py"),
        ((TINY, "--config.site=here"), r"error: a site is `embed` or `blocks\.L\.STREAM`"),
    ],
)
def test_a_users_error_is_one_line_that_names_the_way_out(launch, arguments, message, tmp_path):
    got = launch("run.py", *arguments, *([f"--workdir={tmp_path / 'w'}"] if arguments else []))
    shown = got.stdout + got.stderr
    assert got.returncode != 0
    assert re.search(message, shown), shown
    assert "Traceback" not in shown
    assert not (tmp_path / "w").exists()


def test_keys_that_the_file_leaves_out_are_overridden(launch):
    given = (
        "--config.fit.baselines=('logistic','pca')",
        "--config.saes=()",
        "--config.extract.mesh=(1,1)",
    )
    got = launch("run.py", TINY, *given, "--only_check_args")
    assert got.returncode == 0, got.stderr


@pytest.mark.parametrize("shard", ["4/4", "first"])
def test_a_bad_shard_is_refused_with_an_example(launch, shard, tmp_path):
    got = launch("run.py", TINY, f"--shard={shard}", f"--workdir={tmp_path / 'w'}")
    shown = got.stdout + got.stderr
    assert got.returncode != 0
    assert f"got {shard!r}" in shown
    assert "e.g. 0/4 for the first of four and 3/4 for the last" in shown
    assert "Traceback" not in shown
    assert not (tmp_path / "w").exists()


def test_a_launched_process_takes_its_own_shard(launch, tmp_path):
    arguments = ("run.py", TINY, "--shard=process", f"--workdir={tmp_path / 'w'}")
    alone = launch(*arguments)
    assert alone.returncode != 0
    assert "SLURM_PROCID and SLURM_NTASKS" in alone.stderr and "Traceback" not in alone.stderr
    # The tiny job has one dataset: the second of two processes is told so, by the numbers it was given.
    second = launch(*arguments, SLURM_PROCID="1", SLURM_NTASKS="2")
    shown = second.stdout + second.stderr
    if "sae-probes" in shown:
        pytest.skip(f"needs the published datasets: {shown.splitlines()[-1]}")
    assert "1 datasets cannot be split into 2 shards" in shown
    beyond = launch(*arguments, OMPI_COMM_WORLD_RANK="2", OMPI_COMM_WORLD_SIZE="2")
    assert "a shard's number must be below their count, got '2/2'" in beyond.stderr


def test_the_select_suite_ranks_a_small_encoder_without_a_run(launch):
    small = ("--select_latents=3000", "--select_rows=400", "--select_width=64", "--select_l0=20")
    got = launch("bench.py", "--suite=select", *small)
    assert got.returncode == 0, got.stderr
    assert "3,000 latents, 400 rows of 64, 48 splits" in got.stdout
    assert re.search(
        r"selection [\d.]+ s \([\d.]+ s of CPU\), \d+ GFLOP/s; ratio [\d.]+", got.stdout
    )
    assert re.search(r"with [\d,]+ kept columns \([\d,]+ entries\)", got.stdout)
    assert "beyond the weights" in got.stdout


def test_an_override_reaches_the_job(launch, tmp_path):
    folder = tmp_path / "no such wheel"
    got = launch("extract.py", TINY, f"--config.model={folder}", f"--workdir={tmp_path}")
    shown = got.stdout + got.stderr
    if "sae-probes" in shown:
        pytest.skip(f"needs the published datasets: {shown.splitlines()[-1]}")
    assert got.returncode != 0
    assert str(folder) in shown
    assert "Traceback" not in shown


def test_a_stage_that_comes_too_early_says_which_one_is_first(launch, tmp_path):
    got = launch("report.py", TINY, f"--workdir={tmp_path}")
    shown = got.stdout + got.stderr
    if "sae-probes" in shown:
        pytest.skip(f"needs the published datasets: {shown.splitlines()[-1]}")
    assert got.returncode != 0
    assert f"error: there are no results of this config in {tmp_path}" in shown
    assert "run the fit stage first" in shown
    assert "Traceback" not in shown


def _tiny_published(root):
    """One file of one model, as the authors lay it out."""
    path = root / "results/baseline_probes_gemma-2-9b/normal_settings/layer20_results.csv"
    path.parent.mkdir(parents=True)
    rows = ["dataset,method,test_f1,test_acc,test_auc,val_auc"]
    rows += [f"{name},logreg,0.5,0.5,0.75,0.75" for name in ("a", "b")]
    path.write_text("\n".join(rows))
    return path


def test_published_files_are_reported(launch, tmp_path):
    _tiny_published(tmp_path)
    asked = (
        f"--published={tmp_path}",
        "--published_model=gemma-2-9b",
        f"--workdir={tmp_path / 'w'}",
    )
    got = launch("report.py", *asked)
    assert got.returncode == 0, got.stderr
    assert "0.750000" in got.stdout
    assert (tmp_path / "w/report/index.html").exists()
    assert (tmp_path / "w/quiver.csv").read_text().startswith("regime,tie_rule,n,base,with_sae")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--published=DIR",), r"error: --published_model=MODEL is needed; .* has gemma-2-9b"),
        (
            ("--published=DIR", "--published_model=gema-2-9b"),
            r"error: unknown published model 'gema-2-9b'; known: gemma-2-9b",
        ),
        (("--runs=a,b", "--published=DIR"), r"--published, --runs and --config exclude each other"),
        (("--runs=a,./a",), r"`runs` must name different work directories, got a, a"),
        (("--published_model=x",), r"error: --published_model, .* need --published=DIR"),
        (("--published=DIR", TINY, "--published_model=x"), r"exclude each other"),
        (
            ("--published=DIR", "--published_model=gemma-2-9b", "--published_site=blocks.9"),
            r"error: unknown site 'blocks.9'; known: blocks.20.resid_post",
        ),
    ],
)
def test_errors_about_published_files_name_the_way_out(launch, arguments, message, tmp_path):
    _tiny_published(tmp_path)
    given = [part.replace("DIR", str(tmp_path)) for part in arguments]
    got = launch("report.py", *given, f"--workdir={tmp_path / 'w'}")
    shown = got.stdout + got.stderr
    assert got.returncode != 0
    assert re.search(message, shown), shown
    assert "Traceback" not in shown


def test_a_published_file_without_a_column_is_named(launch, tmp_path):
    path = _tiny_published(tmp_path)
    path.write_text(path.read_text().replace("val_auc", "validation"))
    got = launch("report.py", f"--published={tmp_path}", "--published_model=gemma-2-9b")
    shown = got.stdout + got.stderr
    assert got.returncode != 0
    assert "layer20_results.csv lacks the column `val_auc`" in shown
    assert "Traceback" not in shown


def test_what_lies_in_the_way_is_one_sentence(launch, tmp_path):
    """The workdir's place, below a file, too long a name: each before any work."""
    (tmp_path / "file").write_text("mine")
    _tiny_published(tmp_path)
    asked = (f"--published={tmp_path}", "--published_model=gemma-2-9b", "--unpack_limit_mib=64")
    for workdir, remedy in (
        (tmp_path / "file", "something else is in its place"),
        (tmp_path / "file" / "below", "something else is in its place"),
        (tmp_path / ("x" * 300), "use a shorter name or --workdir"),
    ):
        got = launch("report.py", *asked, f"--workdir={workdir}")
        assert got.returncode == 1, got.stderr
        (line,) = [line for line in got.stderr.splitlines() if line.startswith("error: ")]
        assert str(tmp_path) in line and remedy in line
        assert "Traceback" not in got.stderr
    assert (tmp_path / "file").read_text() == "mine"
