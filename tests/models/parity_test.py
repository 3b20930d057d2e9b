"""The forward pass against Hugging Face transformers, an independent implementation."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxprobe import tokens
from jaxprobe.base import Site
from jaxprobe.models import load_model, make_forward
from tests.models import without_vocabulary

torch = pytest.importorskip("torch", reason="torch is missing: install the `parity` extra")
transformers = pytest.importorskip(
    "transformers", reason="transformers is missing: install the `parity` extra"
)
pytestmark = pytest.mark.filterwarnings("ignore::Warning")

FIXTURE = Path(__file__).parents[1] / "fixtures" / "token_ids.json"
BLOCKS = (5, 9, 12, 17)


def last_vectors(reference, blocks, ids):
    """[len(ids), len(blocks), D]: the output of each block at the last token, one prompt at a time."""
    seen = {}

    def keep(block):
        def hook(_module, _inputs, output):
            hidden = output[0] if isinstance(output, tuple) else output
            seen[block] = hidden[0, -1].numpy().copy()

        return hook

    handles = [reference.model.layers[b].register_forward_hook(keep(b)) for b in blocks]
    rows = []
    with torch.no_grad():
        for row in ids:
            reference.model(torch.tensor(np.asarray(row)[None]), use_cache=False)
            rows.append(np.stack([seen[block] for block in blocks]))
    for handle in handles:
        handle.remove()
    return np.stack(rows)


def our_vectors(model, blocks, ids, buckets, batch_tokens=256):
    sites = [Site(block=block, stream="resid_post") for block in blocks]
    forward = make_forward(model, sites)
    got = np.full((len(ids), len(blocks), model.d_model), np.nan, np.float32)
    for batch in tokens.batches(ids, buckets=buckets, batch_tokens=batch_tokens):
        out = forward(batch.tokens_BT, batch.length_B)
        real = batch.prompt_B >= 0
        for column, site in enumerate(sites):
            got[batch.prompt_B[real], column] = np.asarray(out[site])[real]
    return got


def relative_error(got, wanted):
    return np.linalg.norm(got - wanted, axis=-1) / np.linalg.norm(wanted, axis=-1)


@pytest.fixture(scope="module")
def tiny_reference(tiny_tensors):
    config = transformers.Gemma3TextConfig(
        vocab_size=320,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=7,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=16,
        sliding_window=5,
        query_pre_attn_scalar=16,
        max_position_embeddings=64,
        rms_norm_eps=1e-6,
        attn_implementation="eager",
    )
    reference = transformers.Gemma3ForCausalLM(config).eval()
    theirs = {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "attn_output": "self_attn.o_proj",
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
        "post_ffw_norm": "post_feedforward_layernorm",
    }
    state = {
        "model.embed_tokens.weight": tiny_tensors["token_embd.weight"],
        "lm_head.weight": tiny_tensors["token_embd.weight"],
        "model.norm.weight": tiny_tensors["output_norm.weight"] - 1,
    }
    for block in range(7):
        for ours, name in theirs.items():
            tensor = tiny_tensors[f"blk.{block}.{ours}.weight"]
            state[f"model.layers.{block}.{name}.weight"] = (
                tensor - 1 if tensor.ndim == 1 else tensor
            )
    reference.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    return reference


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("bfloat16", 5e-2)])
def test_tiny_random_model_at_every_block(tiny_path, tiny_reference, dtype, tolerance):
    rng = np.random.default_rng(1)
    ids = [rng.integers(4, 320, n, dtype=np.int32) for n in (1, 2, 5, 6, 7, 19, 40, 60)]
    wanted = last_vectors(tiny_reference, range(7), ids)
    got = our_vectors(load_model(tiny_path, dtype), range(7), ids, (8, 64))
    error = relative_error(got, wanted)
    assert error.max() < tolerance, error.round(6)


@pytest.fixture(scope="module")
def demo_reference(demo_path, tmp_path_factory):
    """Transformers' own reading of the same file, in float32."""
    path = tmp_path_factory.mktemp("demo") / "demo.gguf"
    without_vocabulary.write(demo_path, path, "gemma3")
    return transformers.AutoModelForCausalLM.from_pretrained(
        str(path.parent),
        gguf_file=path.name,
        dtype=torch.float32,
        attn_implementation="eager",
    ).eval()


@pytest.fixture(scope="module")
def prompts():
    """Ids with BOS: BOS alone, one token, real prompts, and a prompt beyond the window of 512."""
    real = [row for _, row in json.loads(FIXTURE.read_text())]
    long = [token for row in real[60::2] for token in row]
    short = [[], [2364], *(row for row in (*real[21:24], *real[40::40]) if len(row) < 32)]
    return [np.array([2, *row], np.int32) for row in (*short, long[:530])]


@pytest.fixture(scope="module")
def demo_vectors(demo_reference, prompts):
    return last_vectors(demo_reference, BLOCKS, prompts)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 2e-2)])
def test_demo_model(demo_path, demo_vectors, prompts, dtype, tolerance):
    assert [len(row) > 512 for row in prompts] == [False] * 11 + [True]
    # Short prompts, of another shape, in float32 alone: the tiny model has them in both formats.
    part = slice(None) if dtype == "float32" else slice(-1, None)
    got = our_vectors(load_model(demo_path, dtype), BLOCKS, prompts[part], (32, 544), 544)
    error = relative_error(got, demo_vectors[part])
    assert error.max() <= tolerance, error.round(6)
