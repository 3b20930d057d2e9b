"""What names of places mean, by library; `models/site_names_test.py` holds them against real hooks."""

import pytest

from jaxprobe import sites
from jaxprobe.base import STREAMS, Site
from jaxprobe.sites import site_named

# Library -> name -> our site, or a word of the sentence by which it is refused.
NAMES = {
    "any": {
        **{"hook_embed": "embed", "model.embed_tokens": "embed", "gpt_neox.embed_in": "embed"},
        **{"embed_tokens.output": "embed", "model.language_model.embed_tokens": "embed"},
        "blocks.12.hook_resid_pre": "blocks.12.resid_pre",
        "model.layers.12.input": "blocks.12.resid_pre",
        "blocks.12.hook_resid_mid": "blocks.12.resid_mid",
        "blocks.12.hook_resid_post": "blocks.12.resid_post",
        "model.layers.12": "blocks.12.resid_post",
        "model.layers.12.output": "blocks.12.resid_post",
        "layers.12": "blocks.12.resid_post",
        "gpt_neox.layers.12": "blocks.12.resid_post",
        "language_model.model.layers.12": "blocks.12.resid_post",
        "model.language_model.layers.12": "blocks.12.resid_post",
        "transformer.h.3": "blocks.3.resid_post",
        "blocks.3.attn.hook_z": "blocks.3.attn_z",
        "model.layers.3.self_attn.o_proj.input": "blocks.3.attn_z",
        "gpt_neox.layers.3.attention.dense.input": "blocks.3.attn_z",
        "blocks.3.hook_attn_out": "blocks.3.attn_out",
        "model.layers.3.self_attn": "blocks.3.attn_module_out",
        "model.layers.3.self_attn.o_proj": "blocks.3.attn_module_out",
        "gpt_neox.layers.3.attention.output": "blocks.3.attn_module_out",
        "blocks.3.hook_mlp_out": "blocks.3.mlp_out",
        "model.layers.3.post_feedforward_layernorm.output": "blocks.3.mlp_out",
        "model.layers.3.mlp": "blocks.3.mlp_module_out",
        "gpt_neox.layers.3.mlp.output": "blocks.3.mlp_module_out",
        "model.layers.3.post_feedforward_layernorm.input": "blocks.3.mlp_module_out",
        "model.layers.3.mlp.down_proj": "blocks.3.mlp_module_out",
        "model.layers.3.mlp.input": "blocks.3.mlp_in",
        "model.layers.3.mlp.gate_proj.input": "blocks.3.mlp_in",
        "model.layers.3.pre_feedforward_layernorm.output": "blocks.3.mlp_in",
        "model.layers.3.pre_feedforward_layernorm.input": "blocks.3.resid_mid",
        "blocks.3.ln1.hook_normalized": "blocks.3.attn_in_unscaled",
        "blocks.3.ln2.hook_normalized": "blocks.3.mlp_in_unscaled",
        # Without a stream, or of another model than HookedTransformer.
        "blocks.3.attn.hook_pattern": "attention between pairs of tokens",
        "blocks.3.attn.hook_q": "queries, keys or values",
        "blocks.3.attn.hook_result": "each head's own part",
        "blocks.3.hook_attn_in": "a copy of `resid_pre` for every head",
        "blocks.3.mlp.hook_post": "the MLP's neurons",
        "blocks.3.ln2_post.hook_normalized": "a post norm's output without its weight",
        "blocks.3.ln2.hook_scale": "a norm's divisor",
        "blocks.3.mlp.hook_in": "only of TransformerLens's TransformerBridge",
        "blocks.3.ln2.hook_out": "only of TransformerLens's TransformerBridge",
        "blocks.3.hook_out": "only of TransformerLens's TransformerBridge",
        "blocks.3.mlp.hook_expert_indices": "a router's choice",
        "ln_final.hook_normalized": "final norm",
        "model.norm": "final norm",
        "model.layers.3.self_attn.input": "`attn_in_unscaled` is without",
        "model.layers.3.input_layernorm": "`attn_in_unscaled` is without",
        "model.layers.3.self_attn.q_proj": "queries, keys or values",
        "model.layers.3.mlp.act_fn": "the MLP's neurons",
        "model.layers.3.mlp.down_proj.input": "the MLP's neurons",
        "model.embed_tokens.input": "the tokens' ids",
        "transformer.wte": "`embed` is what the first block reads",
        # Several meanings.
        "blocks.3.hook_mlp_in": "two meanings.*resid_mid in TransformerLens, mlp_in in SAELens",
        "model.layers.3.post_attention_layernorm": "two meanings.*attn_out in Gemma 2 and 3, mlp_in",
        "model.layers.3.post_attention_layernorm.input": "two meanings.*attn_module_out in Gemma",
    },
    "transformer_lens": {
        "blocks.3.hook_mlp_in": "blocks.3.resid_mid",
        "blocks.3.resid_post": "another library's name of one",
        "model.layers.3": "another library's name of one",
    },
    "llama_scope": {
        "blocks.15.hook_resid_post": "blocks.15.resid_post",
        "blocks.15.hook_attn_out": "blocks.15.attn_out",
        "blocks.15.hook_mlp_out": "blocks.15.mlp_out",
        "blocks.15.ln2.hook_normalized": "blocks.15.mlp_in_unscaled",
    },
    "sae_lens": {
        "blocks.3.hook_mlp_in": "blocks.3.resid_mid",
        "model.layers.3.mlp": "blocks.3.mlp_module_out",
    },
    "sae_lens_transcoder": {
        "blocks.3.hook_mlp_in": "blocks.3.mlp_in",
        "blocks.3.mlp.hook_in": "only of TransformerLens's TransformerBridge",
    },
    "sparsify": {
        "embed_tokens": "embed",
        "layers.10": "blocks.10.resid_post",
        "layers_10": "blocks.10.resid_post",
        "h.10": "blocks.10.resid_post",
        "layers.3.mlp": "blocks.3.mlp_module_out",
        "layers.3.self_attn": "blocks.3.attn_module_out",
        "layers.3.attention": "blocks.3.attn_module_out",
        "layers.3.post_attention_layernorm": "two meanings",
        "blocks.3.hook_resid_post": "another library's name of one",
    },
    "dictionary_learning": {
        "resid_post_layer_12": "blocks.12.resid_post",
        "resid_out_layer12": "blocks.12.resid_post",
        "resid_layer_12": "blocks.12.resid_post",
        "resid_pre_layer_3": "blocks.3.resid_pre",
        "resid_mid_layer_3": "blocks.3.resid_mid",
        "mlp_in_layer_3": "blocks.3.mlp_in",
        "mlp_out_layer_3": "blocks.3.mlp_module_out",
        "mlp_layer3": "blocks.3.mlp_module_out",
        "attn_out_layer3": "blocks.3.attn_module_out",
        "attention_layer_3": "blocks.3.attn_module_out",
        "gpt_neox.layers.3.mlp": "blocks.3.mlp_module_out",
        "resid_postlude_layer_3": "another library's name of one",
        "mlp_gate_layer_3": "another library's name of one",
    },
}
INPUTS = {  # names that stand for a module's input
    "sparsify": {
        "layers.3.mlp": "blocks.3.mlp_in",
        "layers.3": "blocks.3.resid_pre",
        "layers.3.self_attn": "`attn_in_unscaled` is without",
        "embed_tokens": "the tokens' ids",
    },
    "dictionary_learning": {
        "mlp_layer_3": "blocks.3.mlp_in",
        "resid_layer_3": "blocks.3.resid_pre",
        "resid_pre_layer_3": "blocks.3.resid_pre",
        "resid_post_layer_3": "correct one of them",
        "mlp_out_layer_3": "correct one of them",
        "attn_layer_3": "`attn_in_unscaled` is without",
        "gpt_neox.layers.3.mlp": "blocks.3.mlp_in",
    },
}


