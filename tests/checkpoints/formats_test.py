"""Each published layout, written by hand, against its formulas in NumPy: no library needed."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from jaxprobe import assets, checkpoints, saes
from tests.checkpoints import torch_writer

D, S, N, K = 10, 36, 40, 5
RESID = "blocks.12.hook_resid_post"


def draw(*shape, seed=0, scale=1.0):
    rng = np.random.default_rng([seed, *shape])
    return (rng.normal(size=shape) * scale).astype(np.float32)


X_ND = draw(N, D, seed=9, scale=2.0) + np.where(np.arange(D) == 3, 15, 0).astype(np.float32)


def put(folder, name, arrays, **configs):
    """Writes weights and JSON files."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".safetensors"):
        safetensors.numpy.save_file({k: np.asarray(v, order="C") for k, v in arrays.items()}, path)
    elif name.endswith(".npz"):
        np.savez(path, **arrays)
    else:
        torch_writer.write(path, arrays)
    for stem, content in configs.items():
        (folder / f"{stem}.json").write_text(json.dumps(content))
    return folder


def wide(arrays):
    return {name: np.asarray(array).astype(np.float64) for name, array in arrays.items()}


def check(loaded, z_NS, y_ND, x_ND=X_ND):
    """Latents (whole and in blocks) and reconstructions agree."""
    assert 0.02 < (z_NS != 0).mean() < 0.9
    got_NS = np.asarray(saes.encode(loaded.sae, x_ND))
    np.testing.assert_array_equal(got_NS != 0, z_NS != 0)
    np.testing.assert_allclose(got_NS, z_NS, rtol=1e-5, atol=1e-5 * np.abs(z_NS).max())
    got_ND = np.asarray(saes.decode(loaded.sae, got_NS, x_ND))
    np.testing.assert_allclose(got_ND, y_ND, rtol=1e-5, atol=2e-5 * np.abs(y_ND).max())
    encoder = saes.prepare(loaded.sae, x_ND)
    blocks = [encoder(start, start + 16) for start in range(0, S, 16)]
    np.testing.assert_allclose(np.concatenate(blocks, axis=1), z_NS, rtol=1e-4, atol=1e-3)


def top(pre_NS, k, size=lambda a: a):
    """Keeps each row's k largest, by a stable full sort."""
    order = np.argsort(-size(pre_NS), axis=1, kind="stable")[:, :k]
    z_NS = np.zeros_like(pre_NS)
    np.put_along_axis(z_NS, order, np.take_along_axis(pre_NS, order, 1), 1)
    return z_NS


def gemma_2_arrays(d_out=D):
    return {
        "w_enc": draw(D, S),
        "w_dec": draw(S, d_out),
        "b_enc": draw(S),
        "b_dec": draw(d_out),
        "threshold": np.abs(draw(S)) * 8,
    }


@pytest.mark.parametrize(
    ("name", "site", "hook"),
    [
        ("resid_post", "blocks.7.resid_post", "model.layers.7.output"),
        ("mlp_out", "blocks.7.mlp_out", "model.layers.7.post_feedforward_layernorm.output"),
        ("attn_out", "blocks.7.attn_z", "model.layers.7.self_attn.o_proj.input"),
        ("transcoder", "blocks.7.mlp_in", "model.layers.7.pre_feedforward_layernorm.output"),
    ],
)
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("every", ["", "_all"])
def test_gemma_scope_2(tmp_path, name, site, hook, affine, every):
    if affine and name != "transcoder":
        pytest.skip("only transcoders have a skip connection")
    arrays = gemma_2_arrays()
    if affine:
        arrays["affine_skip_connection"] = draw(D, D, seed=4)
    tail = f"{name}{every}/layer_7_width_16k_l0_small{'_affine' if affine else ''}"
    folder = put(tmp_path / "gemma-scope-2-1b-pt" / tail, "params.safetensors", arrays)
    w = wide(arrays)
    pre_NS = X_ND @ w["w_enc"] + w["b_enc"]
    z_NS = np.maximum(pre_NS, 0) * (pre_NS > w["threshold"])
    y_ND = z_NS @ w["w_dec"] + w["b_dec"]
    if affine:
        y_ND = y_ND + X_ND @ w["affine_skip_connection"]
    for config in (
        None,
        {
            "hf_hook_point_in": hook,
            "architecture": "jump_relu",
            "type": "transcoder" if name == "transcoder" else "sae",
            "l0": 17,
            "affine_connection": affine,
        },
    ):
        if config:
            (folder / "config.json").write_text(json.dumps(config))
        loaded = checkpoints.load_sae(folder)
        check(loaded, z_NS, y_ND)
        assert (str(loaded.site), loaded.architecture) == (site, "jump_relu")
        assert loaded.expected_l0 == (17 if config else None)
        assert loaded.id == f"gemma-scope-2-1b-pt/{tail}"
        if name == "transcoder":
            assert loaded.metadata["output_site"] == "blocks.7.mlp_out"
    # Somewhere else the config alone says it.
    moved = put(tmp_path / "moved", "params.safetensors", arrays, config=config)
    assert str(checkpoints.load_sae(moved).site) == site


def test_gemma_scope_2_from_the_hub(tmp_path, monkeypatch):
    tail = "resid_post/layer_12_width_16k_l0_small"
    folder = tmp_path / "models--google--gemma-scope-2-270m-pt" / "snapshots" / "0a1b" / tail
    put(folder, "params.safetensors", gemma_2_arrays())
    monkeypatch.setattr(assets, "fetch", lambda uri: folder)
    loaded = checkpoints.load_sae(f"hf://google/gemma-scope-2-270m-pt/{tail}")
    assert loaded.id == f"gemma-scope-2-270m-pt/{tail}"
    assert str(loaded.site) == "blocks.12.resid_post"


