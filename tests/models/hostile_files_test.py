"""Hostile and damaged model files: one sentence with the file's name, before time or memory is taken."""

import json
import os
import random
import re
import resource
import struct
import time

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxprobe.boundary import FileError
from jaxprobe.gguf_file import open_gguf
from jaxprobe.models import flax_tree, gguf_model, hf_directory, load_model, parameters
from jaxprobe.models.safetensors_files import open_safetensors
from tests.models.hf_config_test import GEMMA2, LLAMA, NEOX

HUGE = 1 << 60


@pytest.fixture(autouse=True)
def bounded():
    """No test here may take long or much memory; each holds dozens of files."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10


def refused(path, read, match=None, seconds=2.0):
    """Asserts that `read` ends soon in a FileError that names the file."""
    start = time.process_time()
    with pytest.raises(FileError, match=match) as caught:
        read()
    assert time.process_time() - start < seconds
    assert path.name in str(caught.value) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


NUMBERS = [0, -1, 10**9, 2**63, 10**5000, True, 1.5, "4", [4], {}, float("nan"), float("inf")]
REALS = [0, -1e-6, float("nan"), float("inf"), -float("inf"), 1e39, 1e-60, True, "1", [1.0], {}]
FLAGS = ["false", 0, 1, [], {}, 0.0]
FIELDS = [
    *((LLAMA, "num_hidden_layers", value) for value in [*NUMBERS, None, 9999]),
    *((LLAMA, "hidden_size", value) for value in [*NUMBERS, None]),
    *((LLAMA, "intermediate_size", value) for value in [*NUMBERS, None]),
    *((LLAMA, "num_attention_heads", value) for value in [*NUMBERS, None]),
    *((LLAMA, "num_key_value_heads", value) for value in NUMBERS),
    *((LLAMA, "vocab_size", value) for value in [*NUMBERS, None]),
    *((LLAMA, "head_dim", value) for value in NUMBERS),
    *((LLAMA, "rms_norm_eps", value) for value in [*REALS, None]),
    *((NEOX, "layer_norm_eps", value) for value in [*REALS, None]),
    *((LLAMA, "rope_theta", value) for value in [*REALS, None, 1]),
    *((NEOX, "rotary_pct", value) for value in [*REALS, None, 2.0]),
    *((GEMMA2, "query_pre_attn_scalar", value) for value in [*REALS, None]),
    *((GEMMA2, "attn_logit_softcapping", value) for value in REALS),
    *((GEMMA2, "sliding_window", value) for value in NUMBERS[:2] + NUMBERS[3:]),
    *((LLAMA, "attention_bias", value) for value in FLAGS),
    *((LLAMA, "mlp_bias", value) for value in FLAGS),
    *((NEOX, "use_parallel_residual", value) for value in FLAGS),
    *((GEMMA2, "layer_types", value) for value in ["full_attention", 4, {}, [[]] * 4, [None] * 4]),
    *((LLAMA, "hidden_act", value) for value in [{}, [], 3, None, "x" * 10**6]),
    *((LLAMA, "rope_scaling", value) for value in ["linear", 3, [1], True]),
    *((LLAMA, "model_type", value) for value in [None, 3, [], {}, "x" * 10**6]),
    *((LLAMA, "a_field_of_the_future", value) for value in [[0] * 10**5, "x" * 10**6, HUGE]),
]
SCALINGS = {
    "linear": {"factor": 2.0},
    "llama3": {"factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "yarn": {"factor": 2.0, "beta_fast": 32.0, "beta_slow": 1.0, "attention_factor": 1.0},
    "longrope": {"factor": 2.0, "attention_factor": 1.0},
    "dynamic": {"factor": 2.0},
}


def config_file(folder, raw):
    path = folder / "config.json"
    with open(path, "w") as file:
        json.dump(raw, file)
    return path


def test_fields_of_the_wrong_type_or_range_are_refused_by_name(tmp_path):
    for base, name, value in FIELDS:
        if value == 10**5000:  # json would not write it
            path = config_file(tmp_path, {**base, name: "@"})
            path.write_text(path.read_text().replace('"@"', "9" * 5001))
            refused(path, lambda path=path: hf_directory.read_config(path))
            continue
        path = config_file(tmp_path, {**base, name: value})
        if (name, value) == ("num_hidden_layers", 9999):  # few enough, were there tensors
            save_file({"model.embed_tokens.weight": np.ones(1)}, tmp_path / "model.safetensors")
            refused(tmp_path, lambda: load_model(tmp_path), "`num_hidden_layers`")
            continue
        words = {"rotary_pct": "partial_rotary_factor|rotary share", "rope_scaling": "rope_scaling"}
        refused(path, lambda path=path: hf_directory.read_config(path), words.get(name, name))


def test_fields_of_rotary_scalings_are_refused_by_name(tmp_path):
    for kind, good in SCALINGS.items():
        scaling = {"rope_type": kind, **good}
        if kind in ("llama3", "yarn", "longrope"):
            scaling["original_max_position_embeddings"] = 16
        if kind == "longrope":
            scaling |= {"short_factor": [1.0] * 8, "long_factor": [1.0] * 8}
        path = config_file(tmp_path, {**LLAMA, "rope_scaling": scaling})
        hf_directory.read_config(path)
        for name in (*good, "original_max_position_embeddings", "rope_type"):
            if name not in scaling:
                continue
            for value in [*REALS, [], [1.0] * 100]:
                path = config_file(tmp_path, {**LLAMA, "rope_scaling": {**scaling, name: value}})
                if name == "rope_type" and not value:
                    continue  # stands for none, whose fields are refused
                refused(path, lambda path=path: hf_directory.read_config(path), name)
    for entry in REALS:
        short = {**SCALINGS["longrope"], "rope_type": "longrope", "long_factor": [1.0] * 8}
        short |= {"short_factor": [1.0] * 7 + [entry], "original_max_position_embeddings": 16}
        path = config_file(tmp_path, {**LLAMA, "rope_scaling": short})
        refused(path, lambda path=path: hf_directory.read_config(path), "short_factor")


def test_configs_that_are_no_object_of_fields_are_refused(tmp_path):
    path = tmp_path / "config.json"
    nested: dict = {"model_type": "gemma3"}
    for _ in range(50):
        nested = {"model_type": "gemma3", "text_config": nested}
    other = {"model_type": "gemma3", "text_config": {**LLAMA}}
    for text in (
        *("", "[", "[]", "3", "null", '"x"', "\0", "[" * 10**6, '{"a":' * 10**5, "\ufeff{}"),
        *(json.dumps(nested), json.dumps(other), '{"model_type": "gemma3", "text_config": 3}'),
        '{"model_type": "llama", "hidden_size": 8, "hidden_size": 16}',
        " " * (9 << 20),
    ):
        path.write_text(text)
        refused(path, lambda: hf_directory.read_config(path))
    path.write_bytes(b'{"model_type": "\xff"}')
    refused(path, lambda: hf_directory.read_config(path))
    path.unlink()
    os.mkfifo(path)
    refused(path, lambda: hf_directory.read_config(path), "got a pipe")


def header_of(entries, data=b"", length=None):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def test_safetensors_that_the_library_refuses_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"

    def entry(begin, end, shape=(1,), dtype="F32"):
        return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}

    twice = json.dumps({"a": entry(0, 4)})[:-1] + "," + json.dumps({"a": entry(4, 8)})[1:]
    for content in (
        *(b"", b"\0" * 7, b"\0" * 8, header_of({}, length=HUGE), header_of(b"[]"), header_of(b"{")),
        header_of({"a": entry(0, 4), "b": entry(0, 4)}, bytes(4)),  # overlap
        header_of({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12)),  # hole
        header_of({"a": entry(4, 8)}, bytes(8)),
        header_of({"a": entry(0, 4)}, bytes(8)),  # more behind
        header_of({"a": entry(0, 4, (1.0,))}, bytes(4)),
        header_of({"a": entry(0, 4, (-1,))}, bytes(4)),
        header_of({"a": entry(0, 4, (2,))}, bytes(4)),
        header_of({"a": entry(0, 4, (HUGE, HUGE))}, bytes(4)),
        header_of({"a": entry(4, 0)}, bytes(4)),
        header_of({"a": entry(0, 4, dtype="F31")}, bytes(4)),
        header_of({"a": entry(0, HUGE, (HUGE // 4,))}, bytes(4)),
        header_of({"a": {"dtype": "F32"}}, bytes(4)),
        header_of(twice.encode(), bytes(8)),
        header_of(b'{"a":' * 10**5),
    ):
        path.write_bytes(content)
        refused(path, lambda: open_safetensors(tmp_path))
    path.unlink()
    index = tmp_path / "model.safetensors.index.json"
    for text in (
        *("", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "[" * 10**6),
        '{"weight_map": {"a": 3}}',
        '{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}',
        json.dumps({"weight_map": {"a": "x" * 5000 + ".safetensors"}}),  # longer than a name can be
    ):
        index.write_text(text)
        refused(index, lambda: open_safetensors(tmp_path))


def text(value):
    return struct.pack("<Q", len(value)) + value


def gguf_of(keys=(), tensors=(), *, version=3, counts=None, data=b""):
    """A GGUF file from (key, packed type and value) and packed tensors."""
    num_tensors, num_keys = counts or (len(tensors), len(keys))
    head = b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_keys)
    head += b"".join(text(key) + value for key, value in keys) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


def tensor(name=b"a", sizes=(4,), kind=0, offset=0, axes=None):
    axes = struct.pack("<I", len(sizes) if axes is None else axes)
    sizes = struct.pack(f"<{len(sizes)}Q", *sizes)
    return text(name) + axes + sizes + struct.pack("<IQ", kind, offset)


def number(kind, code, value):
    return struct.pack(f"<I{code}", kind, value)


ARRAY = struct.pack("<I", 9)
ALIGNMENT = b"general.alignment"


def test_gguf_headers_that_break_the_formats_rules_are_refused(tmp_path):
    path = tmp_path / "model.gguf"
    some = bytes(64)
    nested = b"".join(ARRAY + struct.pack("<Q", 1) for _ in range(30_000))
    for content, match in (
        (gguf_of(version=1), "version must be one of"),
        (gguf_of(version=3 << 24), "a big-endian file"),
        (gguf_of(counts=(HUGE, 0)), "at most .* tensors"),
        (gguf_of(counts=(0, HUGE)), "at most .* metadata keys"),
        (gguf_of(counts=(60_000, 0)), "ends inside its header"),
        (gguf_of(counts=(0, 9_000)), "ends inside its header"),
        (gguf_of([(b"a", number(8, "Q", HUGE))]), "`a` must have at most 67,108,864 bytes"),
        (gguf_of([(b"a", number(8, "Q", 99))]), "ends inside its header"),
        *(
            (gguf_of([(b"a", ARRAY + struct.pack("<IQ", kind, HUGE))]), "ends inside its header")
            for kind in (0, 7, 8, 12)
        ),
        (gguf_of([(b"a", ARRAY + struct.pack("<IQ", 8, 2) + text(b"x"))]), "ends inside"),
        (gguf_of([(b"a", ARRAY + struct.pack("<IQQ", 8, 1, HUGE))]), "ends inside"),
        (gguf_of([(b"a", ARRAY + nested)]), "an array of arrays"),
        (gguf_of([(b"a", number(13, "B", 0))]), "`a` must be of a known type, got type 13"),
        (gguf_of([(b"a", number(7, "B", 2))]), "true .1. or false"),
        (gguf_of([(b"a" * 70_000, number(0, "B", 0))]), "at most 65,535 bytes"),
        (gguf_of([(b"a", number(0, "B", 0))] * 2), "`a` twice"),
        (gguf_of([(b"\xff", number(0, "B", 0))]), "utf-8"),
        *(
            (gguf_of([(ALIGNMENT, number(4, "I", value))]), "power of two")
            for value in (0, 3, 33, 2**32 - 1)
        ),
        (gguf_of([(ALIGNMENT, number(6, "f", 32.0))]), "power of two"),
        (gguf_of([(ALIGNMENT, number(8, "Q", 0))]), "power of two"),
        (gguf_of(tensors=[tensor(sizes=())], data=some), "1 to 4 axes, got 0"),
        (gguf_of(tensors=[tensor(sizes=(1,) * 5)], data=some), "1 to 4 axes, got 5"),
        (gguf_of(tensors=[tensor(axes=2**32 - 1)], data=some), "1 to 4 axes"),
        (gguf_of(tensors=[tensor(sizes=(4, 0))], data=some), "whole blocks"),
        (gguf_of(tensors=[tensor(sizes=(33,), kind=8)], data=some), "whole blocks of 32"),
        (gguf_of(tensors=[tensor(sizes=(HUGE, 16, 16, 16))], data=some), "cut short"),
        (gguf_of(tensors=[tensor(kind=4)], data=some), "unknown storage type, number 4"),
        (gguf_of(tensors=[tensor(offset=HUGE)], data=some), "must begin 0 bytes"),
        (gguf_of(tensors=[tensor(offset=1)], data=some), "must begin 0 bytes"),
        (gguf_of(tensors=[tensor(), tensor(b"b")], data=some), "must begin 32 bytes"),
        (gguf_of(tensors=[tensor(), tensor(offset=32)], data=some), "tensor `a` twice"),
        (gguf_of(tensors=[tensor(b"a" * 65)], data=some), "at most 64 bytes"),
        (gguf_of([(b"split.count", number(2, "H", 3))]), "part None of 3.*--merge"),
        (b"GGUF", "ends inside its header"),
    ):
        path.write_bytes(content)
        refused(path, lambda: open_gguf(path), match)
    # A file that claims a terabyte and holds holes: nothing of it is read.
    path.write_bytes(gguf_of([(b"a", ARRAY + struct.pack("<IQ", 8, 1 << 30))]))
    os.truncate(path, 1 << 40)
    refused(path, lambda: open_gguf(path), "its header must take at most 64 MiB")
    path.write_bytes(gguf_of([(b"a", ARRAY + struct.pack("<IQ", 8, 7 << 20))]))
    os.truncate(path, 1 << 40)
    refused(path, lambda: open_gguf(path), "at most 1,048,576 strings")


def test_gguf_metadata_of_the_wrong_type_or_range_is_refused_by_name(make_tiny, tmp_path):
    whole = ("embedding_length", "block_count", "feed_forward_length", "attention.head_count")
    whole += ("attention.head_count_kv", "attention.key_length", "attention.sliding_window")
    real = ("attention.layer_norm_rms_epsilon", "rope.freq_base")
    wrong: list = [0, 4_000_000_000, 2.5, True, "4"]
    nan: list = [0.0, -1.0, float("nan"), float("inf"), True, "4"]
    file = open_gguf(make_tiny())
    for key, values in (*((k, wrong) for k in whole), *((k, nan) for k in real)):
        values = [v for v in values if key != "attention.sliding_window" or v != 4_000_000_000]
        for value in [*values, np.ones(3, np.int32), ["x"]]:
            name = f"gemma3.{key}"
            changed = gguf_model.GgufFile(
                path=file.path, metadata={**file.metadata, name: value}, tensors=file.tensors
            )
            refused(file.path, lambda f=changed: gguf_model.read_config(f), name)
    for value in ("x", 3, np.ones(3), []):
        changed = gguf_model.GgufFile(
            path=file.path,
            metadata={**file.metadata, "tokenizer.ggml.tokens": value},
            tensors=file.tensors,
        )
        refused(file.path, lambda f=changed: gguf_model.read_config(f), r"tokenizer\.ggml\.tokens")


def mutated(content, count, seed, head=None):
    """Copies of a file with bytes flipped, set, cut out, doubled or cut off."""
    rng = random.Random(seed)
    for _ in range(count):
        new = bytearray(content)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(min(len(new), head or len(new)))
            kind = rng.randrange(6)
            if kind == 0:
                new[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                new[at] = rng.choice(b'\x00\x01\x7f\x80\xff09-"[]{},')
            elif kind == 2:
                new[at : at + 8] = rng.choice((0, 1, 1 << 31, HUGE, 2**64 - 1)).to_bytes(
                    8, "little"
                )
            elif kind == 3:
                del new[at : at + rng.randint(1, 8)]
            elif kind == 4:
                new[at:at] = new[at : at + rng.randint(1, 40)]
            else:
                del new[at:]
            if not new:
                break
        yield bytes(new)


def survives(path, contents, read):
    """Reads every mutated file: it is read, or refused as `refused` says."""
    counts = {"read": 0, "refused": 0}
    for content in contents:
        path.write_bytes(content)
        start = time.process_time()
        try:
            read()
            counts["read"] += 1
        except FileError as error:
            assert {path.name, path.parent.name} & set(re.split(r"[/\s:]", str(error))), str(error)
            assert "\n" not in str(error)
            counts["refused"] += 1
        assert time.process_time() - start < 10  # 2 on a quiet machine
    assert counts["refused"] > 10, counts


def test_mutated_configs(tmp_path):
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
    text = {**GEMMA2, "model_type": "gemma3_text", "layer_types": ["full_attention"] * 4}
    for number, raw in enumerate(
        ({**LLAMA, "rope_scaling": scaling}, {"model_type": "gemma3", "text_config": text}, NEOX)
    ):
        path = config_file(tmp_path, raw)
        contents = mutated(path.read_bytes(), 200, seed=number)
        survives(path, contents, lambda path=path: hf_directory.read_config(path))


def test_mutated_safetensors_and_indices(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"x": np.ones((2, 3), np.float32), "y": np.ones(5, np.float16)}, path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": path.name, "y": path.name}}))

    def read():
        files = open_safetensors(tmp_path)
        for name, shape in files.shapes.items():
            if files.places[name].kind in ("F32", "F16"):
                files.read(name, shape, tuple(slice(0, n) for n in shape), np.dtype(np.float32))

    good = path.read_bytes()
    survives(path, mutated(good, 200, seed=1), read)
    path.write_bytes(good)
    survives(index, mutated(index.read_bytes(), 200, seed=2), read)


def test_mutated_gguf_files(tmp_path):
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in (("embedding_length", 2), ("feed_forward_length", 2), ("block_count", 1)):
        writer.add_uint32(f"llama.{key}", value)
    writer.add_uint32("llama.attention.head_count", 1)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_token_list(["a", "b", "c"])
    names = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm")
    for name in (*names, "ffn_gate", "ffn_up", "ffn_down"):
        shape = (2,) if name.endswith("norm") else (2, 2)
        writer.add_tensor(f"blk.0.{name}.weight", np.ones(shape, np.float32))
    writer.add_tensor("token_embd.weight", np.ones((3, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    def read():
        found = gguf_model.open_file(path)
        parameters.load(found.config, found.files, found.sources, "float32", None)

    read()
    survives(path, mutated(path.read_bytes(), 300, seed=3), read)


def test_mutated_and_hostile_orbax_trees(tmp_path):
    """A tree of one zarr array in a folder; the OCDBT database and whole models are in flax_tree_test."""
    leaf = tmp_path / "a.w"
    leaf.mkdir()
    header = {"chunks": [4, 6], "compressor": None, "dimension_separator": ".", "dtype": "<f4"}
    header |= {"fill_value": None, "filters": None, "order": "C", "shape": [4, 6], "zarr_format": 2}
    listed = {"('a', 'w')": {"key_metadata": [{"key": "a"}, {"key": "w"}]}}
    listed["('a', 'w')"]["value_metadata"] = {"value_type": "jax.Array"}
    (tmp_path / "_METADATA").write_text(json.dumps({"tree_metadata": listed}))
    (leaf / "0.0").write_bytes(np.arange(24, dtype=np.float32).tobytes())
    path = leaf / ".zarray"

    def read():
        tree = flax_tree.open_tree(tmp_path)
        for name, shape in tree.shapes.items():
            tree.read(name, shape, tuple(slice(0, n) for n in shape), tree.dtype(name))

    def write(**changes):
        path.write_text(json.dumps({**header, **changes}))

    write()
    read()
    for changes in (
        *({"shape": shape} for shape in ([HUGE, HUGE], [HUGE, 6], [-1, 6], [4.0, 6], [4], 4, [])),
        *({"chunks": chunk} for chunk in ([HUGE, HUGE], [1 << 20, 1 << 20], [0, 6], [4], "x")),
        *({"dtype": dtype} for dtype in (3, "<x9", [])),
        {"compressor": {"id": "zstd"}},  # the chunk is none
    ):
        write(**changes)
        refused(tmp_path, read)
    write()
    survives(path, mutated(path.read_bytes(), 200, seed=4), read)
    write()
    (leaf / "0.0").unlink()
    refused(tmp_path, read, "`a/w` of .* cannot be read .*left out chunks of zeros")
    path.unlink()
    refused(tmp_path, read)
    os.mkfifo(leaf / "0.0")
    write()
    refused(leaf / "0.0", read, "got a pipe")
