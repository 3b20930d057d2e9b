"""Every layout against its own library, on random weights and activations that look like real ones."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the formats' own libraries need torch")

from jaxprobe import checkpoints, saes  # noqa: E402

D_MODEL, D_SAE, NUM_ROWS, K = 24, 96, 60, 7


def activations(d_model=D_MODEL, seed=1):
    """Rows with a common offset, a few large dimensions and a spectrum that falls off."""
    rng = np.random.default_rng(seed)
    basis = rng.normal(size=(d_model, d_model)) / np.sqrt(np.arange(1, d_model + 1))[:, None]
    offset = rng.normal(size=d_model) * np.where(np.arange(d_model) % 11 == 0, 20, 1)
    return (rng.normal(size=(NUM_ROWS, d_model)) @ basis * 3 + offset).astype(np.float32)


def randomise(module, seed=0):
    """Weights and biases that matter, decoder rows of different norms, positive thresholds."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.named_parameters():
            value.copy_(torch.randn(value.shape, generator=rng) * (0.3 if value.ndim > 1 else 0.5))
            if "threshold" in name:
                value.abs_()


def assert_close(ours, theirs, what, tolerance=1e-5):
    ours, theirs = (np.asarray(a, np.float64) for a in (ours, theirs))
    assert ours.shape == theirs.shape, what
    if what == "latents":
        np.testing.assert_array_equal(ours != 0, theirs != 0)
        assert 0 < (theirs != 0).mean() < 0.9
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    assert error < tolerance, (what, error)


def agree(loaded, x_ND, z_NS, y_ND):
    """Latents and reconstructions, whole and in blocks."""
    ours = saes.encode(loaded.sae, x_ND)
    assert_close(ours, z_NS, "latents")
    assert_close(saes.decode(loaded.sae, ours, x_ND), y_ND, "reconstructions")
    encoder = saes.prepare(loaded.sae, x_ND)
    whole = jnp.concatenate([encoder(start, start + 40) for start in range(0, D_SAE, 40)], axis=1)
    assert_close(whole, z_NS, "latents")


SAE_LENS = {
    "standard": {},
    "jumprelu": {},
    "topk": {"k": K},
    "topk rescaled": {"k": K, "rescale_acts_by_decoder_norm": True},
    "abstopk": {"k": K},
    "gated": {},
    "transcoder": {"d_out": 20},
    "skip_transcoder": {"d_out": 20},
    "jumprelu_transcoder": {"d_out": 20},
    "jumprelu_skip_transcoder": {"d_out": 20},
}
NORMALISATIONS = ("none", "constant_norm_rescale", "layer_norm", "expected_average_only_in")


@pytest.fixture(scope="module")
def sae_lens():
    return pytest.importorskip("sae_lens", reason="the reference is SAELens 6")


def make_sae_lens(sae_lens, name, normalisation="none", applies=True, seed=0):
    architecture = name.split()[0]
    is_transcoder = "transcoder" in architecture
    config_class = sae_lens.registry.get_sae_class(architecture)[1]
    config = config_class(
        d_in=D_MODEL,
        d_sae=D_SAE,
        apply_b_dec_to_input=applies and not is_transcoder,
        normalize_activations=normalisation,
        metadata=sae_lens.saes.sae.SAEMetadata(
            hook_name="blocks.3.hook_mlp_in" if is_transcoder else "blocks.3.hook_resid_post",
            hook_name_out="blocks.3.hook_mlp_out" if is_transcoder else None,
        ),
        **SAE_LENS[name],
    )
    sae = sae_lens.registry.get_sae_class(architecture)[0](config)
    randomise(sae, seed)
    return sae


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("name", SAE_LENS)
def test_sae_lens(sae_lens, tmp_path, name, normalisation):
    for applies in (True, False):
        sae = make_sae_lens(sae_lens, name, normalisation, applies)
        folder = tmp_path / str(applies)
        sae.save_model(folder)
        loaded = checkpoints.load_sae(folder)
        x_ND = activations()
        with torch.no_grad():
            z_NS = sae.encode(torch.tensor(x_ND))
            y_ND = sae(torch.tensor(x_ND))
        agree(loaded, x_ND, z_NS, y_ND)
        is_transcoder = "transcoder" in name
        assert str(loaded.site) == ("blocks.3.mlp_in" if is_transcoder else "blocks.3.resid_post")
        assert (loaded.d_model, loaded.d_sae) == (D_MODEL, D_SAE)


