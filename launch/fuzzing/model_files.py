"""Small valid model files: Hugging Face folders, GGUF, Orbax; and how all of their content is read."""

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import safetensors.numpy

from fuzzing.reader import Reader
from jaxprobe import tokens
from jaxprobe.models import flax_tree, gguf_model, hf_config, hf_directory, hf_names, parameters
from jaxprobe.models.checkpoint import Checkpoint

_SIZES = {
    **{"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 40},
    **{"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8},
}
_FAMILIES = {
    "llama": {
        "rope_scaling": {
            **{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0},
            **{"high_freq_factor": 4.0, "original_max_position_embeddings": 64},
        }
    },
    "gemma2": {"sliding_window": 8, "query_pre_attn_scalar": 8},
    "gemma3_text": {"sliding_window": 8, "query_pre_attn_scalar": 8},
    "mistral": {"sliding_window": None},
    "qwen2": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}, "max_position_embeddings": 64},
    "qwen3": {},
    "gpt_neox": {"rotary_pct": 0.25},
}


def folder_of(family: str, shards: int = 1) -> Callable[[Path], None]:
    """Makes a Hugging Face folder of one family, its weights in one file or in shards with an index."""

    def make(folder: Path) -> None:
        raw = {"model_type": family, **_SIZES, **_FAMILIES[family]}
        if family == "gpt_neox":  # has no grouped keys
            del raw["num_key_value_heads"], raw["head_dim"]
        (folder / "config.json").write_text(json.dumps(raw))
        arrays = _arrays(raw)
        if shards == 1:
            (folder / "model.safetensors").write_bytes(safetensors.numpy.save(arrays))
            return
        where = {name: f"model-{1 + at % shards:05d}.safetensors" for at, name in enumerate(arrays)}
        for file in set(where.values()):
            part = {name: arrays[name] for name in arrays if where[name] == file}
            (folder / file).write_bytes(safetensors.numpy.save(part))
        index = {"metadata": {"total_size": 1}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return make


def _arrays(raw: dict) -> dict[str, np.ndarray]:
    config, family = hf_config.read_config(raw)
    root = "gpt_neox." if family.layout == "gpt_neox" else "model."
    names, draw = hf_names.names(config, family.layout, root), np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for label, axes in parameters.labels(config).items():
        source = names[label]
        shape = source.split or tuple(axes.values())
        if source.name not in arrays:
            arrays[source.name] = draw.normal(size=_flat(shape)).astype(np.float16)
    return arrays


def _flat(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Files hold matrices and vectors: heads are split only in the model."""
    return shape if len(shape) < 3 else (int(np.prod(shape[:-1])), shape[-1])


def make_gguf(folder: Path) -> None:
    """A Llama in float32 with a SentencePiece vocabulary of 40 pieces."""
    writer = gguf.GGUFWriter(str(folder / "model.gguf"), "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(chr(97 + at) for at in range(26)),
        "\u2581",
        "ab",
        "\u2581a",
    ]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores([-float(at) for at in range(len(pieces))])
    writer.add_token_types([2, 3, 3, *([1] * (len(pieces) - 3))])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    draw, head = np.random.default_rng(0), 16
    shapes = {
        **{"token_embd.weight": (len(pieces), 32), "blk.0.attn_norm.weight": (32,)},
        **{"blk.0.attn_q.weight": (2 * head, 32), "blk.0.attn_k.weight": (head, 32)},
        **{"blk.0.attn_v.weight": (head, 32), "blk.0.attn_output.weight": (32, 2 * head)},
        **{"blk.0.ffn_norm.weight": (32,), "blk.0.ffn_gate.weight": (32, 32)},
        **{"blk.0.ffn_up.weight": (32, 32), "blk.0.ffn_down.weight": (32, 32)},
        "output_norm.weight": (32,),
    }
    for name, shape in shapes.items():
        value = draw.normal(size=shape).astype(np.float32)
        if "ffn" in name and len(shape) == 2:
            packed = gguf.quantize(value, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_orbax(folder: Path, ocdbt: bool) -> None:
    """Gemma 1's parameters of one block, written by Orbax itself."""
    import orbax.checkpoint

    draw = np.random.default_rng(0)
    shapes = {
        **{"embedder": {"input_embedding": (40, 16)}, "final_norm": {"scale": (16,)}},
        "layer_0": {
            "attn": {
                **{"q_einsum": {"w": (2, 16, 8)}, "kv_einsum": {"w": (2, 1, 16, 8)}},
                "attn_vec_einsum": {"w": (2, 8, 16)},
            },
            "mlp": {"gating_einsum": (2, 16, 24), "linear": (24, 16)},
            **{"pre_attention_norm": {"scale": (16,)}, "pre_ffw_norm": {"scale": (16,)}},
        },
    }
    tree = _filled({"transformer": shapes}, draw)
    handler = orbax.checkpoint.PyTreeCheckpointHandler(use_ocdbt=ocdbt)
    orbax.checkpoint.Checkpointer(handler).save(folder / "gemma-tiny", tree)


def _filled(tree, draw):
    if isinstance(tree, dict):
        return {name: _filled(value, draw) for name, value in tree.items()}
    return draw.normal(size=tree).astype(np.float32)


def read_folder(folder: Path) -> None:
    """Reads a Hugging Face folder without its tokenizer."""
    _read_all(hf_directory.open_directory(folder))


def read_gguf(folder: Path) -> None:
    """Reads a GGUF file with its tokenizer."""
    found = gguf_model.open_file(folder / "model.gguf")
    _read_all(found)
    tokenizer = found.tokenizer()
    if tokenizer is not None:
        tokens.token_ids(tokenizer, ("ab a", "<s>x", ""), 16)


def read_orbax(folder: Path) -> None:
    """Reads a Flax tree."""
    _read_all(flax_tree.open_directory(folder))


def _read_all(found: Checkpoint) -> None:
    """Reads every tensor whole, as loading would."""
    for source in {source.name: source for source in found.sources.values()}.values():
        shape = found.files.shapes[source.name]
        found.files.dtype(source.name)
        found.files.read(
            source.name, shape, tuple(slice(0, n) for n in shape), np.dtype(np.float32)
        )


READERS = {
    "gguf": Reader(makes={"llama": make_gguf}, read=read_gguf),
    "model": Reader(
        makes={"one": folder_of("llama"), "sharded": folder_of("gemma2", shards=3)},
        read=read_folder,
        files=("*.safetensors", "*.index.json"),
    ),
    "config": Reader(
        makes={family: folder_of(family) for family in _FAMILIES},
        read=read_folder,
        files=("config.json",),
    ),
    "orbax": Reader(
        makes={
            "zarr": lambda folder: make_orbax(folder, False),
            "ocdbt": lambda folder: make_orbax(folder, True),
        },
        read=read_orbax,
    ),
}
