"""Loading and saving SAE files: Gemma Scope's layout made with NumPy, our own read back."""

import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from jaxprobe import assets, checkpoints
from jaxprobe.base import Site
from jaxprobe.saes import jump_relu

FOLDER = "gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82"


def published_arrays(d_model=6, d_sae=10):
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    return {
        "W_enc": draw(d_model, d_sae),
        "W_dec": draw(d_sae, d_model),
        "b_enc": draw(d_sae),
        "b_dec": draw(d_model),
        "threshold": np.abs(draw(d_sae)),
    }


def write_published(root, arrays):
    folder = root / FOLDER
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **arrays)
    return folder


def test_gemma_scope_folder(tmp_path):
    arrays = published_arrays()
    loaded = checkpoints.load_sae(write_published(tmp_path, arrays))
    assert loaded.id == FOLDER
    assert loaded.site == Site.parse("blocks.12.resid_post")
    assert loaded.expected_l0 == 82.0
    x_ND = np.random.default_rng(1).normal(size=(9, 6)).astype(np.float32)
    pre_NS = x_ND @ arrays["W_enc"] + arrays["b_enc"]
    expected_NS = np.maximum(pre_NS, 0) * (pre_NS > arrays["threshold"])
    z_NS = jump_relu.encode(loaded.sae, x_ND)
    np.testing.assert_allclose(z_NS, expected_NS, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        jump_relu.decode(loaded.sae, z_NS),
        expected_NS @ arrays["W_dec"] + arrays["b_dec"],
        rtol=1e-5,
        atol=1e-5,
    )


def test_gemma_scope_from_the_hub(tmp_path, monkeypatch):
    # The Hub's cache lays a snapshot out under a folder that names neither owner nor repository.
    snapshot = tmp_path / "models--google--gemma-scope-2b-pt-res" / "snapshots" / "0123abc"
    folder = snapshot / "layer_12" / "width_16k" / "average_l0_82"
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **published_arrays())
    asked = []
    monkeypatch.setattr(assets, "fetch", lambda uri: asked.append(uri) or folder)
    uri = f"hf://google/{FOLDER}"
    loaded = checkpoints.load_sae(uri)
    assert asked == [uri]
    assert (loaded.id, str(loaded.site), loaded.expected_l0) == (FOLDER, "blocks.12.resid_post", 82)
    assert loaded.source == uri


@pytest.mark.parametrize(("name", "stream"), [("mlp", "mlp_out"), ("att", "attn_z")])
def test_gemma_scope_other_streams(tmp_path, name, stream):
    folder = tmp_path / FOLDER.replace("-res", f"-{name}")
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **published_arrays())
    assert checkpoints.load_sae(folder).site == Site(block=12, stream=stream)


def test_gemma_scope_refusals(tmp_path):
    arrays = published_arrays()
    folder = write_published(tmp_path, {k: v for k, v in arrays.items() if k != "threshold"})
    with pytest.raises(ValueError, match=r"lacks threshold and has W_enc, W_dec"):
        checkpoints.load_sae(folder)
    np.savez(folder / "params.npz", **{**arrays, "W_dec": arrays["W_dec"].T})
    with pytest.raises(ValueError, match=r"`W_dec_SD` must have shape \(10, 6\), got \(6, 10\)"):
        checkpoints.load_sae(folder)
    whole = (folder / "params.npz").read_bytes()
    (folder / "params.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cut short"):
        checkpoints.load_sae(folder)


def test_pickled_arrays_are_never_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    trapped = {**published_arrays(), "threshold": np.array([Trap()], dtype=object)}
    np.savez(folder / "params.npz", **trapped)
    with pytest.raises(ValueError, match=r"must hold numbers, got object; objects \(pickles\)"):
        checkpoints.load_sae(folder)
    np.asarray([Trap()], dtype=object).dump(folder / "params.npz")  # a bare pickle, no archive
    with pytest.raises(ValueError, match=r"params.npz cannot be read as an .npz"):
        checkpoints.load_sae(folder)
    assert not (tmp_path / "sprung").exists()


def make_sae():
    arrays = published_arrays()
    fields = {"W_enc": "W_enc_DS", "b_enc": "b_enc_S", "W_dec": "W_dec_SD", "b_dec": "b_dec_D"}
    renamed = {fields.get(key, "threshold_S"): value for key, value in arrays.items()}
    return jump_relu.JumpReluSae(**renamed)


def test_native_round_trip(tmp_path):
    sae = make_sae()
    metadata = {
        "id": "tiny",
        "site": "blocks.3.resid_post",
        "model": "fake",
        "expected_l0": 12.5,
        "training": {"steps": 7, "heldout": {"all_tokens": 0.75}},
    }
    path = checkpoints.save_sae(tmp_path / "saes" / "tiny", sae, metadata)
    loaded = checkpoints.load_sae(path.parent)
    for name, value in vars(sae).items():
        np.testing.assert_array_equal(getattr(loaded.sae, name), value)
    assert (loaded.id, str(loaded.site), loaded.expected_l0) == ("tiny", metadata["site"], 12.5)
    assert loaded.metadata["training"] == metadata["training"]
    # Read independently: the arrays and the header are what other tools will see.
    arrays = safetensors.numpy.load_file(path)
    assert sorted(arrays) == ["W_dec", "W_enc", "b_dec", "b_enc", "threshold"]
    length = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]
    assert json.loads(header["jaxprobe"])["d_sae"] == 10
    assert [p.name for p in path.parent.iterdir()] == ["sae.safetensors"]


def test_native_bytes_are_the_same_in_another_process(tmp_path):
    sae = make_sae()
    metadata = {key: 1 for key in "abcdefgh"}
    first = checkpoints.save_sae(tmp_path / "one", sae, metadata).read_bytes()
    program = (
        "import sys; from jaxprobe import checkpoints as c; l = c.load_sae(sys.argv[1]);"
        "c.save_sae(sys.argv[2], l.sae, {k: 1 for k in 'hgfedcba'})"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "one"), str(tmp_path / "two")]
    subprocess.run(command, check=True)
    assert (tmp_path / "two" / "sae.safetensors").read_bytes() == first


def test_native_refusals(tmp_path):
    path = checkpoints.save_sae(tmp_path / "sae", make_sae(), {})
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(ValueError, match="cannot be read as a safetensors file"):
        checkpoints.load_sae(path)
    path.write_bytes(whole.replace(b'\\"format_version\\": 2', b'\\"format_version\\": 9'))
    with pytest.raises(ValueError, match="must have format version 1 or 2, got 9"):
        checkpoints.load_sae(path)
    safetensors.numpy.save_file(published_arrays(), path)
    with pytest.raises(ValueError, match="not written by jaxprobe"):
        checkpoints.load_sae(path)


def test_nothing_there(tmp_path):
    (tmp_path / "readme.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"exactly one of.*params.npz.*sae.safetensors.*readme"):
        checkpoints.load_sae(tmp_path)
    with pytest.raises(
        ValueError, match=r"ends in .npz, .safetensors, .pt or .pth, got readme.txt"
    ):
        checkpoints.load_sae(tmp_path / "readme.txt")