CLT = {
    "hf_hook_point_in": "model.layers.{all}.pre_feedforward_layernorm.output",
    "hf_hook_point_out": "model.layers.{all}.post_feedforward_layernorm.output",
    **{"width": 262080, "architecture": "jump_relu", "l0": 150, "type": "clt"},
}
CROSSCODER = {
    "hf_hook_point_in": "model.layers.{5,9,12,15}.output",
    "hf_hook_point_out": "model.layers.{5,9,12,15}.output",
    **{"width": 1048576, "architecture": "jump_relu", "l0": 150, "affine_connection": False},
    "type": "crosscoder",
}
CLT_FOLDER = "gemma-scope-2-1b-pt/clt/width_262k_l0_medium"
CROSSCODER_FOLDER = "gemma-scope-2-270m-pt/crosscoder/layer_5_9_12_15_width_65k_l0_medium"


def layer_arrays(num_layers):
    return {**gemma_2_arrays(), "w_dec": draw(S, num_layers, D)}


@pytest.mark.parametrize("affine", [False, True])
def test_a_layer_of_a_gemma_scope_2_clt(tmp_path, monkeypatch, affine):
    arrays = layer_arrays(6)
    if affine:
        arrays["affine_skip_connection"] = draw(D, D, seed=4)
    where = CLT_FOLDER + ("_affine" if affine else "")
    folder = put(tmp_path / where, "params_layer_3.safetensors", arrays)
    w = wide(arrays)
    pre_NS = X_ND @ w["w_enc"] + w["b_enc"]
    z_NS = np.maximum(pre_NS, 0) * (pre_NS > w["threshold"])
    y_ND = z_NS @ w["w_dec"].sum(1) + w["b_dec"]
    if affine:
        y_ND = y_ND + X_ND @ w["affine_skip_connection"]
    config = {**CLT, "affine_connection": affine}
    moved = put(tmp_path / "moved", "params_layer_3.safetensors", arrays, config=config)
    for path in (folder / "params_layer_3.safetensors", moved / "params_layer_3.safetensors"):
        loaded = checkpoints.load_sae(path)
        check(loaded, z_NS, y_ND)
        assert str(loaded.site) == "blocks.3.mlp_in" and loaded.expected_l0 is None
        assert loaded.metadata["output_site"] == "blocks.3.mlp_out"
    path = folder / "params_layer_3.safetensors"
    monkeypatch.setattr(assets, "fetch", lambda uri: path)
    loaded = checkpoints.load_sae(f"hf://google/{where}/params_layer_3.safetensors")
    assert loaded.id == f"{where}/params_layer_3.safetensors"
    # Exported, it stays a transcoder.
    checkpoints.save_sae(tmp_path / "exported", loaded, {}, layout="sae_lens")
    config = json.loads((tmp_path / "exported" / "cfg.json").read_text())
    assert config["architecture"] == f"jumprelu_{'skip_' if affine else ''}transcoder"
    assert config["metadata"]["hook_name_out"] == "blocks.3.hook_mlp_out"


def test_a_layer_of_a_gemma_scope_2_crosscoder(tmp_path):
    arrays = layer_arrays(4)
    name = "params_layer_2.safetensors"
    w = wide(arrays)
    pre_NS = X_ND @ w["w_enc"] + w["b_enc"]
    z_NS = np.maximum(pre_NS, 0) * (pre_NS > w["threshold"])
    y_ND = z_NS @ w["w_dec"][:, 2] + w["b_dec"]
    put(tmp_path / CROSSCODER_FOLDER, name, arrays)
    put(tmp_path / "moved", name, arrays, config=CROSSCODER)
    for folder in (CROSSCODER_FOLDER, "moved"):
        loaded = checkpoints.load_sae(tmp_path / folder / name)
        check(loaded, z_NS, y_ND)
        assert str(loaded.site) == "blocks.12.resid_post" and loaded.expected_l0 is None
        assert "output_site" not in loaded.metadata


def test_gemma_scope_2_layer_refusals(tmp_path):
    folder, name = tmp_path / CROSSCODER_FOLDER, "params_layer_3.safetensors"
    put(folder, name, layer_arrays(4))
    with pytest.raises(ValueError, match=r"holds one file per layer .*name one of them.*layer_3"):
        checkpoints.load_sae(folder)
    put(folder, "params_layer_4.safetensors", layer_arrays(4))
    with pytest.raises(ValueError, match=r"params_layer_4.safetensors must be numbered 0 to 3"):
        checkpoints.load_sae(folder / "params_layer_4.safetensors")
    put(folder, name, layer_arrays(3), config=CROSSCODER)
    with pytest.raises(ValueError, match=r"numbered 0 to 2, by the layers of its `w_dec`"):
        checkpoints.load_sae(folder / name)
    put(folder, "params_layer_0.safetensors", layer_arrays(3))
    with pytest.raises(ValueError, match=r"must name the 3 blocks.*got \[5, 9, 12, 15\]"):
        checkpoints.load_sae(folder / "params_layer_0.safetensors")
    put(folder, name, {**layer_arrays(4), "affine_skip_connection": draw(D, D)})
    with pytest.raises(ValueError, match="also has affine_skip_connection"):
        checkpoints.load_sae(folder / name)
    put(folder, name, gemma_2_arrays())
    with pytest.raises(ValueError, match=r"`w_dec` must have shape \(36, \*, \*\), got \(36, 10\)"):
        checkpoints.load_sae(folder / name)
    put(folder, name, {**layer_arrays(4), "w_dec": draw(S, 4, 7)})
    with pytest.raises(ValueError, match=r"`W_dec_SD` must have shape \(36, 10\), got \(36, 7\)"):
        checkpoints.load_sae(folder / name)
    clt = put(tmp_path / CLT_FOLDER, name, layer_arrays(6), config={**CLT, "architecture": "topk"})
    with pytest.raises(
        ValueError, match=r"a jump_relu clt or crosscoder.*got type 'clt' and .*topk"
    ):
        checkpoints.load_sae(clt / name)
    put(clt, name, layer_arrays(6), config={**CLT, "affine_connection": True})
    with pytest.raises(ValueError, match="must hold affine_skip_connection, as its config says"):
        checkpoints.load_sae(clt / name)
    affine = put(tmp_path / f"{CLT_FOLDER}_affine", name, layer_arrays(6))
    with pytest.raises(ValueError, match="must hold affine_skip_connection, as its config says"):
        checkpoints.load_sae(affine / name)
    put(tmp_path / "bare", name, layer_arrays(6))
    with pytest.raises(ValueError, match=r"as its config.json or its folders say; got type None"):
        checkpoints.load_sae(tmp_path / "bare" / name)


