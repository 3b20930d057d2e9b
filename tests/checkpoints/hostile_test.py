"""Small files that claim much: each ends in one sentence with its name, soon, and in little memory."""

import json
import os
import pickle
import resource
import struct
import time
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from jaxprobe import checkpoints
from jaxprobe.boundary import FileError
from jaxprobe.checkpoints import config, npz_file, torch_file
from tests.checkpoints import torch_writer
from tests.checkpoints.formats_test import draw, gemma_2_arrays, put

SECONDS, MIB = 2.0, 300
SIZES = (0, 1, 2**31, 2**63, 2**64 - 1)


def refused(call, path, message=None):
    """The call ends in a FileError that names the file, within the limits."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(FileError, match=message) as caught:
        call()
    assert path.name in str(caught.value) and "Error:" not in str(caught.value).split("(")[0]
    assert len(str(caught.value)) < 1500 and "\n" not in str(caught.value)
    assert time.process_time() - start < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MIB << 10


def zipped(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def npy(header: str, body: bytes = b"", version=1) -> bytes:
    text = header.encode() + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + body


def described(dtype="'<f4'", shape="(4,)", fortran="False"):
    return f"{{'descr': {dtype}, 'fortran_order': {fortran}, 'shape': {shape}}}"


def test_npz_equals_numpys_own_reading(tmp_path):
    arrays = {
        "c": draw(3, 4),
        "fortran": np.asfortranarray(draw(3, 5)),
        "big_endian": draw(4).astype(">f8"),
        "scalar": np.float32(2.0),
        "whole": np.arange(3),
        "empty": np.zeros((0, 4), np.float16),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **arrays)
        found = npz_file.read(tmp_path / "x.npz")
        with np.load(tmp_path / "x.npz", allow_pickle=False) as expected:
            assert list(found) == expected.files
            for name in arrays:
                np.testing.assert_array_equal(found[name], expected[name])
                assert found[name].dtype == expected[name].dtype


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (npy(described(shape="(8796093022208,)")), "must have 35,184,372,088,832 bytes, got 0"),
        (npy(described(shape="(9223372036854775807, 4)")), "bytes, got 0"),
        (npy(described(shape="(-4, -1)"), bytes(16)), r"shape \(-4, -1\)"),
        (npy(described(dtype="'|O'"), pickle.dumps([1])), "must hold numbers, got object"),
        (npy(described(dtype="[('a', '<f4')]"), bytes(16)), "must hold numbers, got"),
        (npy(described(dtype="'<c8'"), bytes(32)), "must hold numbers, got complex64"),
        (npy(described(dtype="'<M8[s]'"), bytes(32)), "must hold numbers"),
        (npy(described(), bytes(15)), "must have 16 bytes, got 15"),
        (npy(described(), bytes(17)), "must have 16 bytes, got 17"),
        (npy("{" * 4000), "x.npz cannot be read"),
        (npy(described(shape="(" * 900 + ")" * 900)), "x.npz cannot be read"),
        (npy("x" * 60_000), "x.npz cannot be read"),
        (npy("x" * 60_000, version=2), "x.npz cannot be read"),
        (npy(described(), version=3), "of version"),
        (b"", "x.npz cannot be read"),
    ],
    ids=lambda value: "bytes" if isinstance(value, bytes) else None,
)
def test_npz_members_that_lie(tmp_path, member, message):
    path = tmp_path / "x.npz"
    zipped(path, {"W_enc.npy": member})
    refused(lambda: npz_file.read(path), path, message)


def test_zip_bombs_and_other_zips(tmp_path):
    path = tmp_path / "x.npz"
    read = lambda: npz_file.read(path)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("W_enc.npy", "w") as member,
    ):
        member.write(npy(described(shape=f"({140 << 18},)")))
        for _ in range(140):
            member.write(bytes(1 << 20))
    refused(read, path, "unpacks to more than 128 MiB")
    zipped(path, {"W_enc.npy": npy(described(), bytes(16))}, zipfile.ZIP_BZIP2)
    refused(read, path, "compressed in a way not read here")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as archive:
        for _ in range(2):
            archive.writestr("a.npy", npy(described(), bytes(16)))
    refused(read, path, "two of its members have the same name")
    zipped(path, {"a.npy": npy(described(), bytes(16))})
    whole = path.read_bytes()
    directory = whole.index(b"PK\x01\x02")
    for at, value, message in (
        (8, b"\x01\x00", "encrypted"),  # a flag
        (10, b"\x0e\x00", "compressed in a way"),
        (24, struct.pack("<I", 2**32 - 2), "claims two sizes"),
        (20, struct.pack("<II", 2**31, 2**31), "they overlap"),
        (6, b"\xff\x00", "zip file version"),
    ):
        path.write_bytes(whole[: directory + at] + value + whole[directory + at + len(value) :])
        refused(read, path, message)
    # Many members over one another: a directory that names the same bytes again and again.
    body = npy(described(shape="(65536,)"), bytes(1 << 18))
    zipped(path, {"a000.npy": body})
    whole = path.read_bytes()
    directory, end = whole.index(b"PK\x01\x02"), whole.index(b"PK\x05\x06")
    entry = whole[directory:end]
    entries = b"".join(entry.replace(b"a000", b"a%03d" % n) for n in range(900))
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 900, 900, len(entries), directory, 0)
    path.write_bytes(whole[:directory] + entries + tail)
    refused(read, path, "they overlap")
    # A directory of a million names.
    entries = entry * 40_000
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 40_000, 40_000, len(entries), directory, 0)
    path.write_bytes(whole[:directory] + entries + tail)
    refused(read, path, "its directory has")


def opcodes(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


DOUBLED = b")" + b"2\x86" * 40  # a tuple of itself and itself, forty deep
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
SIZE = b"(" + b"K\x01" * 8 + b"t"


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (opcodes(DOUBLED, b"Q"), "refers to something outside"),
        (opcodes(b"(X\x07\0\0\0storage", DOUBLED, b"NNNtQ"), "words that torch does not use"),
        (opcodes(b"}", DOUBLED, b"Ns"), "keys are no texts or numbers"),
        (opcodes(DOUBLED, DOUBLED, b"R"), "calls what cannot be called"),
        (opcodes(DOUBLED), "must hold a dictionary of tensors, got tuple"),
        (opcodes(b"}X\x01\0\0\0a", DOUBLED, b"s"), "must hold tensors by name, got a"),
        (opcodes(b"\x8d" + struct.pack("<Q", 2**62)), "x.pt"),
        (opcodes(b"\x8e" + struct.pack("<Q", 2**63 + 1)), "x.pt"),
        (opcodes(b"B" + struct.pack("<I", 2**32 - 1)), "x.pt"),
        (opcodes(b"\x8b" + struct.pack("<i", 2**31 - 1)), "x.pt"),
        (opcodes(b"\x8b" + struct.pack("<i", 1 << 20), b"\x7f" * (1 << 20)), "more than 64 bits"),
        (opcodes(b"}r" + struct.pack("<I", 2**32 - 1)), "must hold tensors by name"),
        (opcodes(b"j" + struct.pack("<I", 2**32 - 1)), "x.pt"),
        (opcodes(b"I" + b"9" * 100_000 + b"\n"), "x.pt"),
        (opcodes(b"X" + struct.pack("<I", 1 << 20), b"a" * (1 << 20)), "text of 1,048,576"),
        (opcodes(b"N" * 200_000), "more than 100,000 instructions"),
        (opcodes(b"(" * 99_000), "a value is missing"),
        (opcodes(b")" + b"\x85" * 99_000), "got tuple"),
        (opcodes(b"]" * 50_000, b"a" * 49_000), "got list"),
        (opcodes(b"\x82\x01"), "the instruction EXT1"),
        (opcodes(b")\x81"), "the instruction NEWOBJ"),
        (opcodes(b"t"), "a mark is missing"),
        (opcodes(b"0"), "x.pt"),
        (opcodes(b"}]b", b"N"), "got NoneType"),
        (opcodes(b"]Nb"), "gives attributes"),
        (opcodes(b"]NNs"), "sets entries"),
        (opcodes(b"}Na"), "no list"),
        (b"\x80\x02N", "x.pt"),
        (b"\x80\xff.", "x.pt"),
        # Calls that are cheap to write, a hundred thousand times.
        (
            opcodes(REBUILD, b"q\0", b"(NK\0", SIZE, SIZE, b"tq\1", b"h\0h\1R0" * 19_000, b"}"),
            "x.pt",
        ),
    ],
    ids=lambda value: "bytes" if isinstance(value, bytes) else None,
)
def test_pickles_that_cost_nothing_to_refuse(tmp_path, program, message):
    path = tmp_path / "x.pt"
    zipped(path, {"archive/data.pkl": program})
    refused(lambda: torch_file.read(path), path, message)


def test_torch_archives_that_lie(tmp_path):
    path = tmp_path / "x.pt"
    read = lambda: torch_file.read(path)
    zipped(path, {"archive/data.pkl": b"N" * (9 << 20)})
    refused(read, path, "its pickle has 9,437,184 bytes")
    base = np.arange(12, dtype=np.float32)
    torch_writer.write(path, {"a": base})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/9", bytes(1 << 20))
    refused(read, path, "archive/data/9 is compressed")
    first, _ = torch_writer.tensor(base, "0")
    content = {"a": first, "b": torch_writer.tensor(np.zeros(6), "0")[0]}
    torch_writer.write(path, content, {"0": base})
    refused(read, path, "storage '0' is described in two ways")
    zipped(path, {"archive/data.pkl": b".", "archive/byteorder": b"big"})
    refused(read, path, "not little-endian")
    path.write_bytes(b"PK\x05\x06" + bytes(18))
    refused(read, path, "0 members data.pkl")


def test_a_real_torch_file_with_everything_beside_tensors(tmp_path):
    torch = pytest.importorskip("torch")
    state = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).state_dict()
    content = {**state, "half": torch.ones(2, 3).half().T, "k": torch.tensor(7), "lr": 0.1}
    content |= {"bf": torch.arange(4, dtype=torch.bfloat16)[1::2], "deep": [{"a": (1, True, None)}]}
    for protocol in (2, 3, 4, 5):
        torch.save(content, tmp_path / "x.pt", pickle_protocol=protocol)
        found = torch_file.read(tmp_path / "x.pt")
        wanted = {name: value for name, value in content.items() if hasattr(value, "numpy")}
        assert list(found) == list(wanted)
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name].astype(np.float64), value.double().numpy())
    torch.save(state, tmp_path / "x.pt")  # an ordered dictionary with attributes
    expected = torch.load(tmp_path / "x.pt", weights_only=True)
    assert list(torch_file.read(tmp_path / "x.pt")) == list(expected)


def sae_lens_config(**changes):
    return {"architecture": "standard", "d_in": 10, "d_sae": 36, "metadata": {}} | changes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deep"),
        ('{"a":' * 50 + "1" + "}" * 50, "nested deeper than 32"),
        ('{"k": 1, "k": 2}', "two entries 'k'"),
        ("[1]", "holds a list"),
        ("null", "holds a NoneType"),
        ("", "cfg.json"),
        ('{"a": ' + "1" * 5000 + "}", "cfg.json"),
        (" " * (2 << 20), "at most 1,048,576 bytes"),
        ('{"a": "\udcff"}', "cfg.json"),
    ],
)
def test_configs_that_no_parser_likes(tmp_path, text, message):
    path = tmp_path / "cfg.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(lambda: config.read(path), path, message)


def test_entries_are_of_their_type(tmp_path):
    path = tmp_path / "cfg.json"
    wrong = {
        "count": [True, 32.0, "32", 0, -1, 2**31, float("nan"), [1], {}],
        "layer": [True, 0.0, -1, 2**31, "0"],
        "positive": [0, -1.0, True, "1.5", float("nan"), float("inf"), 1e39, 10**400, 1e-300],
        "nonnegative": [-1, -1e-30, float("nan"), False, "0"],
        "flag": [0, 1, "true", "False", []],
        "text": ["", 5, ["a"], True],
        "section": [[], "x", 1],
    }
    for name, values in wrong.items():
        for value in values:
            entry = config.Config({"entry": value}, path)
            refused(lambda e=entry, n=name: getattr(e, n)("entry"), path, "entry")
    right = {"count": 32, "layer": 0, "positive": 3, "nonnegative": 0.0, "flag": False, "text": "a"}
    for name, value in right.items():
        assert getattr(config.Config({"entry": value}, path), name)("entry") == value
        for absent in ({}, {"entry": None}):
            assert getattr(config.Config(absent, path), name)("entry", "other") == "other"
            refused(lambda e=absent, n=name: getattr(config.Config(e, path), n)("entry"), path)
    with pytest.raises(FileError, match='one of "a", false, got true'):
        config.Config({"entry": True}, path).choice("entry", ("a", False))


def test_safetensors_headers(tmp_path):
    path = tmp_path / "sae.safetensors"
    load = lambda: checkpoints.load_sae(path)
    arrays = {"a": draw(2, 3)}
    safetensors.numpy.save_file(arrays, path)
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header, body = json.loads(whole[8 : 8 + length]), whole[8 + length :]

    def write(text: str, size=None):
        content = text.encode()
        path.write_bytes(struct.pack("<Q", len(content) if size is None else size) + content + body)

    entry = json.dumps(header["a"])
    hole = {"a": {**header["a"], "data_offsets": [4, 28]}}
    double = {"a": header["a"], "b": header["a"]}
    huge = {"a": {**header["a"], "shape": [2**40, 2**40]}}
    for text, size in (
        (json.dumps(hole), None),
        (json.dumps(double), None),
        (json.dumps(huge), None),
        (json.dumps({"a": {**header["a"], "shape": [2.0, 3]}}), None),
        (json.dumps({"a": {**header["a"], "dtype": "F99"}}), None),
        ("[" * 100_000, None),
        (f'{{"a": {entry}, "a": {entry}}}', None),
        ("{}", 2**63),
        ("{}", 2**40),
        ("", None),
    ):
        write(text, size)
        refused(load, path)
    path.write_bytes(b"")
    refused(load, path)
    path.write_bytes(struct.pack("<Q", 40 << 20) + b"{" * (40 << 20))
    refused(load, path, "header claims 41,943,040 bytes")


def test_only_regular_files(tmp_path):
    for suffix in (".npz", ".safetensors", ".pt", ".pth"):
        (tmp_path / f"zero{suffix}").symlink_to("/dev/zero")
        os.mkfifo(tmp_path / f"pipe{suffix}")
        (tmp_path / f"folder{suffix}").mkdir()
        for name in ("zero", "pipe", "folder"):
            path = tmp_path / f"{name}{suffix}"
            refused(lambda path=path: checkpoints.load_sae(path), path)
    folder = put(
        tmp_path / "resid_post/layer_3_width_16k_l0_big", "params.safetensors", gemma_2_arrays()
    )
    os.mkfifo(folder / "config.json")
    refused(lambda: checkpoints.load_sae(folder), folder / "config.json", "a pipe")


def mutated(content: bytes, rng) -> bytes:
    """A file with a few bytes changed, cut, doubled or put elsewhere."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        kind, at = int(rng.integers(5)), int(rng.integers(max(1, len(data))))
        count = int(rng.integers(1, 9))
        if kind == 0:
            data[at : at + count] = rng.bytes(count)
        elif kind == 1:
            del data[at : at + count * int(rng.integers(1, 40))]
        elif kind == 2:
            data[at:at] = data[at : at + count]
        elif kind == 3:
            data[at : at + 1] = bytes([data[at] ^ (1 << int(rng.integers(8)))]) if data else b""
        else:
            data[at : at + 8] = struct.pack("<Q", SIZES[int(rng.integers(len(SIZES)))])
    return bytes(data)