@pytest.mark.parametrize("name", ["standard", "jumprelu", "gated"])
def test_sae_lens_rescales_where_saelens_does(sae_lens, tmp_path, name):
    make_sae_lens(sae_lens, name).save_model(tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(config | {"rescale_acts_by_decoder_norm": True}))
    theirs, x_ND = sae_lens.SAE.load_from_disk(str(tmp_path)), activations()
    with torch.no_grad():
        z_NS, y_ND = theirs.encode(torch.tensor(x_ND)), theirs(torch.tensor(x_ND))
    agree(checkpoints.load_sae(tmp_path), x_ND, z_NS, y_ND)


def test_sae_lens_folds_a_norm_scaling_factor(sae_lens, tmp_path):
    sae = make_sae_lens(sae_lens, "jumprelu", "expected_average_only_in")
    sae.save_model(tmp_path)
    loaded = checkpoints.load_sae(tmp_path, norm_scaling_factor=0.37)
    sae.fold_activation_norm_scaling_factor(0.37)
    x_ND = activations()
    with torch.no_grad():
        agree(loaded, x_ND, sae.encode(torch.tensor(x_ND)), sae(torch.tensor(x_ND)))


@pytest.mark.parametrize("name", ["standard", "gated", "topk rescaled"])
@pytest.mark.parametrize("applies", [True, False])
def test_sae_lens_folds_whitening(sae_lens, tmp_path, name, applies):
    from sae_lens.training.activation_scaler import ActivationScaler, ActivationWhitening

    sae = make_sae_lens(sae_lens, name, "covariance_whitening", applies)
    sae.save_model(tmp_path)
    rng = np.random.default_rng(5)
    matrix = rng.normal(size=(D_MODEL, D_MODEL)) / 5 + np.eye(D_MODEL)
    parts = [rng.normal(size=D_MODEL), matrix, np.linalg.inv(matrix)]
    tensors = [torch.tensor(part, dtype=torch.float32) for part in parts]
    scaler = ActivationScaler(whitening=ActivationWhitening(*tensors))
    scaler.save(str(tmp_path / "activation_scaler.json"))
    loaded = checkpoints.load_sae(tmp_path)
    sae.fold_activation_whitening(*tensors)
    x_ND = activations()
    with torch.no_grad():
        z_NS, y_ND = sae.encode(torch.tensor(x_ND)), sae(torch.tensor(x_ND))
    agree(loaded, x_ND, z_NS, y_ND)


def test_sae_lens_before_version_6(sae_lens, tmp_path):
    for name, activation in (("standard", "relu"), ("topk", "topk")):
        sae = make_sae_lens(sae_lens, name)
        folder = tmp_path / name
        sae.save_model(folder)
        config = {
            "d_in": D_MODEL,
            "d_sae": D_SAE,
            "dtype": "torch.float32",
            "device": "cpu",
            "hook_point": "blocks.8.hook_resid_pre",
            "activation_fn_str": activation,
            "activation_fn_kwargs": {"k": K} if name == "topk" else {},
            "normalize_activations": False,
            "finetuning_scaling_factor": False,
            "sae_lens_version": "3.13.1",
        }
        (folder / "cfg.json").write_text(json.dumps(config))
        theirs = sae_lens.SAE.load_from_disk(folder)
        loaded = checkpoints.load_sae(folder)
        x_ND = activations()
        with torch.no_grad():
            agree(loaded, x_ND, theirs.encode(torch.tensor(x_ND)), theirs(torch.tensor(x_ND)))
        assert str(loaded.site) == "blocks.8.resid_pre"