def test_gemma_scope_2_refusals(tmp_path):
    arrays = gemma_2_arrays()
    folder = tmp_path / "resid_post" / "layer_3_width_16k_l0_big"
    put(folder, "params.safetensors", {**arrays, "w_dec": arrays["w_dec"].T})
    with pytest.raises(ValueError, match=r"`W_dec_SD` must have shape \(36, 10\), got \(10, 36\)"):
        checkpoints.load_sae(folder)
    put(folder, "params.safetensors", {k: v for k, v in arrays.items() if k != "b_enc"})
    with pytest.raises(ValueError, match="it lacks b_enc and has b_dec, threshold, w_dec, w_enc"):
        checkpoints.load_sae(folder)
    put(folder, "params.safetensors", {**arrays, "scale": draw(S)})
    with pytest.raises(ValueError, match="also has scale, whose meaning is not known"):
        checkpoints.load_sae(folder)
    put(folder, "params.safetensors", arrays, config={"architecture": "topk", "type": "sae"})
    with pytest.raises(ValueError, match=r"must describe a jump_relu sae.*'topk'"):
        checkpoints.load_sae(folder)
    put(folder, "params.safetensors", arrays, config={"architecture": "jump_relu", "type": "clt"})
    with pytest.raises(ValueError, match=r"describes a clt, .*got params.safetensors instead"):
        checkpoints.load_sae(folder)


def test_gemma_scope_transcoders_have_their_own_names_and_width(tmp_path):
    folder = tmp_path / "gemma-scope-2b-pt-transcoders" / "layer_4" / "width_16k" / "average_l0_9"
    arrays = gemma_2_arrays(d_out=7)
    put(folder, "params.npz", arrays)
    w = wide(arrays)
    pre_NS = X_ND @ w["w_enc"] + w["b_enc"]
    z_NS = np.maximum(pre_NS, 0) * (pre_NS > w["threshold"])
    loaded = checkpoints.load_sae(folder)
    check(loaded, z_NS, z_NS @ w["w_dec"] + w["b_dec"])
    assert (str(loaded.site), loaded.expected_l0) == ("blocks.4.mlp_in", 9)
    assert loaded.metadata["output_site"] == "blocks.4.mlp_out"


def test_gemma_scope_embedding_reads_scaled_embeddings(tmp_path):
    folder = tmp_path / "gemma-scope-2b-pt-res" / "embedding" / "width_4k" / "average_l0_6"
    arrays = gemma_2_arrays()
    arrays["threshold"] /= 4
    renamed = {k.replace("w_", "W_"): v for k, v in arrays.items()}
    put(folder, "params.npz", renamed)
    w, root = wide(arrays), np.sqrt(D)
    pre_NS = X_ND @ (w["w_enc"] / root) + w["b_enc"]
    z_NS = np.maximum(pre_NS, 0) * (pre_NS > w["threshold"])
    loaded = checkpoints.load_sae(folder)
    check(loaded, z_NS, z_NS @ (w["w_dec"] * root) + w["b_dec"])
    assert (str(loaded.site), loaded.expected_l0) == ("embed", 6)


def llama_arrays(dtype=ml_dtypes.bfloat16):
    return {
        "encoder.weight": draw(S, D).astype(dtype),
        "encoder.bias": draw(S).astype(dtype),
        "decoder.weight": draw(D, S, scale=0.5).astype(dtype),
        "decoder.bias": draw(D).astype(dtype),
    }


