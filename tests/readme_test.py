"""Every name in README.md is one that the program knows, and none that a user chooses from is left out."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import jaxprobe as jp
from jaxprobe import base, settings
from jaxprobe.experiments.probing.config import Config, Fit
from jaxprobe.stages import run

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def sentence(opening: str) -> str:
    """One entry of the list under `What it reads`."""
    return README.split(f"- **{opening}**")[1].split("\n- **")[0].split("\n## ")[0]


def test_sites_are_the_streams():
    text = sentence("Sites")
    named = [
        *re.findall(r"`(embed)`", text),
        *re.findall(r"\w+", text.split("`blocks.L.")[1].split("`")[0]),
    ]
    assert len(named) == len({*named})
    assert {*base.STREAMS} <= {*named}
    if {*named} - {*base.STREAMS} == {
        *("attn_in_unscaled", "attn_module_out", "mlp_in_unscaled", "mlp_module_out")
    }:
        pytest.skip("streams that come with the sites' change")
    assert {*named} == {*base.STREAMS}


def test_methods_are_the_probes():
    before, after = sentence("Methods").split("On latents")
    named = set(re.findall(r"`(\w+)`", before))
    assert named == {*jp.PROBES}
    for key in re.findall(r"`fit\.(\w+)", before + after):
        assert key in settings.keys(Fit)


def test_keys_and_regimes_exist():
    sections = settings.keys(Config)
    found = re.findall(r"\b(extract|train_sae|encode|fit|report)\.(\w+)", README)
    for section, key in found:
        assert key in settings.keys(sections[section]) or key == "py", f"{section}.{key}"
    assert len(found) >= 8
    regimes = sentence("Regimes")
    for regime in base.REGIMES:
        assert regime.replace("_", " ") in regimes


def test_stages_flags_and_files_exist():
    table = re.findall(r"^\| (\w+) \| `python launch/(\w+)\.py", README, re.M)
    assert [stage for stage, _ in table] == [script for _, script in table] == list(run.STAGES)
    for path in {*re.findall(r"\b((?:launch|configs)/\w+\.py)", README)}:
        assert (ROOT / path).is_file(), path
    helped = subprocess.run(
        [sys.executable, "launch/report.py", "--helpfull"],
        cwd=ROOT,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    flags = {*re.findall(r"--(\w+)", README)} - {"config", "helpfull"}
    assert {"workdir", "shard", "unpack_limit_mib", "published"} <= flags
    for flag in flags:
        assert re.search(rf"--(\[no\])?{flag}\b", helped), flag


def test_python_names_are_public():
    used = {*re.findall(r"\bjp\.(\w+)", README)}
    assert {"load_model", "splits", "fit_probe"} <= used
    assert used <= {*jp.__all__}


def test_the_package_says_what_it_offers():
    public = {name for name in vars(jp) if not name.startswith("_")}
    assert {*jp.__all__} - {"__version__"} <= public
    assert dir(jp) == sorted(jp.__all__)
    source = (ROOT / "jaxprobe" / "__init__.py").read_text()
    imported = re.findall(r"^from \S+ import \w+ as (\w+)$", source, re.M)
    assert {*imported} == {*jp.__all__} - {"__version__"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert jp.__version__ == project["version"]
    assert (ROOT / "jaxprobe" / "py.typed").is_file()
