"""config.json as it is published: what is read, and what is refused by name."""

import math

import numpy as np
import pytest

from jaxprobe.models.hf_config import read_config

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 4,
    "vocab_size": 100,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}
GEMMA2 = {**LLAMA, "model_type": "gemma2", "head_dim": 16, "sliding_window": 8}
del GEMMA2["hidden_act"]
NEOX = {
    **{
        k: v
        for k, v in LLAMA.items()
        if k not in ("rms_norm_eps", "num_key_value_heads", "rope_theta")
    },
    **{"model_type": "gpt_neox", "hidden_act": "gelu", "rotary_pct": 0.25, "rotary_emb_base": 1e4},
    **{"layer_norm_eps": 1e-5, "use_parallel_residual": True},
}


def test_llama_3_1_as_published():
    scaling = {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    }
    config, _ = read_config({**LLAMA, "rope_scaling": scaling, "head_dim": 128})
    rotary = config.rotary[0]
    assert (rotary.base, rotary.width) == (500000.0, 128)
    # transformers' formula, written out for one frequency of each range.
    for index in (0, 32, 63):
        frequency = 500000.0 ** (-2 * index / 128)
        wavelength = 2 * math.pi / frequency
        if wavelength < 8192 / 4:
            wanted = frequency
        elif wavelength > 8192:
            wanted = frequency / 8
        else:
            smooth = (8192 / wavelength - 1) / 3
            wanted = (1 - smooth) * frequency / 8 + smooth * frequency
        np.testing.assert_allclose(frequency / rotary.divisors[index], wanted, rtol=1e-12)
    assert config.query_scale == 128**-0.5


def test_gemma_3_4b_as_published():
    text = {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }
    published = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "boi_token_index": 255999,
        "eoi_token_index": 256000,
        "eos_token_id": [1, 106],
        "image_token_index": 262144,
        "initializer_range": 0.02,
        "mm_tokens_per_image": 256,
        "model_type": "gemma3",
        "text_config": text,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.50.0.dev0",
        "vision_config": {"hidden_size": 1152},
    }
    config, _ = read_config(published)
    assert (config.num_heads, config.num_kv_heads, config.d_head) == (8, 4, 256)
    assert [block for block, window in enumerate(config.windows) if window is None] == [
        5,
        11,
        17,
        23,
        29,
    ]
    near, far = config.rotary[0], config.rotary[5]
    assert (near.base, near.divisors) == (10_000.0, None)
    assert (far.base, set(far.divisors)) == (1_000_000.0, {8.0})
    assert config.vocab_size == 262_208
    with pytest.raises(ValueError, match="`use_bidirectional_attention`"):
        read_config({**published, "text_config": {**text, "use_bidirectional_attention": True}})


def test_gemma_2_and_pythia_as_published():
    config, _ = read_config(GEMMA2)
    assert config.windows == (8, None, 8, None)
    assert (config.attention_soft_cap, config.query_scale) == (50.0, 1 / 16)
    assert config.embedding_scale == 8.0
    config, family = read_config(NEOX)
    assert (config.rotary[0].width, config.rotary[0].base) == (4, 10_000.0)
    assert config.parallel_residual and config.activation == "gelu" and family.layout == "gpt_neox"