def valid_folders(tmp_path):
    """A small SAE of each layout, and the files of it that are read."""
    norm = {"in": 5.7, "out": 2.3}
    linear = {"encoder.weight": draw(12, 4), "encoder.bias": draw(12)}
    plain = {"W_enc": draw(4, 12), "W_dec": draw(12, 4), "b_enc": draw(12), "b_dec": draw(4)}
    gemma = {**plain, "threshold": np.abs(draw(12))}
    lower = {key.lower(): value for key, value in gemma.items()}
    llama = {**linear, "decoder.weight": draw(4, 12), "decoder.bias": draw(4)}
    hook = "blocks.1.hook_resid_post"
    llama_config = {"d_model": 4, "d_sae": 12, "hook_point_in": hook, "act_fn": "topk", "top_k": 3}
    llama_config["dataset_average_activation_norm"] = norm
    trainer = {"dict_class": "AutoEncoderTopK", "k": 3, "layer": 1}
    topk = {**linear, "decoder.weight": draw(4, 12), "b_dec": draw(4), "k": np.array(3)}
    lens = {"architecture": "topk", "k": 3, "metadata": {"hook_name": hook}}
    cases = [
        ("params.npz", gemma, {}),
        ("params.safetensors", lower, {"config": {"architecture": "jump_relu", "l0": 9}}),
        ("checkpoints/final.safetensors", llama, {"hyperparams": llama_config}),
        ("sae_weights.safetensors", llama, {"config": llama_config}),
        ("sae_weights.safetensors", plain, {"cfg": lens}),
        ("ae.pt", topk, {"config": {"trainer": trainer}}),
        ("sae.safetensors", {**linear, "W_dec": draw(12, 4), "b_dec": draw(4)}, {"cfg": {"k": 3}}),
    ]
    for number, (name, arrays, written) in enumerate(cases):
        if name == "sae.safetensors":
            written["cfg"] |= {"num_latents": 12, "d_in": 4}
        folder = put(tmp_path / f"layer_1_case_{number}", name, arrays, **written)
        yield folder, [folder / name, *(folder / f"{stem}.json" for stem in written)]
    native = checkpoints.load_sae(tmp_path / "layer_1_case_4")
    path = checkpoints.save_sae(tmp_path / "native", native, {"id": "x", "expected_l0": 3.0})
    yield path.parent, [path]