@pytest.mark.parametrize("kind", ["batchtopk", "matryoshka_batchtopk", "jumprelu", "topk", "gated"])
def test_sae_lens_training_checkpoints(sae_lens, tmp_path, kind):
    """What a trainer saves to be used, of a trained SAE whose thresholds were set."""
    sae_class, config_class = sae_lens.registry.get_sae_training_class(kind)
    extra = {"k": K} if "topk" in kind else {}
    if kind.startswith("matryoshka"):
        extra["matryoshka_widths"] = [32, D_SAE]
    sae = sae_class(config_class(d_in=D_MODEL, d_sae=D_SAE, **extra))
    randomise(sae)
    if "batch" in kind:
        sae.topk_threshold = torch.tensor(0.8, dtype=torch.double)
    sae.save_inference_model(tmp_path)
    theirs = sae_lens.SAE.load_from_disk(tmp_path)
    loaded = checkpoints.load_sae(tmp_path)
    x_ND = activations()
    with torch.no_grad():
        agree(loaded, x_ND, theirs.encode(torch.tensor(x_ND)), theirs(torch.tensor(x_ND)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sae_lens_half_precision_weights(sae_lens, tmp_path, dtype):
    sae = make_sae_lens(sae_lens, "jumprelu").to(getattr(torch, dtype))
    sae.save_model(tmp_path)
    theirs = sae_lens.SAE.load_from_disk(tmp_path, dtype="float32")
    loaded = checkpoints.load_sae(tmp_path)
    assert loaded.sae.core.W_enc_DS.dtype == jnp.float32
    x_ND = activations()
    with torch.no_grad():
        agree(loaded, x_ND, theirs.encode(torch.tensor(x_ND)), theirs(torch.tensor(x_ND)))


def exported():
    """One SAE of each architecture that SAELens has a word for, by name."""
    rng = np.random.default_rng(3)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape) / 2, jnp.float32)
    linear = {"W_enc_DS": draw(D_MODEL, D_SAE), "W_dec_SD": draw(D_SAE, D_MODEL)}
    linear |= {"b_dec_D": draw(D_MODEL)}
    biased = {**linear, "b_enc_S": draw(D_SAE)}
    threshold_S = jnp.abs(draw(D_SAE)) * 3
    gated = {"b_gate_S": draw(D_SAE), "b_mag_S": draw(D_SAE), "r_mag_S": draw(D_SAE)}
    batch = saes.BatchTopKSae(**biased, threshold=jnp.float32(1.0))
    return {
        "relu": saes.ReluSae(**biased),
        "jump_relu": saes.JumpReluSae(**biased, threshold_S=threshold_S),
        "topk": saes.TopKSae(**biased, k=K),
        "abstopk": saes.TopKSae(**biased, k=K, signed=True),
        "batch_topk": batch,
        "gated": saes.GatedSae(**linear, **gated),
        "matryoshka": saes.MatryoshkaSae(
            **biased,
            threshold_S=threshold_S,
            group_S=saes.matryoshka.groups((16, D_SAE - 16)),
            active_groups=1,
        ),
        "framed": saes.frame(batch, shift_D=batch.b_dec_D, normalisation="layer_norm"),
    }


@pytest.mark.parametrize("name", exported())
def test_what_we_export_sae_lens_loads(sae_lens, tmp_path, name):
    sae = exported()[name]
    metadata = {"site": "blocks.3.resid_post", "model": "gemma"}
    checkpoints.save_sae(tmp_path, sae, metadata, layout="sae_lens")
    theirs = sae_lens.SAE.load_from_disk(tmp_path)
    assert theirs.cfg.metadata.hook_name == "blocks.3.hook_resid_post"
    x_ND = activations()
    z_NS = saes.encode(sae, x_ND)
    with torch.no_grad():
        assert_close(z_NS, theirs.encode(torch.tensor(x_ND)), "latents")
        y_ND = saes.decode(sae, z_NS, x_ND)
        assert_close(y_ND, theirs(torch.tensor(x_ND)), "reconstructions")
    again = checkpoints.load_sae(tmp_path)
    assert_close(saes.encode(again.sae, x_ND), z_NS, "latents")