@pytest.mark.parametrize(
    ("base", "name", "value"),
    [
        (LLAMA, "rope_scaling", {"rope_type": "proportional", "factor": 4.0}),
        (LLAMA, "rope_scaling", {"type": "su", "factor": 4.0}),
        (LLAMA, "rope_scaling", {"type": "mrope", "mrope_section": [8, 12, 12]}),
        (LLAMA, "a_field_of_the_future", 1),
        (LLAMA, "attn_logit_softcapping", 30.0),
        (LLAMA, "sliding_window", 4096),
        (LLAMA, "quantization_config", {"bits": 4}),
        (LLAMA, "hidden_act", "quick_gelu"),
        (LLAMA, "num_key_value_heads", 3),
        (LLAMA, "partial_rotary_factor", 0.5),
        (LLAMA, "query_pre_attn_scalar", 7),
        (LLAMA, "num_experts", 8),
        (GEMMA2, "layer_types", ["full_attention", "chunked_attention"] * 2),
        (GEMMA2, "layer_types", ["full_attention"]),
        (GEMMA2, "hidden_activation", "mish"),
        (GEMMA2, "hidden_act", "silu"),
        (GEMMA2, "sliding_window_size", 9),
        (LLAMA, "use_mrope", True),
        (GEMMA2, "use_bidirectional_attention", True),
        (NEOX, "sliding_window", 5),
    ],
)
def test_what_would_change_the_mathematics_is_refused_by_name(base, name, value):
    word = "rope_type" if name == "rope_scaling" else name
    with pytest.raises(ValueError, match=word):
        read_config({**base, name: value})


def test_qwen_2_5_with_yarn_as_its_card_says():
    card = {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}
    raw = {**LLAMA, "model_type": "qwen2", "head_dim": 128, "rope_theta": 1e6}
    config, _ = read_config({**raw, "max_position_embeddings": 32768, "rope_scaling": card})
    rotary = config.rotary[0]
    assert rotary.magnitude == pytest.approx(1.1386294361)
    # The paper's ramp: a frequency that turns 32 times in the first context is kept, one that turns
    # once is divided by 4; numbers of such frequencies, rounded outwards, and a line between.
    turns = 32768 / (2 * math.pi) * 1e6 ** -(np.arange(0, 128, 2) / 128)
    first, last = np.flatnonzero(turns > 32)[-1], np.flatnonzero(turns < 1)[0]
    share = np.clip((np.arange(64) - first) / (last - first), 0, 1)
    np.testing.assert_allclose(1 / np.array(rotary.divisors), share / 4 + 1 - share, rtol=1e-12)
    # As published models say it: a flag on how it came about, and the length outside.
    moved = {"factor": 4.0, "type": "yarn", "finetuned": True}
    outside = {**raw, "rope_scaling": moved, "original_max_position_embeddings": 32768}
    assert read_config(outside)[0] == config
    over = {**moved, "original_max_position_embeddings": 9}  # transformers takes the one outside
    assert read_config({**outside, "rope_scaling": over})[0] == config


def test_plain_rotations_keep_the_words_that_old_fingerprints_were_made_of():
    config, _ = read_config(LLAMA)
    assert repr(config.rotary[0]) == "Rotary(base=500000.0, width=16, divisors=None)"


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"rope_type": "yarn"}, "'yarn' of config.json needs `factor`"),
        ({"rope_type": "yarn", "factor": 4.0, "attn_factor": 1.0}, "`attn_factor` = 1.0"),
        ({"rope_type": "dynamic", "factor": 4.0, "beta_fast": 1.0}, "`beta_fast` = 1.0"),
        ({"rope_type": "longrope", "long_factor": [1.0] * 8}, "needs `short_factor`"),
        (
            {"rope_type": "longrope", "long_factor": [1.0] * 8, "short_factor": [1.0] * 7},
            "`short_factor` of config.json must be a list of 8 numbers, got 7 of them",
        ),
        (
            {"rope_type": "longrope", "long_factor": 3.0, "short_factor": [1.0] * 8},
            "`long_factor` of config.json must be a list of 8 numbers, got 3.0",
        ),
    ],
)
def test_fields_of_a_scaling_are_checked(scaling, message):
    with pytest.raises(ValueError, match=message):
        read_config({**LLAMA, "rope_scaling": scaling})


