"""BOS through the stages: one setting a run, in the fingerprint, and never two kinds in one directory."""

import dataclasses
import functools
import json
import logging

import numpy as np
import pytest

from jaxprobe import checkpoints
from jaxprobe.base import Site
from jaxprobe.stages import extract as stage
from jaxprobe.stages import run as running
from jaxprobe.store import MANIFEST, StoreError
from tests import fakes
from tests.stages.in_memory_test import Unopened
from tests.stages.run_test import Identity

SITE = Site(block=1, stream="resid_post")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return fakes.write_csv(tmp_path_factory.mktemp("sets"), fakes.dataset("a", 24))


def extract(path, workdir, bos="auto", tokenizer=None):
    config = stage.ExtractConfig(datasets=(path,), sites=(str(SITE),), batch_tokens=256, bos=bos)
    model = fakes.FakeModel(tokenizer=tokenizer or Unopened())
    return stage.extract(config, workdir, model=model, make_forward=fakes.make_forward)


def again(path, workdir, bos):
    """The second start, which knows the model's identity and not its tokenizer."""
    config = stage.ExtractConfig(
        model="fake", dtype="float32", datasets=(path,), sites=(str(SITE),), batch_tokens=256
    )
    config = dataclasses.replace(config, bos=bos)
    return stage.extract(config, workdir, identify=lambda source, dtype: Identity())


@pytest.mark.parametrize("tokenizer", [fakes.FakeTokenizer(), Unopened()])
def test_settings_that_mean_the_same_share_a_store_and_others_do_not(path, tmp_path, tokenizer):
    same = "off" if tokenizer.bos_id is None else "on"
    other = "on" if same == "off" else "off"
    first = extract(path, tmp_path, tokenizer=tokenizer)
    assert "bos_by_files" not in first.fingerprint  # as it was before there was a setting
    for bos in ("auto", same):
        assert again(path, tmp_path, bos).digest == first.digest
        assert extract(path, tmp_path, bos, tokenizer).digest == first.digest
    for start in (again, functools.partial(extract, tokenizer=tokenizer)):
        with pytest.raises(StoreError, match="bos: wanted"):
            start(path, tmp_path, other)
    changed = extract(path, tmp_path / "other", other, tokenizer)
    assert again(path, tmp_path / "other", other).digest == changed.digest
    for bos in ("auto", same):
        with pytest.raises(StoreError, match="bos: wanted"):
            again(path, tmp_path / "other", bos)
    texts = fakes.dataset("a", 24).texts
    first_id = [] if other == "off" else [3]
    ids = [[*first_id, *fakes.FakeTokenizer().encode(text)] for text in texts]
    wanted = np.stack([fakes.activations(np.array(row), SITE)[-1] for row in ids])
    np.testing.assert_array_equal(changed.read(SITE, texts), wanted)


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
    setting = lambda *saes, **changes: running.to_extract(config_of(path, *saes, **changes)).bos
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
    store = extract(path, tmp_path)
    saes = [checkpoints.load_sae(save(tmp_path / "on", True))]
    auto, by_hand = (config_of(path, bos=bos).extract for bos in ("auto", "off"))
    with pytest.raises(ValueError, match="SAE on was trained with BOS on, and the activations in"):
        running._check_training(auto, store, saes)
    running._check_training(by_hand, store, saes)  # told already by `agreed_bos`
    manifest = json.loads((store.root / MANIFEST).read())
    assert manifest["fingerprint"]["bos"] is None


def test_centred_activations_of_a_model_without_layer_norm_are_refused(path, tmp_path, monkeypatch):
    store, config = extract(path, tmp_path), config_of(path).extract
    sae = dataclasses.replace(fakes.loaded_sae(SITE), centred=True)
    for norm in ("layer", "rms"):
        found = dataclasses.make_dataclass("Found", ["norm"])(norm)
        monkeypatch.setattr(running.models, "identify", lambda source, dtype, found=found: found)
        if norm == "layer":
            running._check_training(config, store, [sae])
    with pytest.raises(ValueError, match="TransformerLens leaves out for models without LayerNorm"):
        running._check_training(config, store, [sae])