def llama_config(**changes):
    return {
        "d_model": D,
        "d_sae": S,
        "hook_point_in": "blocks.15.hook_resid_post",
        "hook_point_out": "blocks.15.hook_resid_post",
        "act_fn": "jumprelu",
        "jump_relu_threshold": 6.0,
        "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": 5.7, "out": 2.3},
        "top_k": 50,
        "use_decoder_bias": True,
        "apply_decoder_bias_to_pre_encoder": False,
        "sparsity_include_decoder_norm": True,
    } | changes


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("transcodes", [True, False])
def test_llama_scope_official(tmp_path, include, transcodes):
    arrays = llama_arrays()
    config = llama_config(sparsity_include_decoder_norm=include)
    if transcodes:
        config |= {
            "hook_point_in": "blocks.15.ln2.hook_normalized",
            "hook_point_out": "blocks.15.hook_mlp_out",
        }
    folder = put(tmp_path / "Llama3_1-8B-Base-L15R-8x", "checkpoints/final.safetensors", arrays)
    (folder / "hyperparams.json").write_text(json.dumps(config))
    w = wide(arrays)
    s_in, s_out = np.sqrt(D) / 5.7, np.sqrt(D) / 2.3
    W_dec = w["decoder.weight"].T * s_in / s_out
    n_S = np.linalg.norm(W_dec, axis=1) if include else np.ones(S)
    pre_NS = n_S * (X_ND @ w["encoder.weight"].T + w["encoder.bias"] / s_in)
    z_NS = np.where(pre_NS > 6.0, pre_NS, 0)
    y_ND = z_NS @ (W_dec / n_S[:, None]) + w["decoder.bias"] / s_out
    for source in (folder, folder / "checkpoints" / "final.safetensors"):
        loaded = checkpoints.load_sae(source)
        check(loaded, z_NS, y_ND)
        assert str(loaded.site) == (
            "blocks.15.mlp_in_unscaled" if transcodes else "blocks.15.resid_post"
        )
        assert loaded.expected_l0 == 50
    # The same gate in normalised space, as FORMATS states it.
    gate_NS = n_S * (s_in * (X_ND @ w["encoder.weight"].T) + w["encoder.bias"]) > 6.0 * s_in
    np.testing.assert_array_equal(gate_NS, z_NS > 0)


def test_llama_scope_refusals(tmp_path):
    folder = put(tmp_path, "checkpoints/final.safetensors", llama_arrays())
    for change, message in (
        ({"act_fn": "gelu"}, "must have as 'act_fn' one of .*\"gelu\""),
        (
            {"norm_activation": "batch-wise"},
            "must have as 'norm_activation' one of .*\"batch-wise\"",
        ),
        ({"dataset_average_activation_norm": None}, "entry 'dataset_average_activation_norm'"),
        ({"hook_point_in": None}, "entry 'hook_point_in'"),
    ):
        (folder / "hyperparams.json").write_text(json.dumps(llama_config(**change)))
        with pytest.raises(ValueError, match=message):
            checkpoints.load_sae(folder)
    with pytest.raises(ValueError, match="unknown llama_scope_gate 'sae_lens'; known: saelens"):
        checkpoints.load_sae(folder, llama_scope_gate="sae_lens")
    # A switch of the published loader: a TopK SAE with a threshold is a JumpReLU SAE.
    (folder / "hyperparams.json").write_text(json.dumps(llama_config(act_fn="topk")))
    assert checkpoints.load_sae(folder).architecture == "jump_relu"


@pytest.mark.parametrize("norm", ["dataset-wise", "token-wise", "inference"])
@pytest.mark.parametrize("new_names", [True, False])
def test_llamascopium(tmp_path, norm, new_names):
    old = llama_arrays(np.float32)
    log_threshold = draw(S, seed=2)
    key = "log_jumprelu_threshold"
    if new_names:
        arrays = {
            "W_E": old["encoder.weight"].T,
            "b_E": old["encoder.bias"],
            "W_D": old["decoder.weight"].T,
            "b_D": old["decoder.bias"],
            f"activation_function.{key}": log_threshold,
        }
    else:
        arrays = {**old, key: log_threshold}
    if norm == "dataset-wise":
        arrays[f"dataset_average_activation_norm.{RESID}"] = np.float32(4.4)
    config = {
        "sae_type": "sae",
        "d_model": D,
        "expansion_factor": S / D,
        "act_fn": "jumprelu",
        "norm_activation": norm,
        "sparsity_include_decoder_norm": True,
        "hook_point_in": RESID,
        "hook_point_out": RESID,
    }
    folder = put(tmp_path, "sae_weights.safetensors", arrays, config=config)
    scale = {
        "dataset-wise": np.sqrt(D) / np.float32(4.4),
        "token-wise": np.sqrt(D) / np.linalg.norm(X_ND.astype(np.float64), axis=1)[:, None],
        "inference": 1.0,
    }[norm]
    w = wide(old)
    pre_NS = scale * X_ND @ w["encoder.weight"].T + w["encoder.bias"]
    n_S = np.linalg.norm(w["decoder.weight"], axis=0)
    z_NS = np.where(pre_NS * n_S > np.exp(log_threshold.astype(np.float64)), pre_NS, 0)
    y_ND = (z_NS @ w["decoder.weight"].T + w["decoder.bias"]) / scale
    loaded = checkpoints.load_sae(folder)
    check(loaded, z_NS, y_ND)
    assert str(loaded.site) == "blocks.12.resid_post"


