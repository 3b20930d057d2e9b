"""The site that an SAE's files tell, by library: what a hook there would give, or none and a warning."""

import json
import logging

import numpy as np
import pytest

from jaxprobe import checkpoints, saes
from tests.checkpoints import torch_writer
from tests.checkpoints.formats_test import (
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


def told(loaded):
    """Site and output site as text; None where it is left open."""
    return str(loaded.site) if loaded.site else None, loaded.metadata.get("output_site")


HOOK_Z, MLP_IN, MLP_OUT = "blocks.2.attn.hook_z", "blocks.2.hook_mlp_in", "blocks.2.hook_mlp_out"
HF = {"model_class_name": "AutoModelForCausalLM"}
# Architecture, metadata, and what it means: the site, and a word of the warning.
SAE_LENS = [
    ("standard", {"hook_name": HOOK_Z}, "blocks.2.attn_z", None),
    ("standard", {"hook_name": "blocks.2.attn.hook_q"}, None, "queries, keys or values"),
    ("standard", {"hook_name": "blocks.2.mlp.hook_in"}, None, "TransformerBridge alone"),
    ("standard", {"hook_name": MLP_IN}, "blocks.2.resid_mid", None),
    ("standard", {"hook_name": "model.layers.2", **HF}, "blocks.2.resid_post", None),
    ("standard", {"hook_name": "model.layers.2.mlp", **HF}, "blocks.2.mlp_module_out", None),
    ("standard", {"hf_hook_name": "model.layers.2.output"}, "blocks.2.resid_post", None),
    (
        *("standard", {"hook_name": "blocks.2.ln2.hook_normalized"}),
        *("blocks.2.mlp_in_unscaled", None),
    ),
    ("transcoder", {"hook_name": MLP_IN}, "blocks.2.mlp_in", None),
    (
        *("transcoder", {"hook_name": "blocks.2.ln2.hook_normalized"}),
        *("blocks.2.mlp_in_unscaled", "Gemma Scope's transcoders, which read blocks.2.mlp_in"),
    ),
]


def test_sae_lens(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    for number, (architecture, metadata, site, warning) in enumerate(SAE_LENS):
        caplog.clear()
        about = {"sae_lens_version": "6.1.0", "hook_name_out": MLP_OUT, **metadata}
        folder, _ = sae_lens_folder(tmp_path / str(number), architecture, metadata=about)
        output = "blocks.2.mlp_out" if architecture == "transcoder" else None
        assert told(checkpoints.load_sae(folder)) == (site, output), metadata
        assert (warning in caplog.text) if warning else not caplog.text, metadata
    named = checkpoints.load_sae(tmp_path / "1", site="blocks.2.mlp_in")
    assert told(named)[0] == "blocks.2.mlp_in"


def test_sparsify(tmp_path):
    for name, transcodes, site, output in (
        ("layers.3", False, "blocks.3.resid_post", None),
        ("layers.3/seed1", False, "blocks.3.resid_post", None),
        ("layers.3.mlp/seed0", False, "blocks.3.mlp_module_out", None),
        ("layers.3.self_attn", False, "blocks.3.attn_module_out", None),
        ("layers.3.attention", False, "blocks.3.attn_module_out", None),
        ("layers.3.post_attention_layernorm", False, None, None),
        ("layers.3.mlp", True, "blocks.3.mlp_in", "blocks.3.mlp_module_out"),
        ("layers.3", True, "blocks.3.resid_pre", "blocks.3.resid_post"),
        ("layers.3.self_attn", True, None, "blocks.3.attn_module_out"),
        ("my_layers.3", False, None, None),
    ):
        config = {"k": 6, "d_in": D, "num_latents": S, "transcode": transcodes}
        folder = put(tmp_path / name, "sae.safetensors", sparsify_arrays(), cfg=config)
        assert told(checkpoints.load_sae(folder)) == (site, output), name


def test_dictionary_learning(tmp_path):
    arrays, config = dictionary("AutoEncoderNew")
    for name, layer, io, site in (
        ("resid_post_layer_3", 3, None, "blocks.3.resid_post"),
        ("resid_pre_layer_3", 3, "out", "blocks.3.resid_pre"),
        ("resid_mid_layer_3", 3, None, "blocks.3.resid_mid"),
        ("mlp_in", 3, None, "blocks.3.mlp_in"),
        ("mlp_out_layer3", None, "out", "blocks.3.mlp_module_out"),
        ("mlp_layer_3", 3, "in", "blocks.3.mlp_in"),
        ("attention", 3, "out", "blocks.3.attn_module_out"),
        ("gpt_neox.layers.3.attention", 3, "out", "blocks.3.attn_module_out"),
        ("embed", None, None, None),
        ("gpt_neox.embed_in", 0, None, "embed"),
        ("", 3, None, "blocks.3.resid_post"),
        (None, 3, "in", "blocks.3.resid_pre"),
        ("resid_post_layer_3", 4, None, None),
        ("resid_post_layer_3", 3, "in", None),
        ("resid_post_layer_3", 3, "in_and_out", None),
        ("residual_stuff", 3, None, None),
        ("mlp_neurons", 3, None, None),
    ):
        trainer = {**config["trainer"], "submodule_name": name, "layer": layer}
        buffer = {"ctx_len": 128, **({"io": io} if io else {})}
        folder = put(tmp_path, "ae.pt", arrays, config={"trainer": trainer, "buffer": buffer})
        assert told(checkpoints.load_sae(folder))[0] == site, (name, layer, io)


def test_llama_scope_and_its_newer_layout(tmp_path):
    for hook, site in (
        ("blocks.15.ln2.hook_normalized", "blocks.15.mlp_in_unscaled"),
        ("blocks.15.hook_attn_out", "blocks.15.attn_out"),
        ("blocks.15.hook_mlp_out", "blocks.15.mlp_out"),
        ("blocks.15.attn.hook_v", None),
        ("model.layers.15", None),
    ):
        config = llama_config(hook_point_in=hook, hook_point_out=hook)
        folder = put(tmp_path / "one", "checkpoints/final.safetensors", llama_arrays())
        (folder / "hyperparams.json").write_text(json.dumps(config))
        assert told(checkpoints.load_sae(folder))[0] == site
        arrays = {**llama_arrays(np.float32), "log_jumprelu_threshold": draw(S)}
        config |= {"sae_type": "sae", "norm_activation": "inference"}
        folder = put(tmp_path / "two", "sae_weights.safetensors", arrays, config=config)
        assert told(checkpoints.load_sae(folder))[0] == site


def test_gemma_scope_reads_whole_folder_names(tmp_path):
    root = tmp_path / "layer_3_tries" / "resid_post" / "layer_8"
    tail = "layer_12/width_16k/average_l0_82"
    arrays = {"W_enc": draw(D, S), "W_dec": draw(S, D), "b_enc": draw(S), "b_dec": draw(D)}
    arrays["threshold"] = np.abs(draw(S))
    folder = put(root / "gemma-scope-2b-pt-mlp" / tail, "params.npz", arrays)
    assert told(checkpoints.load_sae(folder))[0] == "blocks.12.mlp_out"
    newer = root / "gemma-scope-2-1b-pt" / "attn_out" / "layer_7_width_16k_l0_small"
    folder = put(newer, "params.safetensors", gemma_2_arrays())
    assert told(checkpoints.load_sae(folder))[0] == "blocks.7.attn_z"
    # Without such folders the config's words for modules count.
    for hook, site in (
        ("model.layers.7.output", "blocks.7.resid_post"),
        ("model.layers.7.post_feedforward_layernorm.output", "blocks.7.mlp_out"),
        ("model.layers.7.self_attn.o_proj.input", "blocks.7.attn_z"),
        ("model.layers.7.mlp.output", "blocks.7.mlp_module_out"),
        ("model.layers.7.mlp.down_proj.input", None),
    ):
        config = {"architecture": "jump_relu", "type": "sae", "hf_hook_point_in": hook}
        folder = put(tmp_path / "plain", "params.safetensors", gemma_2_arrays(), config=config)
        assert told(checkpoints.load_sae(folder))[0] == site


def test_a_crosscoders_config_says_which_module_it_reads(tmp_path):
    arrays = {**gemma_2_arrays(), "w_dec": draw(S, 2, D)}
    for hook, site in (
        (None, None),
        ("model.layers.{7,13}.output", "blocks.13.resid_post"),
        ("model.layers.{7,13}.mlp.output", "blocks.13.mlp_module_out"),
        ("model.layers.{7,13}.mlp.act_fn.output", None),
    ):
        config = {"architecture": "jump_relu", "type": "crosscoder", "hf_hook_point_in": hook}
        folder = put(tmp_path, "params_layer_1.safetensors", arrays, config=config)
        if hook is None:
            with pytest.raises(ValueError, match="must name the 2 blocks"):
                checkpoints.load_sae(folder / "params_layer_1.safetensors")
            continue
        assert told(checkpoints.load_sae(folder / "params_layer_1.safetensors"))[0] == site


def test_goodfires_layer_is_the_names_end(tmp_path):
    arrays = {
        **{"encoder_linear.weight": draw(S, D), "encoder_linear.bias": draw(S)},
        **{"decoder_linear.weight": draw(D, S), "decoder_linear.bias": draw(D)},
    }
    for name, site in (
        ("Model-l33t-SAE-l19.pth", "blocks.19.resid_post"),
        ("Model-l33t.pth", None),
    ):
        path = tmp_path / name
        torch_writer.write(path, arrays)
        assert told(checkpoints.load_sae(path))[0] == site


def test_sae_lens_is_given_the_hook_of_the_site_or_nothing(tmp_path):
    weights = {"W_enc_DS": draw(D, S), "b_enc_S": draw(S), "W_dec_SD": draw(S, D)}
    sae = saes.ReluSae(**weights, b_dec_D=draw(D))
    for site, hook in (
        ("embed", "hook_embed"),
        ("blocks.3.attn_z", "blocks.3.attn.hook_z"),
        ("blocks.3.attn_in_unscaled", "blocks.3.ln1.hook_normalized"),
        ("model.layers.3", "blocks.3.hook_resid_post"),
        (None, None),
    ):
        checkpoints.save_sae(tmp_path, sae, {"site": site}, layout="sae_lens")
        metadata = json.loads((tmp_path / "cfg.json").read_text())["metadata"]
        assert metadata["hook_name"] == hook
    for site in ("blocks.3.mlp_in", "blocks.3.attn_module_out", "blocks.3.mlp_module_out"):
        with pytest.raises(ValueError, match=f"no hook of TransformerLens.* gives `{site}`"):
            checkpoints.save_sae(tmp_path / "none", sae, {"site": site}, layout="sae_lens")
    assert not (tmp_path / "none").exists()
