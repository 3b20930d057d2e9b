"""What `load_sae` and `save_sae` are asked for: names, options, one SAE a folder, metadata."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprobe import checkpoints, saes, sealed
from jaxprobe.base import Site
from jaxprobe.boundary import FileError
from jaxprobe.checkpoints import native
from tests.checkpoints.formats_test import (
    RESID,
    D,
    S,
    dictionary,
    draw,
    gemma_2_arrays,
    llama_arrays,
    llama_config,
    put,
    sae_lens_folder,
    sparsify_arrays,
)
from tests.checkpoints.load_sae_test import make_sae


def named(folder, name):
    """A file of ours that calls itself so, whatever `save_sae` would say."""
    path = checkpoints.save_sae(folder, make_sae(), {"id": "good"})
    record, arrays = sealed.read_safetensors(path, native.HEADER, "")
    sealed_anew = sealed.to_safetensors(arrays, native.HEADER, {**record, "id": name})
    path.write_bytes(b"".join(sealed_anew))
    return path.parent


@pytest.mark.parametrize("name", ["random_sae", "activations", "", "  ", "a\x1b[2J", " a", 5, None])
def test_a_file_may_not_take_a_name_that_results_need(tmp_path, name):
    folder = named(tmp_path / "saes" / "mine", name)
    assert checkpoints.load_sae(folder).id == "saes/mine"
    assert checkpoints.load_sae(folder, id="a b/c").id == "a b/c"


def test_names_that_nobody_may_give(tmp_path):
    folder = named(tmp_path / "saes" / "mine", "good")
    assert checkpoints.load_sae(folder).id == "good"
    for name in ("random_sae", "activations", "", "a\n", "\u202eabc", "x" * 201, 5):
        with pytest.raises(ValueError, match="`id` must be a short printable name"):
            checkpoints.load_sae(folder, id=name)
        with pytest.raises(ValueError, match="`id` must be a short printable name"):
            checkpoints.save_sae(tmp_path / "new", make_sae(), {"id": name})
    unnamed = named(tmp_path / "a\x1bb" / "c", "activations")
    with pytest.raises(FileError, match=r"has no name that results could carry.*give one as `id`"):
        checkpoints.load_sae(unnamed)
    assert checkpoints.load_sae(unnamed, id="c").id == "c"


def test_options_that_mean_nothing_are_refused(tmp_path):
    folder, _ = sae_lens_folder(tmp_path / "lens")
    for option, value in (
        ("llama_scope_gate", "saelens"),
        ("norm_scaling_factor", 2.0),
        ("active_groups", 1),
    ):
        with pytest.raises(ValueError, match=f"`{option}` means nothing for .*lens"):
            checkpoints.load_sae(folder, **{option: value})
    for option, values in (
        ("norm_scaling_factor", (0, -1.0, np.nan, np.inf, "2", True)),
        ("active_groups", (0, -1, 1.0, "1", True)),
    ):
        for value in values:
            with pytest.raises(ValueError, match=f"`{option}` must be"):
                checkpoints.load_sae(folder, **{option: value})
    topk = llama_config(act_fn="topk", top_k=5)
    put(tmp_path / "r1", "sae_weights.safetensors", llama_arrays(np.float32), config=topk)
    with pytest.raises(ValueError, match="its files hold the average norm"):
        checkpoints.load_sae(tmp_path / "r1", norm_scaling_factor=2.0)
    arrays, config = dictionary("MatryoshkaBatchTopKSAE")
    loaded = checkpoints.load_sae(put(tmp_path / "m", "ae.pt", arrays, config=config))
    path = checkpoints.save_sae(tmp_path / "ours", loaded, {})
    assert checkpoints.load_sae(path, active_groups=2).sae.core.active_groups == 2


def test_a_folder_holds_one_sae(tmp_path):
    folder, _ = sae_lens_folder(tmp_path / "lens")
    for name in ("sparsity.safetensors", "optimizer.pt", "examples.safetensors"):
        (folder / name).write_bytes(b"")
    (folder / "sparsity.safetensors").unlink()
    checkpoints.load_sae(folder)
    for name in (
        "other.safetensors",
        "old.pt",
        "sae_weights.safetensors.index.json",
        "params2.npz",
    ):
        (folder / name).write_bytes(b"")
        with pytest.raises(FileError, match=f"lens must hold the weights of one SAE .*and {name}"):
            checkpoints.load_sae(folder)
        assert checkpoints.load_sae(folder / "sae_weights.safetensors").d_sae == S
        (folder / name).unlink()
    put(folder, "params.safetensors", gemma_2_arrays(), config={"architecture": "jump_relu"})
    with pytest.raises(FileError, match="exactly one of these layouts"):
        checkpoints.load_sae(folder)
    arrays, config = dictionary("AutoEncoder")
    for name in ("ae.pt", "ae.safetensors"):
        folder = put(tmp_path / "dictionary", name, arrays, config=config)
    with pytest.raises(FileError, match=r"got ae.pt and ae.safetensors"):
        checkpoints.load_sae(folder)
    assert checkpoints.load_sae(folder / "ae.safetensors").d_sae == S


def changed(folder, file, **changes):
    """The same config with other entries, those of a section named with two underscores."""
    path = folder / file
    content = json.loads(path.read_text())
    for key, value in changes.items():
        *section, last = key.split("__")
        (content[section[0]] if section else content)[last] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("layout", "changes"),
    [
        ("lens", {"d_in": 11}),
        ("lens", {"d_sae": "36"}),
        ("lens", {"k": "5"}),
        ("lens", {"k": 37}),
        ("lens", {"k": True}),
        ("lens", {"k": 5.0}),
        ("lens", {"architecture": "temporal"}),
        ("lens", {"architecture": 5}),
        ("lens", {"apply_b_dec_to_input": "false"}),
        ("lens", {"apply_b_dec_to_input": 0}),
        ("lens", {"reshape_activations": "hook_q"}),
        ("lens", {"hook_head_index": 3}),
        ("lens", {"metadata": {"sae_lens_version": "6.0.0", "hook_head_index": 0}}),
        ("lens", {"metadata": []}),
        ("lens", {"rescale_acts_by_decoder_norm": "no"}),
        ("llama", {"dataset_average_activation_norm__in": 0.0}),
        ("llama", {"dataset_average_activation_norm__in": float("nan")}),
        ("llama", {"dataset_average_activation_norm__out": -1}),
        ("llama", {"dataset_average_activation_norm__out": "2"}),
        ("llama", {"dataset_average_activation_norm__in": 1e-37 * 2}),
        ("llama", {"jump_relu_threshold": -0.1}),
        ("llama", {"jump_relu_threshold": float("inf")}),
        ("llama", {"sparsity_include_decoder_norm": 1}),
        ("llama", {"use_glu_encoder": True}),
        ("llama", {"d_model": 12}),
        ("llama", {"d_sae": 35}),
        ("r1", {"expansion_factor": 2}),
        ("r1", {"apply_decoder_bias_to_pre_encoder": True}),
        ("r1", {"top_k": 0}),
        ("r1", {"dataset_average_activation_norm": {"in": 0, "out": 1}}),
        ("r1", {"norm_activation": 3}),
        ("dictionary", {"trainer__k": 6}),
        ("dictionary", {"trainer__k": "5"}),
        ("dictionary", {"trainer__dict_size": 37}),
        ("dictionary", {"trainer__activation_dim": 10.0}),
        ("dictionary", {"trainer": [1]}),
        ("sparsify", {"k": -1}),
        ("sparsify", {"k": None}),
        ("sparsify", {"signed": "yes"}),
        ("sparsify", {"transcode": 1}),
        ("sparsify", {"num_latents": 36.0}),
        ("sparsify", {"d_in": 0}),
        ("gemma_2", {"affine_connection": True}),
        ("gemma_2", {"affine_connection": "no"}),
        ("gemma_2", {"architecture": "JumpReLU"}),
        ("gemma_2", {"type": ["sae"]}),
    ],
)
def test_config_entries_that_mean_nothing(tmp_path, layout, changes):
    arrays, trained = dictionary("AutoEncoderTopK")
    r1 = {"act_fn": "topk", "top_k": 5, "hook_point_in": RESID, "norm_activation": "dataset-wise"}
    r1["dataset_average_activation_norm"] = {"in": 2.0, "out": 2.0}
    wanted = {
        "gemma_2": (
            "params.safetensors",
            gemma_2_arrays(),
            "config",
            {"architecture": "jump_relu"},
        ),
        "llama": ("checkpoints/final.safetensors", llama_arrays(), "hyperparams", llama_config()),
        "r1": ("sae_weights.safetensors", llama_arrays(np.float32), "config", r1),
        "dictionary": ("ae.pt", arrays, "config", trained),
        "sparsify": ("sae.safetensors", sparsify_arrays(), "cfg", {"k": 5, "num_latents": S}),
    }
    if layout == "lens":
        folder, file = sae_lens_folder(tmp_path, "topk", k=5)[0], "cfg.json"
    else:
        name, content, stem, config = wanted[layout]
        folder, file = put(tmp_path, name, content, **{stem: config}), f"{stem}.json"
    checkpoints.load_sae(folder)
    changed(folder, file, **changes)
    with pytest.raises(FileError, match=tmp_path.name):
        checkpoints.load_sae(folder)


def test_what_no_latent_depends_on_stops_no_load(tmp_path, caplog):
    """Wrong words for L0, width or layer are left out with a warning that names the file."""
    arrays, config = dictionary("JumpReluAutoEncoder")
    folder = put(tmp_path / "dictionary", "ae.pt", arrays, config=config)
    for wrong in (0, [20], "many"):
        changed(folder, "config.json", trainer__target_l0=wrong)
        assert checkpoints.load_sae(folder).expected_l0 is None
        assert "must have as 'target_l0' a finite number" in caplog.text
        caplog.clear()
    changed(folder, "config.json", trainer__target_l0=20, trainer__submodule_name="resid_post")
    for layer, site in (
        ("3", 3),
        (3.0, 3),
        ([3], 3),
        ("unknown", None),
        (-1, None),
        ([3, 4], None),
    ):
        changed(folder, "config.json", trainer__layer=layer)
        loaded = checkpoints.load_sae(folder)
        assert (loaded.site and loaded.site.block, loaded.expected_l0) == (site, 20), layer
        assert ("must have as 'layer' a whole number" in caplog.text) == (site is None), layer
        caplog.clear()
        assert checkpoints.load_sae(folder, site="blocks.1.resid_post").site.block == 1
        assert "layer" not in caplog.text
    gemma = {"architecture": "jump_relu", "type": "sae"}
    for changes in ({"l0": "small"}, {"l0": 0}, {"width": "16k"}, {"width": 16000}):
        folder = put(
            *(tmp_path / "gemma", "params.safetensors", gemma_2_arrays()),
            config={**gemma, **changes},
        )
        assert checkpoints.load_sae(folder).expected_l0 is None
        assert "config.json" in caplog.text, changes
        caplog.clear()
    lens, _ = sae_lens_folder(tmp_path / "lens")
    (lens / "sparsity.safetensors").write_bytes(b"damaged")
    assert checkpoints.load_sae(lens).expected_l0 is None
    assert "sparsity.safetensors" in caplog.text


def test_group_sizes_and_sparsity(tmp_path, caplog):
    for sizes in ([10, 12, 15], [36, 0], [-1, 37], [2**62, 36 - 2**62], [12.0, 24.0], []):
        arrays, config = dictionary("MatryoshkaBatchTopKSAE", group_sizes=np.array(sizes))
        put(tmp_path, "ae.safetensors", arrays, config=config)
        with pytest.raises(FileError, match=r"ae.safetensors must hold .*group_sizes"):
            checkpoints.load_sae(tmp_path)
    folder, _ = sae_lens_folder(tmp_path / "lens")
    never = np.full(S, -np.inf, np.float32)
    never[0] = np.log10(0.5)
    put(folder, "sparsity.safetensors", {"sparsity": never})
    assert checkpoints.load_sae(folder).expected_l0 == pytest.approx(0.5)
    for wrong in (never[1:], np.where(never < -1, np.nan, never), -never):
        put(folder, "sparsity.safetensors", {"sparsity": wrong})
        caplog.clear()
        assert checkpoints.load_sae(folder).expected_l0 is None
        assert "sparsity.safetensors must hold 36 logarithms" in caplog.text


def test_whole_numbers_that_float32_rounds(tmp_path):
    arrays, config = dictionary("AutoEncoderNew")
    arrays["encoder.bias"] = np.full(S, 2**24 + 1)
    put(tmp_path, "ae.safetensors", arrays, config=config)
    with pytest.raises(FileError, match=r"`encoder.bias`, got 16777217, which float32 would round"):
        checkpoints.load_sae(tmp_path)
    arrays["encoder.bias"] = np.ones(S, bool)
    put(tmp_path, "ae.safetensors", arrays, config=config)
    with pytest.raises(FileError, match=r"must hold numbers as `encoder.bias`, got bool"):
        checkpoints.load_sae(tmp_path)


def test_saved_metadata_come_back(tmp_path):
    loaded = checkpoints.load_sae(checkpoints.save_sae(tmp_path / "a", make_sae(), {"id": "a"}))
    again = checkpoints.save_sae(tmp_path / "b", loaded, loaded.metadata)  # its own words are true
    assert again.read_bytes() == (tmp_path / "a" / "sae.safetensors").read_bytes()
    for metadata, message in (
        ({"architecture": "topk"}, "may not say architecture = 'topk'"),
        ({"format_version": 3}, "may not say format_version"),
        ({"d_sae": 5}, "may not say d_sae = 5"),
        ({"frame": {"normalisation": "layer_norm", "restores": True}}, "may not say frame"),
        ({"settings": {"k": 1}}, "may not say settings"),
        ({"a": np.float32(1)}, "what JSON has words for"),
        ({"a": float("nan")}, "what JSON has words for"),
        ({"a": {1: 2}}, "come back from JSON"),
        ({"a": (1, 2)}, "come back from JSON"),
        ({"a": "x" * (2 << 20)}, "at most 1,048,576 characters"),
        ({"site": "layer 4"}, "a site is"),
        ({"expected_l0": float("inf")}, "expected_l0"),
        ({"expected_l0": "50"}, "expected_l0"),
    ):
        with pytest.raises(ValueError, match=message):
            checkpoints.save_sae(tmp_path / "c", make_sae(), metadata)
    for layout in checkpoints.SAVED_LAYOUTS:
        sae = make_sae()
        sae.W_dec_SD[3, 2] = np.nan
        with pytest.raises(
            ValueError, match=r"`W_dec_SD` must be finite, got nan at index \(3, 2\)"
        ):
            checkpoints.save_sae(tmp_path / "c", sae, {}, layout=layout)
    assert not (tmp_path / "c").exists()


def test_arguments_of_loading_and_saving_may_be_objects_and_numpys_numbers(tmp_path):
    site = Site.parse("blocks.1.resid_post")
    about = {"site": site, "expected_l0": np.float32(3), "prepend_bos": np.True_}
    loaded = checkpoints.load_sae(checkpoints.save_sae(tmp_path / "a", make_sae(), about))
    assert (loaded.site, loaded.expected_l0, loaded.bos) == (site, 3.0, "on")
    bare = checkpoints.save_sae(tmp_path / "b", make_sae(), None)
    assert checkpoints.load_sae(bare).site is None
    assert checkpoints.load_sae(bare, site=site).site == site
    arrays, config = dictionary("MatryoshkaBatchTopKSAE")
    folder = put(tmp_path / "groups", "ae.pt", arrays, config=config)
    assert checkpoints.load_sae(folder, active_groups=np.int64(2)).sae.core.active_groups == 2
    lens, _ = sae_lens_folder(tmp_path / "lens", normalize_activations="expected_average_only_in")
    one, two = (checkpoints.load_sae(lens, norm_scaling_factor=f) for f in (0.5, np.float32(0.5)))
    assert one == two
    with pytest.raises(ValueError, match="`site` must be a Site or its text, got 5"):
        checkpoints.load_sae(bare, site=5)
    with pytest.raises(ValueError, match="`metadata` must be a mapping or None, got str"):
        checkpoints.save_sae(tmp_path / "c", make_sae(), "x")
    with pytest.raises(ValueError, match=r"'expected_l0' a finite number .*got -3; give another"):
        checkpoints.save_sae(tmp_path / "c", make_sae(), {"expected_l0": -3})
    with pytest.raises(TypeError, match=r"an SAE must be one of .*got str"):
        checkpoints.save_sae(tmp_path / "c", "x", {})


def test_metadata_that_a_layout_has_no_place_for_are_told(tmp_path, caplog):
    about = {"id": "a", "site": "blocks.1.resid_post", "model": None, "d_sae": 10}
    for layout, lost in (("jaxprobe", None), ("sae_lens", "`id`"), ("gemma_scope", "`id`, `site`")):
        caplog.clear()
        checkpoints.save_sae(tmp_path / layout, make_sae(), about, layout=layout)
        told = f"the layout {layout} has no place for {lost}, which"
        assert (told in caplog.text) == (lost is not None)
        caplog.clear()
        checkpoints.save_sae(tmp_path / layout, make_sae(), {}, layout=layout)
        assert not caplog.text


def test_files_of_projects_that_are_not_read_say_what_to_do(tmp_path):
    arrays, _ = dictionary("AutoEncoderNew")
    put(tmp_path / "a" / "checkpoints", "ae_154.pt", arrays)
    put(tmp_path / "b", "DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt", arrays)
    for path in (*tmp_path.glob("a/*/*.pt"), *tmp_path.glob("b/*.pt")):
        with pytest.raises(FileError, match=r"got .*encoder\.weight.*as ae\.pt and config\.json"):
            checkpoints.load_sae(path)
    weights = {"W_enc": draw(S, D), "W_dec": draw(S, D), "b_enc": draw(S), "b_dec": draw(D)}
    for number in range(12):
        folder = put(tmp_path / "c", f"layer_{number}.safetensors", weights)
    with pytest.raises(FileError, match=r"make an SAE of jaxprobe\.saes of its arrays"):
        checkpoints.load_sae(folder / "layer_3.safetensors")
    with pytest.raises(FileError, match=r"and 4 more; name one of them, .*c/layer_0\.safetensors"):
        checkpoints.load_sae(folder)


def test_loaded_saes_can_be_shown_and_compared(tmp_path):
    path = checkpoints.save_sae(tmp_path / "a", make_sae(), {"id": "a", "site": "blocks.1.mlp_out"})
    one, two = checkpoints.load_sae(path), checkpoints.load_sae(path)
    assert len(repr(one)) < 400 and "W_enc_DS=float32[6,10]" in repr(one) and "id='a'" in repr(one)
    assert one == two and hash(one) == hash(two) and one.sae == two.sae
    assert one != checkpoints.load_sae(path, id="b")
    other = jax.tree.map(lambda a: a + 1, one)
    assert one != other and one.sae != other.sae and one != 5 and one.sae != 5
    assert repr(jax.tree.unflatten(jax.tree.structure(one), [object()] * 5))
    framed = saes.frame(one.sae, normalisation="layer_norm")
    assert framed != one.sae and "normalisation='layer_norm'" in repr(framed)


def test_saes_made_by_hand_are_checked_before_they_are_used():
    kept = saes.TopKSae(
        W_enc_DS=draw(D, S), b_enc_S=draw(S), W_dec_SD=draw(S, D), b_dec_D=draw(D), k=3
    )
    x_ND = jnp.ones((2, D))
    replace = lambda **changes: type(kept)(**{**vars(kept), **changes})
    for sae, message in (
        (replace(b_enc_S=draw(S + 1)), r"`b_enc_S` must have shape \(36\), got \(37,\)"),
        (replace(W_dec_SD=draw(D, S)), r"`W_dec_SD` must have shape \(36, 10\), got \(10, 36\)"),
        (replace(W_enc_DS=draw(D, S).astype(int)), "`W_enc_DS` must hold floating-point"),
        (replace(W_enc_DS=draw(D, S).tolist()), "`W_enc_DS` must be an array, got a list"),
        (replace(k=37), "`k` must lie between 1 and d_sae = 36, got 37"),
        (replace(k=0), "`k` must lie between"),
        (replace(k=3.0), "`k` must lie between"),
        (replace(k=True), "`k` must lie between"),
        (saes.FramedSae(core=kept, shift_D=draw(D + 1)), "`shift_D` must have shape"),
        (saes.FramedSae(core=kept, normalisation="unit"), "unknown normalisation 'unit'"),
    ):
        with pytest.raises(ValueError, match=message):
            checkpoints.encode(sae, x_ND)
    with pytest.raises(ValueError, match="`z_NS` must have d_sae = 36 as its last axis"):
        checkpoints.decode(kept, x_ND)
    stacked = jax.tree.map(lambda a: jnp.stack([a, a]), kept)
    z_PNS = jax.vmap(lambda sae: checkpoints.encode(sae, x_ND))(stacked)
    np.testing.assert_array_equal(z_PNS[1], jax.jit(checkpoints.encode)(kept, x_ND))
