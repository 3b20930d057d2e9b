"""The launch scripts as a person meets them: help, and errors that say what to do."""

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


def launch(script: str, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, f"launch/{script}", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_every_stage_has_a_script_and_a_section_of_its_name():
    from jaxprobe.stages import run

    assert run.STAGES == STAGES
    fields = run.RunConfig.__dataclass_fields__
    for name in STAGES:
        assert f"{name}.py" in SCRIPTS
        assert (ROOT / "jaxprobe" / "stages" / f"{name}.py").exists()
        assert name in fields
    for name in {*SCRIPTS} - {"bench.py"}:
        text = (ROOT / "launch" / name).read_text()
        assert len(text.splitlines()) <= 60, f"{name} is more than flags and a call"


@pytest.mark.parametrize("script", [f"{name}.py" for name in (*STAGES, "run", "bench")])
def test_scripts_explain_themselves(script):
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
            r"error: unknown key of config.train_sae 'd_sea'; known: d_sae, ",
        ),
        ((TINY, "--config.seed.x=3"), r"error: config.seed of .* has no key 'x'"),
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
def test_a_users_error_is_one_line_that_names_the_way_out(arguments, message, tmp_path):
    got = launch("run.py", *arguments, *([f"--workdir={tmp_path / 'w'}"] if arguments else []))
    shown = got.stdout + got.stderr
    assert got.returncode != 0
    assert re.search(message, shown), shown
    assert "Traceback" not in shown
    assert not (tmp_path / "w").exists()


def test_an_override_reaches_the_job(tmp_path):
    folder = tmp_path / "no such wheel"
    got = launch("extract.py", TINY, f"--config.model={folder}", f"--workdir={tmp_path}")
    shown = got.stdout + got.stderr
    if "sae-probes" in shown:
        pytest.skip(f"needs the published datasets: {shown.splitlines()[-1]}")
    assert got.returncode != 0
    assert str(folder) in shown
    assert "Traceback" not in shown


def test_a_stage_that_comes_too_early_says_which_one_is_first(tmp_path):
    got = launch("report.py", TINY, f"--workdir={tmp_path}")
    shown = got.stdout + got.stderr
    if "sae-probes" in shown:
        pytest.skip(f"needs the published datasets: {shown.splitlines()[-1]}")
    assert got.returncode != 0
    assert f"error: there are no results at {tmp_path / 'results.parquet'}" in shown
    assert "run the fit stage first" in shown
    assert "Traceback" not in shown
