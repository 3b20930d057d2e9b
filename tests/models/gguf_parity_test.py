"""GGUF files of every architecture and storage type against transformers on the same dequantised weights."""

import gguf
import numpy as np
import pytest

from jaxprobe.base import Site
from jaxprobe.models import load_model, make_forward
from tests.models import families

torch = pytest.importorskip("torch", reason="torch is missing: install the `parity` extra")
transformers = pytest.importorskip(
    "transformers", reason="transformers is missing: install the `parity` extra"
)
pytestmark = pytest.mark.filterwarnings("ignore::Warning")

# Rows of whole quantised blocks of 32.
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
}
# Architecture in the file, case of `families`, storage type of matrices.
CASES = [
    ("gemma", "gemma1", "F16"),
    ("gemma2", "gemma2", "Q8_0"),
    ("gemma3", "gemma3", "BF16"),
    ("llama", "llama2", "Q8_0"),
    ("llama", "llama3.1", "F32"),
    ("llama", "llama_biases", "BF16"),
    ("qwen2", "qwen2", "Q5_0"),
    ("qwen3", "qwen3", "F16"),
    ("qwen2", "qwen2.5_yarn", "F16"),
    ("llama", "llama_yarn", "F32"),
    ("gemma3", "gemma3_yarn", "F32"),
]
FIRST_OF_KIND = list({kind: (name, case, kind) for name, case, kind in reversed(CASES)}.values())
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
}
LLAMA_NORMS = {"post_attention_layernorm": "ffn_norm"}
GEMMA_NORMS = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def tensors(model, architecture):
    """(name in the file, parameter) of every tensor."""
    norms = GEMMA_NORMS if architecture in ("gemma2", "gemma3") else LLAMA_NORMS
    yield "token_embd.weight", model.model.embed_tokens.weight
    yield "output_norm.weight", model.model.norm.weight
    for number, layer in enumerate(model.model.layers):
        for name, parameter in layer.named_parameters():
            stem, ending = name.rsplit(".", 1)
            yield f"blk.{number}.{(NAMES | norms)[stem]}.{ending}", parameter


def turned(rows, heads):
    """Row i and row i + half of a head become neighbours, as the llama converter lays them."""
    d_head = len(rows) // heads
    half = d_head // 2
    order = [
        h * d_head + part * half + i for h in range(heads) for i in range(half) for part in (0, 1)
    ]
    return rows[order]


def write(path, model, architecture, kind):
    """Writes the model, and puts what the storage type makes of its weights back into it."""
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_context_length(64)
    rope = config.rope_parameters
    if architecture in ("gemma2", "gemma3"):
        writer.add_sliding_window(config.sliding_window)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    if architecture == "gemma3":
        writer.add_float32("gemma3.rope.freq_base_swa", rope["sliding_attention"]["rope_theta"])
        rope = rope["full_attention"]
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        if "beta_fast" in rope:
            writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
            writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
    if rope["rope_type"] == "llama3":
        plain = rope["rope_theta"] ** -(np.arange(0, config.head_dim, 2) / config.head_dim)
        scaled = model.model.rotary_emb.inv_freq.numpy()
        writer.add_tensor("rope_freqs.weight", (plain / scaled).astype(np.float32))
    writer.add_tokenizer_model("llama")
    writer.add_add_space_prefix(False)
    writer.add_token_list([f"<{i}>" for i in range(config.vocab_size)])
    writer.add_token_types([1] * config.vocab_size)
    writer.add_token_scores([0.0] * config.vocab_size)
    writer.add_bos_token_id(1)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(0)
    for name, parameter in tensors(model, architecture):
        values = parameter.detach().numpy()
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
        part = name.split(".")[-2]
        if values.ndim == 1:
            plus = 1 if architecture.startswith("gemma") else 0
            stored = values + np.float32(plus)
            if architecture == "llama" and part in heads:
                stored = turned(stored, heads[part])
            writer.add_tensor(name, np.ascontiguousarray(stored))
            continue
        kind_id = gguf.GGMLQuantizationType[kind]
        # A row is quantised alone, so turning rows commutes with it.
        exact = gguf.dequantize(gguf.quantize(values, kind_id), kind_id)
        if architecture == "llama" and part in heads:
            values = np.ascontiguousarray(turned(values, heads[part]))
        writer.add_tensor(name, gguf.quantize(values, kind_id), raw_dtype=kind_id)
        with torch.no_grad():
            parameter.copy_(torch.tensor(exact.reshape(parameter.shape)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(("architecture", "case", "kind"), CASES)
def test_every_block_equals_transformers(tmp_path, architecture, case, kind):
    # What GGUF has no field for is what the architecture's own models have.
    implied = {"query_pre_attn_scalar": 24} if case.startswith("gemma") else {"hidden_act": "silu"}
    if case == "gemma3_yarn":
        implied |= {"num_hidden_layers": 6, "layer_types": None}  # every sixth sees all
    if case == "llama_yarn":
        fields = families.CASES[case][1]["rope_parameters"]
        spared = ("truncate", "attention_factor")
        implied |= {"rope_parameters": {k: v for k, v in fields.items() if k not in spared}}
    theirs = families.make(case, **SIZES, **implied)
    path = tmp_path / "tiny.gguf"
    write(path, theirs, architecture, kind)
    rng = np.random.default_rng(0)
    tokens_BT = rng.integers(3, 96, (2, 30), dtype=np.int32)
    seen = []
    for block in theirs.model.layers:
        block.register_forward_hook(
            lambda _m, _i, out: seen.append(out[0] if isinstance(out, tuple) else out)
        )
    with torch.no_grad():
        theirs.model(torch.tensor(tokens_BT), use_cache=False)
    ours = load_model(path, "float32")
    sites = [Site(block=block, stream="resid_post") for block in range(ours.num_blocks)]
    got = make_forward(ours, sites, "tokens")(tokens_BT, np.array([30, 30], np.int32))
    for site, wanted in zip(sites, seen, strict=True):
        gap = np.linalg.norm(got[site] - wanted.numpy(), axis=-1)
        error = (gap / np.linalg.norm(wanted.numpy(), axis=-1)).max()
        assert error < 1e-4, (str(site), error)
    if (architecture, case, kind) not in FIRST_OF_KIND:
        return
    rounded = load_model(path, "bfloat16")  # every storage type also loads in mixed precision
    near = make_forward(rounded, sites[-1:], "tokens")(tokens_BT, np.array([30, 30], np.int32))
    wanted = seen[-1].numpy()
    gap = np.linalg.norm(near[sites[-1]] - wanted, axis=-1) / np.linalg.norm(wanted, axis=-1)
    assert gap.max() < 0.1