@pytest.mark.parametrize("port", ["output", "input"])
def test_a_name_means_its_librarys_tensor_or_is_refused_with_what_it_is(port):
    for library, names in (NAMES if port == "output" else INPUTS).items():
        for text, meaning in names.items():
            if meaning == "embed" or meaning.startswith("blocks."):
                assert str(site_named(text, library, port)) == meaning, (library, text)
                continue
            with pytest.raises(ValueError, match=meaning) as error:
                site_named(text, library, port)
            assert repr(text) in str(error.value) and "a site is `embed` or" in str(error.value)


def test_site_parse_reads_names_on_which_libraries_agree():
    for text, meaning in NAMES["any"].items():
        if meaning == "embed" or meaning.startswith("blocks."):
            assert str(Site.parse(text)) == meaning


def test_every_stream_is_read_back():
    for stream in STREAMS[1:]:
        site = Site(block=7, stream=stream)
        assert Site.parse(str(site)) == site


@pytest.mark.parametrize(
    "text",
    [
        *("", "blocks.3", "blocks.x.resid_post", "blocks.3.embed", "resid_post", "embed.0"),
        *("blocks.-1.resid_post", "blocks.3.resid_post ", "blocks.3.resid_post\n", "blocks.3.mlp"),
        *("blocks.3.hook_resid", "vision_tower.layers.3", "model.layers", "blocks.3.output"),
        *("blocks.3.resid_post.output", "blocks.03.resid_post", "blocks.٣.resid_post"),
        *("blocks.3.hook_resid_post.hook_sae_acts_post", f"blocks.{'9' * 5000}.resid_post"),
        *("model.layers.3.mlp.experts", "model.layers.3.block_sparse_moe", "lm_head"),
    ],
)
def test_other_texts_are_refused(text):
    for library in sites.LIBRARIES:
        with pytest.raises(ValueError, match="a site is `embed`"):
            site_named(text, library)


def test_where_nothing_stands_between_what_a_module_puts_out_is_what_is_added():
    for module, added in (("attn_module_out", "attn_out"), ("mlp_module_out", "mlp_out")):
        site = Site(block=2, stream=module)
        assert site.stored(post_norms=True) == site
        assert site.stored(post_norms=False) == Site(block=2, stream=added)
    for stream in set(STREAMS) - {"attn_module_out", "mlp_module_out"}:
        site = Site(block=2, stream=stream)
        assert site.stored(post_norms=True) == site.stored(post_norms=False) == site


def test_a_hooks_name_gives_the_site_back_or_there_is_none():
    without = {"mlp_in", "attn_module_out", "mlp_module_out"}
    for stream in STREAMS:
        site = Site(block=-1 if stream == "embed" else 4, stream=stream)
        if stream in without:
            with pytest.raises(ValueError, match=rf"no hook of TransformerLens.*gives `{site}`"):
                sites.transformer_lens_name(site)
        else:
            hook = sites.transformer_lens_name(site)
            assert site_named(hook, "transformer_lens") == site
