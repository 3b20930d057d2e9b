"""GGUF files: their tensors' names, and how queries and keys lie in them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxprobe import boundary, tokens
from jaxprobe.gguf_file import GgufFile, open_gguf
from jaxprobe.models import fields
from jaxprobe.models.checkpoint import Checkpoint, short_name
from jaxprobe.models.config import TransformerConfig
from jaxprobe.models.gguf_config import ARCHITECTURES, FREQUENCIES, read_config
from jaxprobe.models.parameters import Source, labels
from jaxprobe.models.slabs import Slab, read_slab

_BLOCK_TENSORS = {
    "pre_attention_norm": "attn_norm",
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "query_norm": "attn_q_norm",
    "key_norm": "attn_k_norm",
    "attention_output": "attn_output",
    "post_attention_norm": "post_attention_norm",
    "pre_mlp_norm": "ffn_norm",
    "mlp_gate": "ffn_gate",
    "mlp_up": "ffn_up",
    "mlp_down": "ffn_down",
    "post_mlp_norm": "post_ffw_norm",
}
# Behind the last block, or read with the metadata.
_UNREAD = {"output_norm.weight", "output.weight", FREQUENCIES}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GgufTensors:
    """A file's tensors as `parameters.TensorFiles`."""

    file: GgufFile

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's shape."""
        return {name: tensor.shape for name, tensor in self.file.tensors.items()}

    def path(self, name: str) -> Path:
        """The file, whichever tensor."""
        return self.file.path

    def dtype(self, name: str) -> np.dtype:
        """float16 or bfloat16 where a tensor is stored so, otherwise float32."""
        return self.file.stored_dtype(name)

    def read(self, name: str, shape: tuple[int, ...], slab: Slab, dtype: np.dtype) -> np.ndarray:
        """A slab of a tensor seen as `shape`, dequantised a few rows at a time."""

        def fetch(start: int, count: int) -> np.ndarray:
            return self.file.fetch(name, start, count)

        return read_slab(fetch, shape, slab, dtype, 4)


def open_file(path: Path) -> Checkpoint:
    """Opens a `.gguf` file.

    Raises:
        ValueError: Not a supported model's file; the message names what is not understood.
    """
    file = open_gguf(path)
    config = read_config(file)
    with boundary.reader(path, "a language model's GGUF file", "fetch it again"):
        found = sources(file, config)
        keys = ("general.basename", "general.size_label")
        words = [fields.word(key, file.metadata.get(key, "")) for key in keys]
    return Checkpoint(
        name=short_name("-".join(filter(None, words)) or path.stem),
        config=config,
        files=GgufTensors(file=file),
        sources=found,
        tokenizer=lambda: tokens.from_gguf(file),
        contents=(path,),
    )


def sources(file: GgufFile, config: TransformerConfig) -> dict[str, Source]:
    """The file's tensor of each parameter of `transformer.build`.

    Raises:
        ValueError: The file lacks one, or holds one that is not understood.
    """
    name = file.value("general.architecture")
    found = {
        label: _source(config, label, ARCHITECTURES[name].permuted) for label in labels(config)
    }
    wanted = {source.name for source in found.values()}
    missing = sorted(wanted - set(file.tensors))
    unknown = sorted(set(file.tensors) - wanted - _UNREAD)
    if missing or unknown:
        raise ValueError(
            f"{file.path} must hold the tensors of {name}: missing {missing[:4]},"
            f" not understood {unknown[:4]}"
        )
    return found


def _source(config: TransformerConfig, label: str, permuted: bool) -> Source:
    if label == "embedding":
        return Source(name="token_embd.weight")
    _, block, part = label.split(".")
    ending = "bias" if part.endswith("_bias") else "weight"
    part = part.removesuffix("_bias")
    name = f"blk.{block}.{_BLOCK_TENSORS[part]}.{ending}"
    if not permuted or part not in ("query", "key"):
        return Source(name=name)
    # Pairs that turn together lie side by side in the file, half a head apart in the model.
    heads = (config.num_kv_heads, *((config.queries_per_kv,) if part == "query" else ()))
    stream = (config.d_model,) if ending == "weight" else ()
    at = len(heads)
    return Source(
        name=name,
        split=(*heads, config.d_head // 2, 2, *stream),
        order=(*range(at), at + 1, at, *range(at + 2, at + 2 + len(stream))),
        merge=at,
    )
