"""A work directory that is no directory: `memory://` gives the objects of a path."""

import re

import pytest

from jaxprobe.methods import probes
from jaxprobe.place import Place
from jaxprobe.stages import run as stage
from tests import fakes


def objects(place: Place) -> dict[str, bytes]:
    """Every object below a place, by its name."""
    found = {}
    for name in place.children():
        inner = place / name
        if inner.exists():
            found[name] = inner.read()
        else:
            found |= {f"{name}/{deep}": content for deep, content in objects(inner).items()}
    return found


def test_a_job_in_memory_leaves_what_a_job_on_a_path_does(tmp_path, monkeypatch):
    monkeypatch.setattr(probes.grid, "fit_grid", fakes.scores)
    fakes.stand_in(monkeypatch)
    path = fakes.write_csv(tmp_path, fakes.dataset("a", 220, gap=0.5))
    config = stage.RunConfig.from_mapping(fakes.job([path]))
    here, there = Place.parse(tmp_path / "work"), Place.parse(f"memory://jobs/{tmp_path.name}")
    text = stage.run(config, there)
    undated = lambda text: re.sub(r"\d{4}-\d\d-\d\dT\S+", "", text)
    assert undated(stage.run(config, here)) == undated(text)
    for folder in ("results", "latents", "saes"):
        assert objects(there / folder) == objects(here / folder) != {}, folder
    tables = ("results.parquet", "metrics.parquet", "quiver.csv")
    assert {n: (there / n).read() for n in tables} == {n: (here / n).read() for n in tables}
    # A second start does nothing.
    before = objects(there)
    monkeypatch.setattr(probes.grid, "fit_grid", lambda *_, **__: pytest.fail("fitted again"))
    assert stage.run(config, there) == text
    assert objects(there) == before
