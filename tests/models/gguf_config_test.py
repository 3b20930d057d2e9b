import math
import struct

import numpy as np
import pytest

from jaxprobe.gguf_file import open_gguf
from jaxprobe.models import gguf_config, load_model
from jaxprobe.models.rotary import Rotary


def test_config_says_what_the_metadata_says(tiny_path):
    config = gguf_config.read_config(open_gguf(tiny_path))
    assert (config.d_model, config.num_blocks, config.d_mlp) == (48, 7, 80)
    assert (config.num_heads, config.num_kv_heads, config.d_head) == (6, 3, 16)
    assert config.windows == (5, 5, 5, 5, 5, None, 5)
    assert [rotary.base for rotary in config.rotary] == [1e4] * 5 + [1e6, 1e4]
    assert config.query_scale == 0.25
    assert config.embedding_scale == 48**0.5


def test_demo_config(demo_path):
    config = gguf_config.read_config(open_gguf(demo_path))
    # The published config.json of google/gemma-3-270m.
    assert (config.d_model, config.num_blocks, config.d_mlp) == (640, 18, 2048)
    assert (config.num_heads, config.num_kv_heads, config.d_head) == (4, 1, 256)
    assert [block for block, window in enumerate(config.windows) if window is None] == [5, 11, 17]
    assert set(config.windows) == {512, None}
    assert config.query_scale == 1 / 16


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope.scaling.type", "yarn"),  # without a factor
        ("rope.scaling.type", "longrope"),
        ("rope.scaling.attn_factor", 1.5),
        ("rope.scaling.yarn_attn_factor", 1.5),
        ("rope.scaling.yarn_ext_factor", 1.0),  # without yarn
        ("rope.scaling.yarn_log_multiplier", 0.1),
        ("rope.scaling.factor", 8.0),
        ("attn_logit_softcapping", 50.0),
        ("attention.causal", False),
        ("expert_count", 4),
        ("a.key.of.the.future", 1),
        ("rope.dimension_count", 8),
        ("attention.value_length", 32),
        ("attention.head_count_kv", 4),
    ],
)
def test_what_would_change_the_mathematics_is_refused_by_name(make_tiny, key, value):
    with pytest.raises(ValueError, match=f"gemma3.{key}"):
        gguf_config.read_config(open_gguf(make_tiny(metadata={key: value})))


def test_another_architecture_is_refused_with_the_files_whole_path(tmp_path):
    path = tmp_path / "other.gguf"
    key, name = b"general.architecture", b"x" * 100_000
    entry = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(name)) + name
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + entry)
    with pytest.raises(ValueError, match=rf"^{path} must hold one of the arch.*, got 'x+\.\.\.$"):
        gguf_config.read_config(open_gguf(path))


def test_neutral_values_and_other_patterns_are_read(make_tiny):
    neutral = {"rope.scaling.type": "none", "attention.causal": True, "rope.dimension_count": 16}
    pattern = {"attention.sliding_window_pattern": 3, "rope.freq_base_swa": 500.0}
    config = gguf_config.read_config(open_gguf(make_tiny(metadata={**neutral, **pattern})))
    assert config.windows == (5, 5, None, 5, 5, None, 5)
    assert [rotary.base for rotary in config.rotary] == [
        500.0,
        500.0,
        1e6,
        500.0,
        500.0,
        1e6,
        500.0,
    ]


def test_yarn_falls_back_to_the_context_length(make_tiny):
    yarn = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}
    config = gguf_config.read_config(open_gguf(make_tiny(metadata=yarn)))
    given = {
        **yarn,
        "rope.scaling.original_context_length": 64,
        "rope.scaling.yarn_ext_factor": 1.0,
    }
    same = gguf_config.read_config(open_gguf(make_tiny(metadata=given)))
    assert same == config
    # Blocks with a window have a base of their own, never scaled; at 64 tokens the slowest of a
    # million are divided whole, the fastest turns 10 times and is ramped.
    far, near = config.rotary[5], config.rotary[4]
    assert type(near) is Rotary and near.divisors is None
    assert far.divisors[0] == 1.0 and far.divisors[2:] == (4.0,) * 6
    assert far.attention_factor == pytest.approx(1 + math.log(4) / 10)
    with pytest.raises(ValueError, match=r"gemma3.rope.scaling.yarn_ext_factor` must be 1.0"):
        half = {**yarn, "rope.scaling.yarn_ext_factor": 0.5}
        gguf_config.read_config(open_gguf(make_tiny(metadata=half)))


def test_other_architectures_and_missing_keys_are_refused(make_tiny):
    with pytest.raises(ValueError, match=r"gemma3, llama.*got 'phi3'"):
        gguf_config.read_config(open_gguf(make_tiny(architecture="phi3")))
    with pytest.raises(ValueError, match=r"gemma3\.block_count"):
        gguf_config.read_config(open_gguf(make_tiny(metadata={"block_count": None})))


def test_missing_unknown_and_misshapen_tensors_are_refused(make_tiny, tiny_tensors):
    some = dict(tiny_tensors)
    del some["blk.3.attn_k.weight"]
    with pytest.raises(ValueError, match=r"missing \['blk\.3\.attn_k\.weight'\]"):
        load_model(make_tiny(tensors=some))
    bias = {"blk.0.attn_q.bias": np.zeros(96, np.float32)}
    with pytest.raises(ValueError, match=r"not understood \['blk\.0\.attn_q\.bias'\]"):
        load_model(make_tiny(tensors={**tiny_tensors, **bias}))
    wrong = {"blk.0.ffn_up.weight": np.zeros((80, 32), np.float32)}
    with pytest.raises(ValueError, match=r"blk\.0\.ffn_up\.weight"):
        load_model(make_tiny(tensors={**tiny_tensors, **wrong}))