@pytest.mark.parametrize("kind", ["relu", "jump_relu", "batch_topk", "matryoshka"])
@pytest.mark.parametrize("form", ["plain", "skip", "normalised"])
@pytest.mark.parametrize("d_out", [D_MODEL, 20])
def test_transcoders_that_we_export_sae_lens_loads(sae_lens, tmp_path, kind, form, d_out):
    core = exported()[kind]
    core = dataclasses.replace(
        core, W_dec_SD=core.W_dec_SD[:, :d_out], b_dec_D=core.b_dec_D[:d_out]
    )
    rng = np.random.default_rng(4)
    skip_DE = jnp.asarray(rng.normal(size=(D_MODEL, d_out)), jnp.float32)
    sae = {
        "plain": core,
        "skip": saes.frame(core, W_skip_DE=skip_DE),
        "normalised": saes.frame(
            core, W_skip_DE=skip_DE, normalisation="layer_norm", restores=False
        ),
    }[form]
    metadata = {"site": "blocks.3.mlp_in_unscaled", "output_site": "blocks.3.mlp_out"}
    checkpoints.save_sae(tmp_path / "one", sae, metadata, layout="sae_lens")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "one")
    assert theirs.cfg.architecture().endswith("skip_transcoder") == (form != "plain")
    assert theirs.cfg.metadata.hook_name == "blocks.3.ln2.hook_normalized"
    assert theirs.cfg.metadata.hook_name_out == "blocks.3.hook_mlp_out"
    x_ND = activations()
    z_NS = saes.encode(sae, x_ND)
    with torch.no_grad():
        assert_close(z_NS, theirs.encode(torch.tensor(x_ND)), "latents")
        y_ND = saes.decode(sae, z_NS, x_ND)
        assert_close(y_ND, theirs(torch.tensor(x_ND)), "reconstructions")
    # Once loaded, it is known as a transcoder, whatever it is saved as.
    again = checkpoints.load_sae(tmp_path / "one")
    native = checkpoints.load_sae(checkpoints.save_sae(tmp_path / "two", again, {}))
    checkpoints.save_sae(tmp_path / "three", native, {}, layout="sae_lens")
    agree(checkpoints.load_sae(tmp_path / "three"), x_ND, z_NS, y_ND)
    config = json.loads((tmp_path / "three" / "cfg.json").read_text())
    assert config["metadata"]["hook_name_out"] == "blocks.3.hook_mlp_out"


@pytest.mark.parametrize("name", ["jump_relu", "relu", "batch_topk"])
def test_gemma_scope_export_is_read_by_sae_lens(sae_lens, tmp_path, monkeypatch, name):
    from sae_lens.loading import pretrained_sae_loaders as loaders

    sae = exported()[name]
    path = checkpoints.save_sae(tmp_path, sae, {}, layout="gemma_scope")
    assert path == tmp_path / "params.npz"
    monkeypatch.setattr(loaders, "hf_hub_download", lambda **asked: str(path))
    config, weights, _ = loaders.gemma_2_sae_huggingface_loader(
        "google/gemma-scope-2b-pt-res", "layer_3/width_16k/average_l0_9", "cpu"
    )
    config = {**config, "d_in": D_MODEL, "d_sae": D_SAE, "device": "cpu", "dtype": "float32"}
    theirs = sae_lens.SAE.from_dict(loaders.handle_config_defaulting(config))
    theirs.load_state_dict(weights)
    x_ND = activations()
    z_NS = saes.encode(sae, x_ND)
    with torch.no_grad():
        assert_close(z_NS, theirs.encode(torch.tensor(x_ND)), "latents")
        y_ND = saes.decode(sae, z_NS)
        assert_close(y_ND, theirs(torch.tensor(x_ND)), "reconstructions")
    agree(checkpoints.load_sae(tmp_path), x_ND, z_NS, y_ND)


