import pytest

from jaxprobe.base import STREAMS, Site

NAMES = {
    "embed": [
        *("hook_embed", "model.embed_tokens", "gpt_neox.embed_in", "embed_tokens"),
        "model.language_model.embed_tokens",
    ],
    "blocks.12.resid_pre": ["blocks.12.hook_resid_pre", "model.layers.12.input"],
    "blocks.12.resid_mid": ["blocks.12.hook_resid_mid"],
    "blocks.12.resid_post": [
        *("blocks.12.hook_resid_post", "model.layers.12", "model.layers.12.output", "layers.12"),
        *("gpt_neox.layers.12", "language_model.model.layers.12", "model.language_model.layers.12"),
    ],
    "blocks.3.attn_z": [
        *("blocks.3.attn.hook_z", "model.layers.3.self_attn.o_proj.input"),
        "gpt_neox.layers.3.attention.dense.input",
    ],
    "blocks.3.attn_out": [
        *(
            "blocks.3.hook_attn_out",
            "model.layers.3.self_attn",
            "gpt_neox.layers.3.attention.output",
        ),
    ],
    "blocks.3.mlp_out": [
        *(
            "blocks.3.hook_mlp_out",
            "model.layers.3.mlp",
            "layers.3.mlp",
            "gpt_neox.layers.3.mlp.output",
        ),
        "model.layers.3.post_feedforward_layernorm.output",
    ],
    "blocks.3.mlp_in": [
        *("model.layers.3.mlp.input", "model.layers.3.pre_feedforward_layernorm.output"),
        "blocks.3.mlp.hook_in",
    ],
}


def test_other_libraries_names_print_as_ours():
    for ours, others in NAMES.items():
        assert str(Site.parse(ours)) == ours
        for text in others:
            assert str(Site.parse(text)) == ours, text


def test_every_stream_is_read_back():
    for stream in STREAMS[1:]:
        site = Site(block=7, stream=stream)
        assert Site.parse(str(site)) == site


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "blocks.3",
            "blocks.x.resid_post",
            "blocks.3.embed",
            "resid_post",
            "blocks.-1.resid_post",
        ),
        *("blocks.3.resid_post ", "blocks.3.hook_resid", "vision_tower.layers.3", "model.layers"),
        *("model.layers.3.self_attn.q_proj", "model.norm", "embed.0", "blocks.3.resid_post.output"),
    ],
)
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match="a site is `embed`"):
        Site.parse(text)


def test_names_with_two_meanings_are_refused_with_both():
    with pytest.raises(ValueError, match=r"two meanings.*attn_out in Gemma.*mlp_in in other"):
        Site.parse("model.layers.3.post_attention_layernorm.output")
    with pytest.raises(ValueError, match=r"two meanings.*resid_mid in TransformerLens"):
        Site.parse("blocks.3.hook_mlp_in")
