"""BOS through the stages: one setting a run, in the fingerprint, and never two kinds in one directory."""

import dataclasses
import functools
import logging

import numpy as np
import pytest

from jaxprobe import checkpoints, models
from jaxprobe.base import Site
from jaxprobe.experiments import config
from jaxprobe.extraction.request import Request
from jaxprobe.jobs import Need
from jaxprobe.place import Place
from jaxprobe.stages import extract as stage
from jaxprobe.stages import preflight, settling
from jaxprobe.stages import run as running
from jaxprobe.store import StoreError
from jaxprobe.workdir import Workdir
from jaxprobe.workspace import Workspace
from tests import fakes
from tests.extraction.in_memory_test import Unopened

SITE = Site(block=1, stream="resid_post")
TEXTS = fakes.dataset("a", 24).texts


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return fakes.write_csv(tmp_path_factory.mktemp("sets"), fakes.dataset("a", 24))


def extract(workdir, bos="auto", tokenizer=None, **options):
    """An extraction; options in place of the model make it the second start, which knows its identity alone."""
    common = config.Common(
        model="fake", dtype="float32", bos=bos, extract=config.Extract(batch_tokens=256)
    )
    request = Request.of([Need(texts=TEXTS, taps=((SITE, "last"),))])
    given = {"model": fakes.FakeModel(tokenizer=tokenizer or Unopened())}
    place = Place.parse(workdir) / "activations"
    more = options or given
    return stage.run(common, request, place, make_forward=fakes.make_forward, **more)


def again(workdir, bos):
    return extract(workdir, bos, identify=lambda source, dtype: fakes.FakeModel())


@pytest.mark.parametrize("tokenizer", [fakes.FakeTokenizer(), Unopened()])
def test_settings_that_mean_the_same_share_a_store_and_others_do_not(tmp_path, tokenizer):
    same = "off" if tokenizer.bos_id is None else "on"
    other = "on" if same == "off" else "off"
    first = extract(tmp_path, tokenizer=tokenizer)
    assert "bos_by_files" not in first.fingerprint  # as it was before there was a setting
    for bos in ("auto", same):
        assert again(tmp_path, bos).digest == first.digest
        assert extract(tmp_path, bos, tokenizer).digest == first.digest
    for start in (again, functools.partial(extract, tokenizer=tokenizer)):
        with pytest.raises(StoreError, match="bos: wanted"):
            start(tmp_path, other)
    changed = extract(tmp_path / "other", other, tokenizer)
    assert again(tmp_path / "other", other).digest == changed.digest
    for bos in ("auto", same):
        with pytest.raises(StoreError, match="bos: wanted"):
            again(tmp_path / "other", bos)
    first_id = [] if other == "off" else [3]
    ids = [[*first_id, *fakes.FakeTokenizer().encode(text)] for text in TEXTS]
    wanted = np.stack([fakes.activations(np.array(row), SITE)[-1] for row in ids])
    np.testing.assert_array_equal(changed.read(SITE, TEXTS), wanted)


def save(folder, prepend_bos):
    sae = fakes.loaded_sae(SITE)
    more = {} if prepend_bos is None else {"prepend_bos": prepend_bos}
    checkpoints.save_sae(folder, sae, {"id": folder.name, "site": str(SITE), **more})
    return str(folder)


def config_of(path, *saes, **changes):
    return running.RunConfig.from_mapping(
        {
            "model": "fake",
            "dtype": "float32",
            "site": str(SITE),
            "datasets": (path,),
            "saes": saes,
            "fit": {"num_latents": (2,), "controls": False},
            **changes,
        }
    )


def test_a_run_takes_what_its_saes_say(path, tmp_path, caplog):
    on, off, silent = (
        save(tmp_path / name, bos) for name, bos in (("on", True), ("off", False), ("silent", None))
    )

    def setting(*saes, **changes):
        return settling.with_agreed_bos(config_of(path, *saes, **changes).job).bos

    assert setting() == setting(silent) == "auto"
    assert setting(on) == "on"
    assert setting(off) == "off"
    with pytest.raises(ValueError, match="set bos to on or off") as error:
        running.run(config_of(path, off, silent, on), tmp_path / "work")
    assert on in str(error.value)
    assert off in str(error.value)
    assert not (tmp_path / "work").exists()  # before any work
    with caplog.at_level(logging.WARNING):
        assert setting(on, off, bos="on") == "on"
    assert f"SAE {off} was trained with BOS off" in caplog.text
    with pytest.raises(ValueError, match="unknown bos 'yes'"):
        setting(bos="yes")


def test_activations_of_another_kind_are_refused_before_they_are_encoded(path, tmp_path):
    store = extract(tmp_path)
    saes = [checkpoints.load_sae(save(tmp_path / "on", True))]
    auto, by_hand = (config_of(path, bos=bos).job for bos in ("auto", "off"))
    workspace = Workspace(Workdir.parse(tmp_path), load_saes=lambda: saes)
    with pytest.raises(ValueError, match="SAE on was trained with BOS on, and the activations in"):
        preflight.check_training(auto, workspace)
    preflight.check_training(by_hand, workspace)  # told already by `agreed_bos`
    assert store.fingerprint["bos"] is None


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_centred_activations_of_a_model_without_layer_norm_are_refused(
    path, tmp_path, monkeypatch, norm
):
    extract(tmp_path)
    sae = dataclasses.replace(fakes.loaded_sae(SITE), centred=True)
    workspace = Workspace(Workdir.parse(tmp_path), load_saes=lambda: [sae])
    monkeypatch.setattr(models, "identify", lambda source, dtype: fakes.FakeModel(norm=norm))
    if norm == "layer":
        preflight.check_training(config_of(path).job, workspace)
        return
    with pytest.raises(ValueError, match="TransformerLens leaves out for models without LayerNorm"):
        preflight.check_training(config_of(path).job, workspace)