def test_llamascopium_refusals(tmp_path):
    config = {"act_fn": "jumprelu", "hook_point_in": RESID, "norm_activation": "dataset-wise"}
    arrays = {**llama_arrays(np.float32), "log_jumprelu_threshold": draw(S)}
    folder = put(tmp_path, "sae_weights.safetensors", arrays, config=config)
    with pytest.raises(ValueError, match=r"do not hold the average norm.*norm_scaling_factor"):
        checkpoints.load_sae(folder)
    checkpoints.load_sae(folder, norm_scaling_factor=0.5)
    for change, message in (
        ({"norm_activation": "batch-wise"}, "latents depend on the batch"),
        ({"sae_type": "clt"}, "describes a clt"),
        ({"act_fn": "batchtopk"}, "must have as 'act_fn' one of .*\"batchtopk\""),
        ({"use_glu_encoder": True}, "gated linear unit"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=message):
            checkpoints.load_sae(folder)


def dictionary(kind, **changes):
    """Arrays and config of a dictionary, written by hand."""
    plain = {"W_enc": draw(D, S), "b_enc": draw(S), "W_dec": draw(S, D), "b_dec": draw(D)}
    linear = {"encoder.weight": draw(S, D), "decoder.weight": draw(D, S)}
    biased = {**linear, "encoder.bias": draw(S)}
    topk = {**biased, "b_dec": draw(D, seed=3), "k": np.array(K)}
    threshold = {"threshold": np.array(3.0, np.float32)}
    arrays = {
        "AutoEncoder": {**biased, "bias": draw(D, seed=3)},
        "AutoEncoderNew": {**biased, "decoder.bias": draw(D, seed=3)},
        "GatedAutoEncoder": {
            **linear,
            "decoder_bias": draw(D, seed=3),
            "r_mag": draw(S, seed=5),
            "gate_bias": draw(S, seed=6),
            "mag_bias": draw(S, seed=7),
        },
        "JumpReluAutoEncoder": {**plain, "threshold": np.abs(draw(S, seed=8)) * 9},
        "AutoEncoderTopK": {**topk, "threshold": np.array(-1.0, np.float32)},
        "BatchTopKSAE": {**topk, **threshold},
        "MatryoshkaBatchTopKSAE": {
            **{**plain, "b_dec": draw(D, seed=3), "k": np.array(K)},
            **{"group_sizes": np.array([10, 12, 14]), **threshold},
        },
    }[kind]
    trainer = {"dict_class": kind, "activation_dim": D, "dict_size": S, "layer": 12, "k": K}
    trainer |= {"lm_name": "google/gemma-2-2b", "submodule_name": "resid_post_layer_12"}
    return arrays | changes, {"trainer": trainer, "buffer": {"ctx_len": 128}}


def dictionary_numpy(kind, arrays, groups=3):
    """The library's formulas."""
    w = wide(arrays)
    W_enc = w["W_enc"] if "W_enc" in w else w["encoder.weight"].T
    W_dec = w["W_dec"] if "W_dec" in w else w["decoder.weight"].T
    names = ("bias", "decoder.bias", "decoder_bias", "b_dec")
    b_dec = next(w[name] for name in names if name in w)
    x_ND = X_ND - (0 if kind in ("AutoEncoderNew", "JumpReluAutoEncoder") else b_dec)
    if kind == "GatedAutoEncoder":
        xw_NS = x_ND @ W_enc
        magnitude_NS = np.maximum(np.exp(w["r_mag"]) * xw_NS + w["mag_bias"], 0)
        z_NS = (xw_NS + w["gate_bias"] > 0) * magnitude_NS
        return z_NS, z_NS @ W_dec + b_dec
    pre_NS = np.maximum(x_ND @ W_enc + w.get("b_enc", w.get("encoder.bias")), 0)
    z_NS = pre_NS
    if kind == "AutoEncoderTopK":
        z_NS = top(pre_NS, K)
    elif "threshold" in w:
        z_NS = pre_NS * (pre_NS > w["threshold"])
    if kind.startswith("Matryoshka"):
        z_NS[:, int(w["group_sizes"][:groups].sum()) :] = 0
    y_ND = z_NS @ W_dec + b_dec
    if kind == "AutoEncoder":  # what the library folds as it loads
        z_NS = z_NS * np.linalg.norm(W_dec, axis=1)
    return z_NS, y_ND


KINDS = {
    "AutoEncoder": "relu",
    "AutoEncoderNew": "relu",
    "GatedAutoEncoder": "gated",
    "JumpReluAutoEncoder": "jump_relu",
    "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "batch_topk",
    "MatryoshkaBatchTopKSAE": "matryoshka",
}


@pytest.mark.parametrize("file", ["ae.pt", "ae.safetensors"])
@pytest.mark.parametrize("kind", KINDS)
def test_dictionary_learning(tmp_path, kind, file):
    arrays, config = dictionary(kind)
    folder = put(tmp_path, file, arrays, config=config)
    loaded = checkpoints.load_sae(folder)
    check(loaded, *dictionary_numpy(kind, arrays))
    assert loaded.architecture == KINDS[kind]
    assert str(loaded.site) == "blocks.12.resid_post"
    if kind.startswith("Matryoshka"):
        fewer = checkpoints.load_sae(folder, active_groups=2)
        check(fewer, *dictionary_numpy(kind, arrays, groups=2))
        with pytest.raises(ValueError, match="`active_groups` must lie between 1 and 3, got 4"):
            checkpoints.load_sae(folder, active_groups=4)


def test_dictionary_learning_refusals(tmp_path):
    for kind in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
        arrays, config = dictionary(kind, threshold=np.array(-1.0, np.float32))
        put(tmp_path, "ae.pt", arrays, config=config)
        with pytest.raises(ValueError, match=r"at least 0, got -1.0: it was never set"):
            checkpoints.load_sae(tmp_path)
    arrays, config = dictionary("GatedAutoEncoder")
    put(tmp_path, "ae.pt", arrays, config={**config, "trainer": {"dict_class": "CrossCoder"}})
    with pytest.raises(ValueError, match=r"dict_class of AutoEncoder, .*got 'CrossCoder'"):
        checkpoints.load_sae(tmp_path)
    config["trainer"]["dict_class"] = "AutoEncoder"
    put(tmp_path, "ae.pt", arrays, config=config)
    with pytest.raises(ValueError, match=r"lacks encoder.bias, bias and has .*r_mag"):
        checkpoints.load_sae(tmp_path)
    arrays, config = dictionary("AutoEncoderTopK")
    config["trainer"]["dict_size"] = 99
    put(tmp_path, "ae.pt", arrays, config=config)
    with pytest.raises(ValueError, match="says dict_size = 99, but the weights have 36"):
        checkpoints.load_sae(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config.json must be a JSON file beside the weights"):
        checkpoints.load_sae(tmp_path)


def sparsify_arrays():
    return {
        "encoder.weight": draw(S, D),
        "encoder.bias": draw(S),
        "W_dec": draw(S, D),
        "b_dec": draw(D, seed=3),
    }


@pytest.mark.parametrize("activation", ["topk", "groupmax", "signed"])
@pytest.mark.parametrize("transcode", [False, True])
def test_sparsify(tmp_path, activation, transcode):
    arrays = {**sparsify_arrays(), "W_skip": draw(D, D, seed=4)}
    k = 6
    config = {
        "activation": "groupmax" if activation == "groupmax" else "topk",
        "signed": activation == "signed",
        **{"num_latents": 0, "expansion_factor": 1, "k": k, "d_in": D},
        **{"transcode": transcode, "skip_connection": True, "normalize_decoder": True},
    }
    config["num_latents"] = S
    folder = put(tmp_path / "layers.3.mlp", "sae.safetensors", arrays, cfg=config)
    w = wide(arrays)
    pre_NS = (X_ND - (0 if transcode else w["b_dec"])) @ w["encoder.weight"].T + w["encoder.bias"]
    if activation == "signed":
        z_NS = top(pre_NS, k, np.abs)
    elif activation == "topk":
        z_NS = top(np.maximum(pre_NS, 0), k)
    else:
        grouped = np.maximum(pre_NS, 0).reshape(N, k, S // k)
        z_NS = np.where(np.arange(S // k) == grouped.argmax(2)[..., None], grouped, 0)
        z_NS = z_NS.reshape(N, S)
    loaded = checkpoints.load_sae(folder)
    check(loaded, z_NS, z_NS @ w["W_dec"] + w["b_dec"] + X_ND @ w["W_skip"].T)
    assert str(loaded.site) == ("blocks.3.mlp_in" if transcode else "blocks.3.mlp_module_out")
    for name, site in (("layers.10", "blocks.10.resid_post"), ("embed_tokens", "embed")):
        other = put(tmp_path / name, "sae.safetensors", arrays, cfg={**config, "transcode": False})
        assert str(checkpoints.load_sae(other).site) == site


def test_sparsify_before_its_config_said_transcode(tmp_path, monkeypatch, caplog):
    """Transcoders of November 2024 to February 2025, told by the run's config or a skip connection."""
    config = {"num_latents": S, "k": 6, "d_in": D, "normalize_decoder": True}
    arrays = sparsify_arrays()
    w = wide(arrays)
    # Installed sparsify subtracts the bias of these: it asks `transcode`, which is not there.
    z_NS = top(np.maximum((X_ND - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"], 0), 6)
    run = tmp_path / "run"
    there = [run / "layers.3.mlp", run / "layers.3.mlp" / "seed1", tmp_path / "x" / "layers.3.mlp"]
    for folder in there:
        put(folder, "sae.safetensors", arrays, cfg=config)

    def sites(folder):
        loaded = checkpoints.load_sae(folder)
        return str(loaded.site), loaded.metadata.get("output_site")

    plain = ("blocks.3.mlp_module_out", None)
    transcoder = ("blocks.3.mlp_in", "blocks.3.mlp_module_out")
    assert [sites(folder) for folder in there] == [plain] * 3
    assert "does not say whether it is a transcoder" in caplog.text
    for text, wanted in (
        ('{"transcode": true}', transcoder),
        ('{"transcode": 1}', plain),
        ("]", plain),
    ):
        (run / "config.json").write_text(text)
        assert [sites(folder) for folder in there] == [wanted, wanted, plain]
    (run / "config.json").write_text('{"transcode": true}')
    loaded = checkpoints.load_sae(there[0])
    check(loaded, z_NS, z_NS @ w["W_dec"] + w["b_dec"])
    skips = put(
        tmp_path / "y" / "layers.3.mlp",
        *("sae.safetensors", {**arrays, "W_skip": draw(D, D, seed=4)}),
        cfg={**config, "skip_connection": True},
    )
    assert sites(skips) == transcoder
    asked = []

    def fetch(uri):
        asked.append(uri)
        return run / "config.json" if uri.partition("@")[0].endswith(".json") else there[2]

    monkeypatch.setattr(assets, "fetch", fetch)
    assert sites("hf://E/tc/run/layers.3.mlp@main") == transcoder
    assert asked[1:] == ["hf://E/tc/run/config.json@main"]


def test_sparsify_refusals(tmp_path):
    config = {"k": 6, "d_in": D, "num_latents": S}
    put(tmp_path, "sae.safetensors", sparsify_arrays(), cfg={**config, "activation": "relu"})
    with pytest.raises(ValueError, match=r"as 'activation' one of .*got \"relu\""):
        checkpoints.load_sae(tmp_path)
    put(tmp_path, "sae.safetensors", sparsify_arrays(), cfg={**config, "num_latents": 0})
    with pytest.raises(ValueError, match="says d_in = 10 and 320 latents"):
        checkpoints.load_sae(tmp_path)
    put(tmp_path, "sae.safetensors", sparsify_arrays(), cfg={**config, "k": 37})
    with pytest.raises(ValueError, match="`k` must lie between 1 and d_sae = 36, got 37"):
        checkpoints.load_sae(tmp_path)
    put(tmp_path, "sae.safetensors", sparsify_arrays(), cfg={"d_in": D, "num_latents": S})
    with pytest.raises(ValueError, match="must have an entry 'k'"):
        checkpoints.load_sae(tmp_path)


def test_qwen_scope(tmp_path, monkeypatch):
    arrays = {"W_enc": draw(S, D), "W_dec": draw(D, S), "b_enc": draw(S), "b_dec": draw(D)}
    folder = tmp_path / "SAE-Res-Qwen3-1.7B-Base-W32K-L0_5"
    folder.mkdir()
    path = folder / "layer9.sae.pt"
    torch_writer.write(path, arrays)
    w = wide(arrays)
    z_NS = top(np.maximum(X_ND @ w["W_enc"].T + w["b_enc"], 0), 5)
    loaded = checkpoints.load_sae(path)
    check(loaded, z_NS, z_NS @ w["W_dec"].T + w["b_dec"])
    assert (str(loaded.site), loaded.expected_l0) == ("blocks.9.resid_post", 5)
    torch_writer.write(tmp_path / "layer9.sae.pt", arrays)
    with pytest.raises(ValueError, match="does not say how many latents are kept"):
        checkpoints.load_sae(tmp_path / "layer9.sae.pt")
    torch_writer.write(folder / "layer10.sae.pt", arrays)
    with pytest.raises(ValueError, match=r"holds layer9.sae.pt, layer10.sae.pt; name one of them"):
        checkpoints.load_sae(folder)
    monkeypatch.setattr(assets, "fetch", lambda uri: tmp_path / "layer9.sae.pt")
    loaded = checkpoints.load_sae("hf://Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_7/layer9.sae.pt")
    assert loaded.sae.k == 7


def test_goodfire(tmp_path):
    arrays = {
        "encoder_linear.weight": draw(S, D),
        "encoder_linear.bias": draw(S),
        "decoder_linear.weight": draw(D, S),
        "decoder_linear.bias": draw(D),
    }
    path = tmp_path / "Llama-3.1-8B-Instruct-SAE-l19.pth"
    torch_writer.write(path, arrays)
    w = wide(arrays)
    z_NS = np.maximum(X_ND @ w["encoder_linear.weight"].T + w["encoder_linear.bias"], 0)
    loaded = checkpoints.load_sae(path)
    check(loaded, z_NS, z_NS @ w["decoder_linear.weight"].T + w["decoder_linear.bias"])
    assert (str(loaded.site), loaded.architecture) == ("blocks.19.resid_post", "relu")


def sae_lens_folder(folder, architecture="standard", drop=(), **changes):
    arrays = {"W_enc": draw(D, S), "W_dec": draw(S, D), "b_enc": draw(S), "b_dec": draw(D)}
    if architecture.startswith("jumprelu"):
        arrays["threshold"] = np.abs(draw(S)) * 5
    config = {
        "architecture": architecture,
        "d_in": D,
        "d_sae": S,
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "metadata": {"sae_lens_version": "6.1.0", "hook_name": "blocks.2.attn.hook_z"},
    }
    config |= changes
    arrays = {k: v for k, v in arrays.items() if k not in drop}
    return put(folder, "sae_weights.safetensors", arrays, cfg=config), arrays


def test_sae_lens_log_threshold_sparsity_and_hook_z(tmp_path):
    folder, arrays = sae_lens_folder(
        tmp_path, "jumprelu", drop=("threshold",), reshape_activations="hook_z"
    )
    log_threshold = draw(S, seed=11)
    put(folder, "sae_weights.safetensors", {**arrays, "log_threshold": log_threshold})
    rates = np.linspace(0.001, 0.3, S)
    put(folder, "sparsity.safetensors", {"sparsity": np.log10(rates).astype(np.float32)})
    w = wide(arrays)
    pre_NS = X_ND @ w["W_enc"] + w["b_enc"]
    z_NS = np.maximum(pre_NS, 0) * (pre_NS > np.exp(log_threshold.astype(np.float64)))
    loaded = checkpoints.load_sae(folder)
    check(loaded, z_NS, z_NS @ w["W_dec"] + w["b_dec"])
    assert str(loaded.site) == "blocks.2.attn_z"
    assert loaded.expected_l0 == pytest.approx(rates.sum(), rel=1e-4)


def test_sae_lens_refusals(tmp_path):
    for change, message in (
        ({"architecture": "temporal"}, "must name an architecture of standard.*'temporal'"),
        ({"architecture": "topk"}, "must have an entry 'k'"),
        ({"architecture": "gated"}, "lacks b_gate, b_mag, r_mag"),
        ({"normalize_activations": "z_score"}, "got 'z_score'"),
        ({"d_sae": 99}, "says d_sae = 99, but the weights have 36"),
        ({"metadata": {}, "activation_fn": "tanh-relu"}, "activation_fn relu or topk"),
    ):
        folder, arrays = sae_lens_folder(tmp_path, **change)
        with pytest.raises(ValueError, match=message):
            checkpoints.load_sae(folder)
    folder, arrays = sae_lens_folder(tmp_path)
    put(folder, "sae_weights.safetensors", {**arrays, "scaling_factor": np.ones(S, np.float32)})
    checkpoints.load_sae(folder)
    put(folder, "sae_weights.safetensors", {**arrays, "scaling_factor": draw(S)})
    with pytest.raises(ValueError, match="holds scaling_factor, per-latent output scales"):
        checkpoints.load_sae(folder)


def test_a_site_can_be_named(tmp_path):
    folder, _ = sae_lens_folder(tmp_path, metadata={"sae_lens_version": "6.0.0"})
    assert checkpoints.load_sae(folder).site is None
    assert str(checkpoints.load_sae(folder, site="blocks.4.mlp_out").site) == "blocks.4.mlp_out"
    with pytest.raises(ValueError, match="a site is"):
        checkpoints.load_sae(folder, site="layer 4")


@pytest.mark.parametrize(
    ("hook", "site"),
    [
        ("blocks.8.hook_resid_pre", "blocks.8.resid_pre"),
        ("blocks.8.hook_resid_mid", "blocks.8.resid_mid"),
        ("blocks.8.hook_mlp_out", "blocks.8.mlp_out"),
        ("blocks.8.hook_attn_out", "blocks.8.attn_out"),
        ("blocks.8.attn.hook_z", "blocks.8.attn_z"),
        ("blocks.8.ln2.hook_normalized", "blocks.8.mlp_in_unscaled"),
        ("blocks.8.hook_mlp_in", None),
        ("blocks.8.mlp.hook_in", None),
        ("hook_embed", "embed"),
        ("model.layers.12", "blocks.12.resid_post"),
        ("model.layers.12.output", "blocks.12.resid_post"),
        ("transformer.h.3", "blocks.3.resid_post"),
        ("gpt_neox.layers.3.mlp", "blocks.3.mlp_module_out"),
        ("model.embed_tokens", "embed"),
        ("blocks.8.attn.hook_pattern", None),
        ("lm_head", None),
        ("", None),
    ],
)
def test_hook_names(hook, site):
    from jaxprobe.checkpoints.places import hook_site

    found = hook_site(hook)
    assert (str(found) if found else None) == site


@pytest.mark.parametrize(
    "sae",
    [
        saes.TopKSae(
            W_enc_DS=draw(D, S), b_enc_S=draw(S), W_dec_SD=draw(S, D), b_dec_D=draw(D), k=3
        ),
        saes.frame(
            saes.BatchTopKSae(
                W_enc_DS=draw(D, S),
                b_enc_S=draw(S),
                W_dec_SD=draw(S, 7),
                b_dec_D=draw(7),
                threshold=np.float32(2.0),
            ),
            shift_D=draw(D, seed=1),
            W_skip_DE=draw(D, 7),
            normalisation="layer_norm",
            restores=False,
        ),
        saes.ReluSae(  # a transcoder with nothing around it
            W_enc_DS=draw(D, S), b_enc_S=draw(S), W_dec_SD=draw(S, 7), b_dec_D=draw(7)
        ),
        saes.MatryoshkaSae(
            W_enc_DS=draw(D, S),
            b_enc_S=draw(S),
            W_dec_SD=draw(S, D),
            b_dec_D=draw(D),
            threshold_S=draw(S),
            group_S=saes.matryoshka.groups((6, 30)),
            active_groups=1,
        ),
        saes.GatedSae(
            W_enc_DS=draw(D, S),
            b_gate_S=draw(S),
            b_mag_S=draw(S),
            r_mag_S=draw(S),
            W_dec_SD=draw(S, D),
            b_dec_D=draw(D),
        ),
    ],
    ids=lambda sae: type(sae).__name__,
)
def test_native_files_hold_every_architecture(tmp_path, sae):
    path = checkpoints.save_sae(tmp_path, sae, {"id": "x", "site": "blocks.1.attn_z"})
    loaded = checkpoints.load_sae(path)
    assert type(loaded.sae) is type(sae) and str(loaded.site) == "blocks.1.attn_z"
    np.testing.assert_array_equal(saes.encode(loaded.sae, X_ND), saes.encode(sae, X_ND))
    z_NS = saes.encode(sae, X_ND)
    np.testing.assert_array_equal(saes.decode(loaded.sae, z_NS, X_ND), saes.decode(sae, z_NS, X_ND))


def test_exports_refuse_what_a_layout_has_no_word_for(tmp_path):
    weights = {"W_enc_DS": draw(D, S), "b_enc_S": draw(S), "W_dec_SD": draw(S, D)}
    weights["b_dec_D"] = draw(D)
    topk = saes.TopKSae(**weights, k=3)
    with pytest.raises(ValueError, match=r"one threshold per latent.*got TopKSae"):
        checkpoints.save_sae(tmp_path, topk, {}, layout="gemma_scope")
    with pytest.raises(ValueError, match="SAELens format has no GroupMax"):
        checkpoints.save_sae(tmp_path, saes.GroupMaxSae(**weights, k=3), {}, layout="sae_lens")
    with pytest.raises(ValueError, match="standard and jumprelu only, got topk"):
        metadata = {"output_site": "blocks.3.mlp_out"}
        checkpoints.save_sae(tmp_path, topk, metadata, layout="sae_lens")
    relu = saes.ReluSae(**weights)
    wide = {"shift_D": draw(D, seed=1), "W_skip_DE": draw(D, D)}
    with pytest.raises(ValueError, match="transcoders subtract no bias"):
        checkpoints.save_sae(tmp_path, saes.frame(relu, **wide), {}, layout="sae_lens")
    with pytest.raises(ValueError, match="no other bias"):
        checkpoints.save_sae(
            tmp_path, saes.frame(relu, shift_D=wide["shift_D"]), {}, layout="sae_lens"
        )
    for restores, message in (
        (True, "do not undo a normalisation"),
        (False, "say its `output_site`"),
    ):
        framed = saes.frame(relu, normalisation="layer_norm", restores=restores)
        metadata = {"output_site": None} if restores else {}
        with pytest.raises(ValueError, match=message):
            checkpoints.save_sae(tmp_path, framed, metadata, layout="sae_lens")
    with pytest.raises(ValueError, match="unknown layout 'saelens'; known: sae_lens"):
        checkpoints.save_sae(tmp_path, topk, {}, layout="saelens")
    assert not list(tmp_path.iterdir())