def test_scalings_that_transformers_reads_in_another_way_are_refused():
    yarn = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}
    with pytest.raises(ValueError, match="`rope_parameters` or the older `rope_scaling`, got both"):
        read_config({**LLAMA, "rope_parameters": yarn, "rope_scaling": yarn})
    gemma = {**GEMMA2, "model_type": "gemma3_text", "rope_scaling": {**yarn, "truncate": False}}
    with pytest.raises(ValueError, match="`truncate` = False is not understood"):
        read_config(gemma)
    with pytest.raises(ValueError, match="`original_max_position_embeddings` of"):
        gemma = {**gemma, "rope_scaling": yarn, "original_max_position_embeddings": 512}
        read_config(gemma)
    without = {k: v for k, v in LLAMA.items() if k != "max_position_embeddings"}
    with pytest.raises(ValueError, match="needs `max_position_embeddings`"):
        read_config({**without, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}})
    with pytest.raises(ValueError, match="heads of 4 or more, got 2"):
        dynamic = {"rope_type": "dynamic", "factor": 2.0}
        read_config({**LLAMA, "head_dim": 2, "rope_scaling": dynamic})


def test_rotary_fields_are_refused_by_name():
    with pytest.raises(ValueError, match="attention_factor"):
        scaling = {"rope_type": "linear", "factor": 2.0, "attention_factor": 1.5}
        read_config({**LLAMA, "rope_scaling": scaling})
    with pytest.raises(ValueError, match="needs `factor`"):
        read_config({**LLAMA, "rope_scaling": {"rope_type": "linear"}})


def test_neutral_values_and_missing_fields():
    config, _ = read_config({**LLAMA, "quantization_config": None, "pretraining_tp": 1})
    assert config.windows == (None,) * 4
    with pytest.raises(ValueError, match=r"one of gemma, gemma2.*got 'mixtral'"):
        read_config({**LLAMA, "model_type": "mixtral"})
    # Fields that published files have besides those of transformers' classes.
    published = {"sliding_window_size": 8, "hidden_act": "gelu_pytorch_tanh"}
    published["hidden_activation"] = "gelu_pytorch_tanh"
    assert read_config({**GEMMA2, **published})[0] == read_config(GEMMA2)[0]
    assert read_config({**LLAMA, "model_type": "qwen2", "use_mrope": False})[0].query_bias
    with pytest.raises(ValueError, match="must have `hidden_size`"):
        read_config({k: v for k, v in LLAMA.items() if k != "hidden_size"})


def test_what_finetunes_and_other_libraries_leave_in_a_config_is_let_be():
    left = {
        "transformers.js_config": {},
        "max_sequence_length": 9,
        "temperature": 0.6,
        "top_p": 0.9,
    }
    left |= {"do_sample": True, "max_length": 4096, "tokenizer_class": "LlamaTokenizer"}
    assert read_config({**LLAMA, **left})[0] == read_config(LLAMA)[0]
    mistral = {**LLAMA, "model_type": "mistral", "sliding_window": None}
    same = {**mistral, "attention_bias": False, "mlp_bias": False}
    assert read_config(same)[0] == read_config(mistral)[0]
    with pytest.raises(ValueError, match="attention_bias"):
        read_config({**mistral, "attention_bias": True})


def test_gpt_neox_turns_by_the_fields_that_transformers_reads():
    transformers = pytest.importorskip("transformers", reason="install the `parity` extra")
    given = {**NEOX, "rotary_emb_base": 77.0, "rotary_pct": 0.5}
    theirs = transformers.GPTNeoXConfig(**{**given, "rope_theta": 77.0}).rope_parameters
    ours = read_config({**given, "rope_theta": 77.0})[0].rotary[0]
    assert (ours.base, ours.width) == (theirs["rope_theta"], 16 * theirs["partial_rotary_factor"])
    bare = {name: value for name, value in NEOX.items() if not name.startswith("rotary")}
    theirs = transformers.GPTNeoXConfig(**{**bare, "rope_theta": 55.0}).rope_parameters
    assert theirs["rope_theta"] == read_config(bare)[0].rotary[0].base == 10_000
    for name in ("rope_theta", "partial_rotary_factor"):
        with pytest.raises(ValueError, match=f"`{name}` of a gpt_neox config.json must be"):
            read_config({**bare, name: 0.75})
