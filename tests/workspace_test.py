"""The reading side of a run: refusals, the random SAE that is drawn once, what `auto` was settled to."""

import dataclasses

import numpy as np
import pytest

from jaxprobe import base, checkpoints, workspace
from jaxprobe.base import Site
from jaxprobe.features import twins
from jaxprobe.place import Place
from jaxprobe.probes import grid
from jaxprobe.workdir import Workdir
from jaxprobe.workspace import Workspace
from tests import fakes

SITE, OTHER = Site(block=1, stream="resid_post"), Site(block=2, stream="resid_post")


class FakeStore:
    """Activations of the fake model, of any text."""

    digest = "fake store"

    def read(self, site, texts, pooling="last", hashes=None):
        ids = [[1, *fakes.FakeTokenizer().encode(text)] for text in texts]
        return np.stack([fakes.activations(row, site)[-1] for row in ids])


def work(folder, *saes, seed=42, names=("a",)):
    found = Workspace(
        Workdir.parse(folder), load_saes=lambda: saes, control_datasets=names, seed=seed
    )
    found.__dict__["store"] = FakeStore()
    found._datasets.update({name: fakes.dataset(name, 60) for name in ("a", "b")})
    return found


def test_saes_without_a_site_or_with_one_id_are_refused(tmp_path):
    sae = fakes.loaded_sae(SITE)
    with pytest.raises(ValueError, match="does not say which site"):
        _ = work(tmp_path, dataclasses.replace(sae, site=None)).saes
    with pytest.raises(
        ValueError, match="differ in their ids, got 'sae' from fake 0 and from fake 1;"
    ):
        _ = work(tmp_path, sae, fakes.loaded_sae(SITE, seed=1)).saes


def test_the_random_sae_is_drawn_once_and_read_from_then_on(tmp_path, monkeypatch):
    """What it is, is told by what it was drawn from: its floats differ between processors."""
    sae, drawn = fakes.loaded_sae(SITE), []

    def draw(of, x_ND, seed, plain=twins.draw):
        drawn.append(seed)
        return plain(of, x_ND, seed)

    monkeypatch.setattr(twins, "draw", draw)
    first = work(tmp_path, sae).twin(SITE)
    assert (first.id, first.site) == (base.RANDOM_SAE, SITE)
    x_ND = FakeStore().read(SITE, fakes.dataset("a", 60).texts)
    often = [(np.asarray(checkpoints.encode(one.sae, x_ND)) > 0).sum(0) for one in (sae, first)]
    np.testing.assert_array_equal(*often)
    # Another processor would draw other floats: the kept ones count.
    monkeypatch.setattr(
        twins, "draw", lambda *args: pytest.fail("the random SAE was drawn a second time")
    )
    again = work(tmp_path, sae)
    assert again.twin(SITE).digest == first.digest
    assert again.sae_digest(base.RANDOM_SAE, SITE) != again.twin(SITE).digest
    monkeypatch.setattr(twins, "draw", draw)
    # Another seed, SAE, site or set of prompts: another one beside it.
    moved = dataclasses.replace(sae, site=OTHER)
    for changed in (
        work(tmp_path, sae, seed=43),
        work(tmp_path, fakes.loaded_sae(SITE, seed=1)),
        work(tmp_path, sae, names=("a", "b")),
    ):
        assert changed.twin(SITE).digest != first.digest
    work(tmp_path, moved).twin(OTHER)
    assert len(drawn) == len(list((tmp_path / "saes").iterdir())) == 5
    assert work(tmp_path, sae).twin(SITE).digest == first.digest
    with pytest.raises(ValueError, match=r"no SAE of the run reads blocks\.2"):
        work(tmp_path, sae).twin(OTHER)


def test_what_auto_was_settled_to_counts_from_then_on(tmp_path, monkeypatch):
    assert work(tmp_path / "asked").fit_dtype("float32") == "float32"
    assert not (tmp_path / "asked").exists()
    here = work(tmp_path)
    first = here.fit_dtype("auto")
    assert first == grid.resolve_dtype("auto")
    assert not list(tmp_path.iterdir())  # a job may still be refused
    here.begin()
    other = {"float32": "float64", "float64": "float32"}[first]
    monkeypatch.setattr(workspace.grid, "resolve_dtype", lambda asked: other)
    assert here.fit_dtype("auto") == work(tmp_path).fit_dtype("auto") == first
    work(tmp_path).begin()
    assert work(tmp_path).fit_dtype("auto") == first
    # Two starts at once: who comes first is heard by both.
    late = work(tmp_path / "new")
    assert late.fit_dtype("auto") == other
    monkeypatch.setattr(workspace.grid, "resolve_dtype", lambda asked: first)
    work(tmp_path / "new").begin()
    late.begin()
    assert late.fit_dtype("auto") == first


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("66_living-room", "66_living-room"), ("../../etc", "_.._etc"), ("é \0", "___"), ("..", "_")],
)
def test_a_datasets_name_is_part_of_a_files(name, wanted, tmp_path):
    assert workspace.file_name(name) == wanted
    assert (Place.parse(tmp_path) / f"{workspace.file_name(name)}-1").local.parent == tmp_path
    assert len(workspace.file_name("x" * 999)) == 60