def test_mutated_files_end_in_a_sentence(tmp_path):
    rng = np.random.default_rng(12)
    refusals = 0
    for folder, files in valid_folders(tmp_path):
        checkpoints.load_sae(folder)
        there = sorted(folder.rglob("*"))
        for path in files:
            content = path.read_bytes()
            for _ in range(25):
                path.write_bytes(mutated(content, rng))
                try:
                    checkpoints.load_sae(folder)
                except FileError as error:
                    refusals += 1
                    assert folder.name in str(error) and "\n" not in str(error), str(error)
            path.write_bytes(content)
            assert sorted(folder.rglob("*")) == there
    assert refusals > 150


def test_every_array_that_is_not_finite_is_refused_by_name(tmp_path):
    for folder, (path, *_) in valid_folders(tmp_path):
        if path.suffix == ".safetensors":
            with checkpoints.native.stored.open_safetensors(path) as file:
                words = file.metadata()
            if path.parent.name == "native":  # of format 1, which holds no digest
                record = json.loads(words["jaxprobe"]) | {"format_version": 1}
                record.pop("content_sha256")
                words = {"jaxprobe": json.dumps(record)}
            arrays = safetensors.numpy.load_file(path)
            write = lambda a, p=path, w=words: safetensors.numpy.save_file(a, p, metadata=w)
        elif path.suffix == ".npz":
            arrays = npz_file.read(path)
            write = lambda a, p=path: np.savez(p, **a)
        else:
            arrays = torch_file.read(path)
            write = lambda a, p=path: torch_writer.write(p, a)
        for name, array in arrays.items():
            if array.dtype.kind != "f":
                continue
            for value in (np.nan, np.inf, -np.inf, 1e39):
                wide = array.astype(np.float64) if value == 1e39 else array.copy()
                if path.parent.name == "native" and value == 1e39:
                    continue  # its own files are float32
                wide.flat[0] = value
                write({**arrays, name: wide})
                if name == "threshold" and value == np.inf:
                    assert not np.asarray(
                        checkpoints.encode(checkpoints.load_sae(folder), np.ones(4))
                    )[0]
                    wide.fill(value)
                    write({**arrays, name: wide})
                refused(lambda folder=folder: checkpoints.load_sae(folder), path, f"`{name}`")
            write(arrays)