def test_gemma_scope_2_affine_as_sae_lens_reads_it(sae_lens, tmp_path, monkeypatch):
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from safetensors.torch import save_file

    name = "transcoder_all/layer_7_width_16k_l0_small_affine"
    folder = tmp_path / "gemma-scope-2-270m-pt" / name
    folder.mkdir(parents=True)
    rng = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=rng)
    weights = {
        "w_enc": draw(D_MODEL, D_SAE),
        "b_enc": draw(D_SAE),
        "w_dec": draw(D_SAE, D_MODEL),
        "b_dec": draw(D_MODEL),
        "threshold": draw(D_SAE).abs() * 20,
        "affine_skip_connection": draw(D_MODEL, D_MODEL),
    }
    save_file(weights, folder / "params.safetensors")

    def download(repo_id="", filename="", **asked):
        if filename == "config.json" or repo_id.endswith("config.json"):
            raise AssertionError
        return str(folder / "params.safetensors")

    shapes = {key: list(value.shape) for key, value in weights.items()}
    monkeypatch.setattr(loaders, "get_safetensors_tensor_shapes", lambda *asked: shapes)
    config = loaders._infer_gemma_3_raw_cfg_dict("google/gemma-scope-2-270m-pt", name)
    (folder / "config.json").write_text(json.dumps({**config, "type": "transcoder", "l0": 10}))
    monkeypatch.setattr(
        loaders,
        "hf_hub_download",
        lambda *a, **k: str(
            folder / ("config.json" if "config.json" in str((a, k)) else "params.safetensors")
        ),
    )
    config, state, _ = loaders.gemma_3_sae_huggingface_loader(
        "google/gemma-scope-2-270m-pt", name, "cpu"
    )
    theirs = sae_lens.SAE.from_dict(loaders.handle_config_defaulting(config))
    theirs.load_state_dict(state)
    x_ND = activations()
    with torch.no_grad():
        z_NS, y_ND = theirs.encode(torch.tensor(x_ND)), theirs(torch.tensor(x_ND))
    for step in ("with its config", "from its path"):
        loaded = checkpoints.load_sae(folder)
        agree(loaded, x_ND, z_NS, y_ND)
        assert (str(loaded.site), loaded.metadata["output_site"]) == (
            *("blocks.7.mlp_in", "blocks.7.mlp_out"),
        ), step
        (folder / "config.json").unlink(missing_ok=True)


@pytest.mark.parametrize("affine", [False, True])
def test_a_layer_of_a_clt_as_sae_lens_reads_it(sae_lens, tmp_path, monkeypatch, affine):
    from huggingface_hub.errors import EntryNotFoundError
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from safetensors.torch import save_file

    name = f"clt/width_262k_l0_medium{'_affine' if affine else ''}/params_layer_4"
    path = tmp_path / "gemma-scope-2-270m-pt" / f"{name}.safetensors"
    path.parent.mkdir(parents=True)
    rng = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=rng)
    weights = {
        "w_enc": draw(D_MODEL, D_SAE),
        "b_enc": draw(D_SAE),
        "w_dec": draw(D_SAE, 6, D_MODEL),
        "b_dec": draw(D_MODEL),
        "threshold": draw(D_SAE).abs() * 20,
    }
    weights["w_dec"][:, :4] = 0  # latents write to their own layer and later ones
    if affine:
        weights["affine_skip_connection"] = draw(D_MODEL, D_MODEL)
    save_file(weights, path)

    def download(*args, **asked):
        if "config.json" in str((args, asked)):
            raise EntryNotFoundError("there is none per layer")
        return str(path)

    shapes = {key: list(value.shape) for key, value in weights.items()}
    monkeypatch.setattr(loaders, "get_safetensors_tensor_shapes", lambda *asked: shapes)
    monkeypatch.setattr(loaders, "hf_hub_download", download)
    config, state, _ = loaders.gemma_3_sae_huggingface_loader(
        "google/gemma-scope-2-270m-pt", name, "cpu"
    )
    theirs = sae_lens.SAE.from_dict(loaders.handle_config_defaulting(config))
    theirs.load_state_dict(state)
    x_ND = activations()
    loaded = checkpoints.load_sae(path)
    with torch.no_grad():
        agree(loaded, x_ND, theirs.encode(torch.tensor(x_ND)), theirs(torch.tensor(x_ND)))
    assert theirs.cfg.metadata.hook_name == "blocks.4.hook_mlp_in"
    assert str(loaded.site) == "blocks.4.mlp_in"


