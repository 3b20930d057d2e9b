"""Small valid SAE files of the published layouts, and how they are read."""

import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

import jaxprobe as jp
from fuzzing.reader import Reader, seal_again
from jaxprobe.checkpoints import training_state

D, S = 8, 12  # d_model, d_sae


def _arrays(names: Mapping[str, tuple[int, ...]], dtype=np.float32) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {name: draw.uniform(0.1, 1, shape).astype(dtype) for name, shape in names.items()}


_PLAIN: dict[str, tuple[int, ...]] = {
    "W_enc": (D, S),
    "b_enc": (S,),
    "W_dec": (S, D),
    "b_dec": (D,),
}
_LINEAR: dict[str, tuple[int, ...]] = {
    **{"encoder.weight": (S, D), "encoder.bias": (S,)},
    **{"decoder.weight": (D, S), "decoder.bias": (D,)},
}


def make_npz(folder: Path, save) -> None:
    """Gemma Scope 1's file, stored or compressed."""
    save(folder / "params.npz", **_arrays({**_PLAIN, "threshold": (S,)}))


def make_sae_lens(folder: Path) -> None:
    """SAELens, version 6."""
    metadata = {"hook_name": "blocks.1.hook_resid_post", "model_name": "x", "context_size": 128}
    config = {
        **{"architecture": "jumprelu", "d_in": D, "d_sae": S, "dtype": "float32"},
        **{"apply_b_dec_to_input": True, "normalize_activations": "none", "metadata": metadata},
    }
    _write(folder / "cfg.json", config)
    _save(folder / "sae_weights.safetensors", _arrays({**_PLAIN, "threshold": (S,)}))


