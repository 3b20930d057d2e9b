"""SAEs and training states at places that are no paths, and through planted links."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxprobe as jp
from jaxprobe import boundary
from jaxprobe.checkpoints import bos_setting, native, save_sae, training_state
from jaxprobe.place import Place

METADATA = {"id": "mine", "site": "blocks.1.resid_post", "prepend_bos": True, "expected_l0": 2.0}


@pytest.fixture(params=["path", "memory"])
def saes(request, tmp_path):
    root = tmp_path / "work" if request.param == "path" else f"memory://places_test/{tmp_path.name}"
    return Place.parse(root) / "saes"


def an_sae():
    draw = np.random.default_rng(0)
    arrays = {name: draw.normal(size=size) for name, size in (("enc", (4, 6)), ("dec", (6, 4)))}
    return jp.JumpReluSae(
        W_enc_DS=jnp.asarray(arrays["enc"], jnp.float32),
        b_enc_S=jnp.zeros(6),
        W_dec_SD=jnp.asarray(arrays["dec"], jnp.float32),
        b_dec_D=jnp.ones(4),
        threshold_S=jnp.full(6, 0.5),
    )


def test_an_sae_comes_back_from_any_place(saes):
    written = save_sae(saes / "a", an_sae(), METADATA)
    assert written == saes / "a" / native.FILE_NAME
    for source in (saes / "a", written, str(saes / "a"), str(written)):
        loaded = jp.load_sae(source)
        assert loaded.sae == an_sae()
        assert (loaded.id, str(loaded.site), loaded.bos) == ("mine", "blocks.1.resid_post", "on")
        assert bos_setting(source) == "on"
    assert jp.load_sae(saes / "a", id="other").id == "other"


def test_a_damaged_or_absent_sae_is_named(saes):
    written = save_sae(saes / "a", an_sae(), METADATA)
    content = bytearray(written.read())
    content[-1] ^= 1
    written.replace(bytes(content))
    with pytest.raises(boundary.FileError, match=r"saes/a/sae\.safetensors does not hold what was"):
        jp.load_sae(written)
    written.replace(bytes(content[:50]))
    with pytest.raises(boundary.FileError, match=r"sae\.safetensors"):
        jp.load_sae(written)
    written.delete()
    with pytest.raises((ValueError, OSError, jp.assets.AssetError), match="saes/a"):
        jp.load_sae(written)


@pytest.mark.parametrize("layout", ["sae_lens", "gemma_scope"])
def test_other_layouts_are_written_to_any_place(saes, tmp_path, layout):
    written = save_sae(saes / "a", an_sae(), layout=layout)
    plain = save_sae(tmp_path / "plain", an_sae(), layout=layout)
    assert plain.parent == tmp_path / "plain"
    assert (saes / "a").children() == sorted(path.name for path in plain.parent.iterdir())
    assert written.read() == plain.read_bytes()


def test_a_training_state_comes_back_from_any_place(saes):
    state, where = {"step": jnp.arange(3), "w": jnp.ones((2, 2))}, saes / "a/state.safetensors"
    training_state.save(where, state, {"run": 1})
    found = training_state.load(where, state, {"run": 1})
    assert found["step"].tolist() == [0, 1, 2] and found["w"].tolist() == [[1, 1], [1, 1]]
    with pytest.raises(ValueError, match=r"state\.safetensors was written with run = 1"):
        training_state.load(where, state, {"run": 2})
    where.replace(where.read()[:-1] + b"x")
    with pytest.raises(boundary.FileError, match="does not hold what was written"):
        training_state.load(where, state, {"run": 1})


@pytest.mark.parametrize("name", ["sae.safetensors", ".sae.safetensors.partial"])
def test_an_sae_is_not_saved_through_a_planted_link(tmp_path, name):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).symlink_to(tmp_path / "precious")
    for save in (
        lambda: save_sae(tmp_path / "a", an_sae()),
        lambda: training_state.save(tmp_path / "a" / name, {"w": jnp.ones(2)}, {}),
    ):
        save()
        assert (tmp_path / "precious").read_text() == "precious"
    outside = Place.parse(tmp_path / "work") / "saes"
    (outside / "begun").replace(b"")
    (tmp_path / "elsewhere").mkdir()
    (outside / "b").local.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link is in the place of a folder"):
        save_sae(outside / "b", an_sae())
    assert list((tmp_path / "elsewhere").iterdir()) == []