def test_llama_scope_as_sae_lens_reads_it(sae_lens, tmp_path, monkeypatch):
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from safetensors.torch import save_file

    folder = tmp_path / "Llama3_1-8B-Base-L15R-8x"
    (folder / "checkpoints").mkdir(parents=True)
    rng = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=rng).to(torch.bfloat16)
    weights = {
        "encoder.weight": draw(D_SAE, D_MODEL),
        "encoder.bias": draw(D_SAE),
        "decoder.weight": draw(D_MODEL, D_SAE) / 4,
        "decoder.bias": draw(D_MODEL),
    }
    save_file(weights, folder / "checkpoints" / "final.safetensors")
    config = {
        "d_model": D_MODEL,
        "d_sae": D_SAE,
        "hook_point_in": "blocks.15.hook_resid_post",
        "hook_point_out": "blocks.15.hook_resid_post",
        "act_fn": "jumprelu",
        "jump_relu_threshold": 9.5,
        "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": 12.9, "out": 12.9},
        "top_k": 50,
        "use_decoder_bias": True,
        "sparsity_include_decoder_norm": True,
    }
    (folder / "hyperparams.json").write_text(json.dumps(config))
    monkeypatch.setattr(
        loaders,
        "hf_hub_download",
        lambda *a, **k: str(
            folder
            / (
                "hyperparams.json"
                if "hyperparams" in str((a, k))
                else "checkpoints/final.safetensors"
            )
        ),
    )
    overrides = {"dtype": "float32"}
    cfg, state, _ = loaders.llama_scope_sae_huggingface_loader(
        "fnlp/Llama3_1-8B-Base-LXR-8x", folder.name, "cpu", cfg_overrides=overrides
    )
    theirs = sae_lens.SAE.from_dict(loaders.handle_config_defaulting(cfg))
    theirs.load_state_dict(state)
    theirs.fold_activation_norm_scaling_factor(D_MODEL**0.5 / 12.9)
    x_ND = activations()
    loaded = checkpoints.load_sae(folder, llama_scope_gate="saelens")
    with torch.no_grad():
        agree(loaded, x_ND, theirs.encode(torch.tensor(x_ND)), theirs(torch.tensor(x_ND)))
    official = checkpoints.load_sae(folder)
    differ = (saes.encode(official.sae, x_ND) > 0) != (saes.encode(loaded.sae, x_ND) > 0)
    assert differ.mean() > 0.005
    assert str(official.site) == "blocks.15.resid_post" and official.expected_l0 == 50


@pytest.fixture(scope="module")
def sparsify():
    return pytest.importorskip("sparsify", reason="the reference is eai-sparsify")


@pytest.mark.parametrize("activation", ["topk", "groupmax"])
@pytest.mark.parametrize("transcode", [False, True])
@pytest.mark.parametrize("skip", [False, True])
def test_sparsify(sparsify, tmp_path, activation, transcode, skip):
    from sparsify import SparseCoder, SparseCoderConfig

    config = SparseCoderConfig(
        activation=activation,
        num_latents=D_SAE,
        k=8,
        transcode=transcode,
        skip_connection=skip,
    )
    sae = SparseCoder(D_MODEL, config)
    randomise(sae)
    folder = tmp_path / "layers.3.mlp"
    sae.save_to_disk(folder)
    x_ND = torch.tensor(activations())
    with torch.no_grad():
        kept = sae.encode(x_ND)
        z_NS = torch.zeros(NUM_ROWS, D_SAE).scatter(-1, kept.top_indices, kept.top_acts)
        y_ND = torch.einsum("ns,sd->nd", z_NS, sae.W_dec) + sae.b_dec
        if skip:
            y_ND = y_ND + x_ND @ sae.W_skip.mT
    loaded = checkpoints.load_sae(folder)
    agree(loaded, x_ND.numpy(), z_NS, y_ND)
    assert str(loaded.site) == ("blocks.3.mlp_in" if transcode else "blocks.3.mlp_module_out")
    assert loaded.expected_l0 == 8