def make_old_sae_lens(folder: Path) -> None:
    """SAELens before version 6, TopK."""
    config = {
        **{"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}, "d_in": D, "d_sae": S},
        **{"hook_point": "blocks.1.hook_resid_post", "normalize_activations": False},
        "apply_b_dec_to_input": True,
    }
    _write(folder / "cfg.json", config)
    _save(folder / "sae_weights.safetensors", _arrays(_PLAIN))


def make_sparsify(folder: Path) -> None:
    """sparsify, TopK; its folder's name is the hook's."""
    folder = folder / "layers.1"
    folder.mkdir()
    config = {"activation": "topk", "num_latents": S, "k": 3, "d_in": D, "expansion_factor": 2}
    _write(folder / "cfg.json", {**config, "normalize_decoder": True, "multi_topk": False})
    names = {"encoder.weight": (S, D), "encoder.bias": (S,), "W_dec": (S, D), "b_dec": (D,)}
    _save(folder / "sae.safetensors", _arrays(names))


def make_llama_scope(folder: Path) -> None:
    """Llama Scope, first layout."""
    config = {
        **{"hook_point_in": "blocks.1.hook_resid_post", "act_fn": "jumprelu", "d_model": D},
        **{"hook_point_out": "blocks.1.hook_resid_post", "d_sae": S, "top_k": 50},
        **{"jump_relu_threshold": 0.3, "norm_activation": "dataset-wise", "use_decoder_bias": True},
        "dataset_average_activation_norm": {"in": 6.0, "out": 6.0},
        **{"apply_decoder_bias_to_pre_encoder": False, "sparsity_include_decoder_norm": True},
    }
    _write(folder / "hyperparams.json", config)
    (folder / "checkpoints").mkdir()
    _save(folder / "checkpoints" / "final.safetensors", _arrays(_LINEAR))


def make_gemma_scope_2(folder: Path) -> None:
    """Gemma Scope 2, a residual SAE."""
    config = {
        **{"hf_hook_point_in": "model.layers.1.output", "architecture": "jump_relu"},
        **{"hf_hook_point_out": "model.layers.1.output", "width": S, "l0": 10, "type": "sae"},
        **{"model_name": "x", "affine_connection": False},
    }
    _write(folder / "config.json", config)
    names = {name.lower(): shape for name, shape in _PLAIN.items()}
    _save(folder / "params.safetensors", _arrays({**names, "threshold": (S,)}))


def make_torch(folder: Path) -> None:
    """dictionary_learning's `ae.pt`, as torch.save lays it out, without torch."""
    trainer = {
        **{"dict_class": "AutoEncoderTopK", "activation_dim": D, "dict_size": S, "k": 3},
        **{"layer": 1, "submodule_name": "resid_post_layer_1", "lm_name": "x"},
    }
    _write(folder / "config.json", {"trainer": trainer, "buffer": {"ctx_len": 128}})
    names = {name: shape for name, shape in _LINEAR.items() if name != "decoder.bias"}
    write_torch(folder / "ae.pt", _arrays({**names, "b_dec": (D,)}))


def make_native(folder: Path) -> None:
    """Our own file."""
    sae = jp.JumpReluSae(
        **{f"W_{way}": jnp.ones(shape) for way, shape in (("enc_DS", (D, S)), ("dec_SD", (S, D)))},
        **{"b_enc_S": jnp.zeros(S), "b_dec_D": jnp.zeros(D), "threshold_S": jnp.full(S, 0.5)},
    )
    metadata = {"id": "mine", "site": "blocks.1.resid_post", "expected_l0": 3.0}
    jp.save_sae(folder / "sae.safetensors", sae, metadata)


def make_state(folder: Path) -> None:
    """The state of a training run."""
    training_state.save(folder / "state.safetensors", _state(), {"run": 1})


def _state() -> dict:
    return {"step": jnp.arange(3), "moments": {"a": jnp.ones((3, 4)), "b": jnp.zeros(2)}}


def read(folder: Path) -> None:
    """Reads the SAE in a folder, or in the one below it."""
    below = folder / "layers.1"
    jp.load_sae(below if below.exists() else folder)


def _write(path: Path, content) -> None:
    path.write_text(json.dumps(content))


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    path.write_bytes(safetensors.numpy.save(arrays))


# --- torch.save's layout: a zip of a pickle that describes tensors, and their bytes


def write_torch(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes a state dictionary as `torch.save` does, from contiguous float32 arrays."""
    entries = b"".join(
        _text(name) + _tensor(str(at), array) for at, (name, array) in enumerate(arrays.items())
    )
    with zipfile.ZipFile(path, "w") as archive:
        content = pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.MARK + entries
        archive.writestr("archive/data.pkl", content + pickle.SETITEMS + pickle.STOP)
        archive.writestr("archive/byteorder", "little")
        for at, array in enumerate(arrays.values()):
            archive.writestr(f"archive/data/{at}", array.tobytes())


def _tensor(key: str, array: np.ndarray) -> bytes:
    """The call that assembles a tensor from its storage."""
    storage = _tuple(
        *(_text("storage"), b"ctorch\nFloatStorage\n", _text(key), _text("cpu")),
        _int(array.size),
    )
    shape, steps = array.shape, (step // array.itemsize for step in array.strides)
    arguments = _tuple(
        *(
            storage + pickle.BINPERSID,
            _int(0),
            _tuple(*map(_int, shape)),
            _tuple(*map(_int, steps)),
        ),
        *(pickle.NEWFALSE, pickle.NONE),
    )
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + pickle.REDUCE


def _text(text: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(text.encode())) + text.encode()


def _int(value: int) -> bytes:
    return pickle.BININT + struct.pack("<i", value)


def _tuple(*items: bytes) -> bytes:
    return pickle.MARK + b"".join(items) + pickle.TUPLE


READERS = {
    "npz": Reader(
        makes={
            "stored": lambda folder: make_npz(folder, np.savez),
            "packed": lambda folder: make_npz(folder, np.savez_compressed),
        },
        read=read,
    ),
    "torch": Reader(makes={"topk": make_torch}, read=read),
    "sae": Reader(
        makes={
            **{"sae_lens": make_sae_lens, "old_sae_lens": make_old_sae_lens},
            **{"sparsify": make_sparsify, "llama_scope": make_llama_scope},
            "gemma_scope_2": make_gemma_scope_2,
        },
        read=read,
    ),
    "native": Reader(makes={"jump_relu": make_native}, read=read, mend=seal_again),
    "state": Reader(
        makes={"tree": make_state},
        read=lambda folder: training_state.load(folder / "state.safetensors", _state(), {"run": 1}),
        mend=seal_again,
    ),
}