DICTIONARIES = {
    "AutoEncoder": ("dictionary", ()),
    "AutoEncoderNew": ("dictionary", ()),
    "GatedAutoEncoder": ("dictionary", ()),
    "JumpReluAutoEncoder": ("dictionary", ()),
    "AutoEncoderTopK": ("trainers.top_k", (K,)),
    "BatchTopKSAE": ("trainers.batch_top_k", (K,)),
    "MatryoshkaBatchTopKSAE": ("trainers.matryoshka_batch_top_k", (K, [16, 32, 48])),
}


@pytest.mark.parametrize("name", DICTIONARIES)
def test_dictionary_learning(tmp_path, monkeypatch, name):
    import importlib.util
    import sys
    import types

    if importlib.util.find_spec("nnsight") is None:  # only the library's buffers need it
        monkeypatch.setitem(sys.modules, "nnsight", types.SimpleNamespace(LanguageModel=object))
    pytest.importorskip("dictionary_learning", reason="the reference is dictionary-learning")
    module, extra = DICTIONARIES[name]
    kind = getattr(importlib.import_module(f"dictionary_learning.{module}"), name)
    theirs = kind(D_MODEL, D_SAE, *extra)
    randomise(theirs)
    if "BatchTopK" in name:
        theirs.threshold.fill_(0.9)
    torch.save(theirs.state_dict(), tmp_path / "ae.pt")
    trainer = {"dict_class": name, "activation_dim": D_MODEL, "dict_size": D_SAE, "layer": 12}
    trainer |= {"lm_name": "google/gemma-2-2b", "submodule_name": "resid_post_layer_12", "k": K}
    (tmp_path / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {}}))
    if name == "AutoEncoder":
        theirs.normalize_decoder()
    x_ND = torch.tensor(activations())
    groups = (None, 2) if name.startswith("Matryoshka") else (None,)
    for active in groups:
        if active:
            theirs.active_groups = active
        with torch.no_grad():
            z_NS = theirs.encode(x_ND)
            y_ND = theirs.decode(z_NS)
        loaded = checkpoints.load_sae(tmp_path, active_groups=active)
        agree(loaded, x_ND.numpy(), z_NS, y_ND)
        assert str(loaded.site) == "blocks.12.resid_post"
    if "BatchTopK" in name:
        theirs.threshold.fill_(-1)
        torch.save(theirs.state_dict(), tmp_path / "ae.pt")
        with pytest.raises(
            ValueError, match=r"threshold of at least 0, got -1.0: it was never set"
        ):
            checkpoints.load_sae(tmp_path)
    if name == "AutoEncoderTopK":  # its threshold is left unset by design
        assert float(theirs.threshold) == -1 and loaded.expected_l0 == K


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_torch_files_hold_what_torch_saved(tmp_path, dtype):
    from jaxprobe.checkpoints import torch_file

    base = torch.arange(24, dtype=torch.float32).reshape(4, 6).to(dtype)
    saved = {
        "a": base,
        "transposed": base.T,
        "part": base[1:3, 2:5],
        "scalar": torch.tensor(7),
        "flag": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
    }
    torch.save(saved, tmp_path / "x.pt")
    found = torch_file.read(tmp_path / "x.pt")
    assert list(found) == list(saved)
    for name, value in saved.items():
        assert found[name].shape == tuple(value.shape)
        np.testing.assert_array_equal(
            found[name].astype(np.float64), value.to(torch.float64).numpy(), err_msg=name
        )
