"""Files of `torch.save` are read without running them: what a pickle may ask for, and what not."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from jaxprobe.checkpoints import torch_file
from tests.checkpoints import torch_writer
from tests.checkpoints.torch_writer import Call, Name


def test_tensors_are_read_as_stored(tmp_path):
    arrays = {
        "a": np.arange(12, dtype=np.float32).reshape(3, 4),
        "half": np.arange(5, dtype=np.float16),
        "k": np.array(7, np.int64),
    }
    torch_writer.write(tmp_path / "x.pt", arrays)
    found = torch_file.read(tmp_path / "x.pt")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_views_and_what_stands_beside_tensors(tmp_path):
    base = np.arange(12, dtype=np.float32)
    part, _ = torch_writer.tensor(base, "0", size=(2, 3), stride=(1, 4), offset=1)
    content = {"part": part, "epoch": 3, "name": "x", "nested": {"lr": 0.1}}
    torch_writer.write(tmp_path / "x.pt", content, {"0": base})
    found = torch_file.read(tmp_path / "x.pt")
    np.testing.assert_array_equal(found["part"], [[1, 5, 9], [2, 6, 10]])
    assert list(found) == ["part"]


class Trap:
    """Pickles itself as a call that leaves a file behind."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def zipped(path, pickled: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_of_a_malicious_pickle_runs(tmp_path, protocol):
    sprung, path = tmp_path / "sprung", tmp_path / "x.pt"
    traps = {
        "posix.system": Trap(os.system, f"touch {sprung}"),
        "open": Trap(open, str(sprung), "w"),
        "exec": Trap(exec, f"open({str(sprung)!r}, 'w')"),
        "getattr": Trap(getattr, Trap(__import__, "os"), "system"),
        "mkdir": {"deep": [Trap(os.mkdir, str(sprung))]},
    }
    for name, trap in traps.items():
        zipped(path, pickle.dumps({"W_enc": trap}, protocol))
        with pytest.raises(ValueError, match=rf"its pickle asks for \S*{name}.*safetensors"):
            torch_file.read(path)
        assert not sprung.exists()
    # The trap works: an ordinary unpickling springs it.
    pickle.loads(pickle.dumps(traps["open"], protocol)).close()
    assert sprung.exists()


@pytest.mark.parametrize(
    "name",
    [
        *("torch._utils._rebuild_parameter", "torch.load", "torch.storage._load_from_bytes"),
        *("builtins.eval", "torch.FloatTensor", "collections.defaultdict", "numpy.load"),
        *("torch._utils._rebuild_tensor_v2.__globals__", "collections.OrderedDict.fromkeys"),
    ],
)
def test_other_names_are_refused_by_name(tmp_path, name):
    module, _, last = name.rpartition(".")
    torch_writer.write(tmp_path / "x.pt", {"a": Call(Name(module, last), "1")}, {})
    with pytest.raises(ValueError, match=rf"asks for {name}"):
        torch_file.read(tmp_path / "x.pt")


def test_dotted_names_of_protocol_4_do_not_reach_further(tmp_path):
    # STACK_GLOBAL may name attributes of attributes.
    code = b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93)R."
    zipped(tmp_path / "x.pt", code)
    with pytest.raises(ValueError, match=r"asks for collections.OrderedDict.__init__"):
        torch_file.read(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"size": (5, 4)}, "does not fit its storage"),
        ({"offset": 9}, "does not fit its storage"),
        ({"stride": (0, 1), "size": (10**9, 4)}, "does not fit its storage"),
        ({"offset": -1}, "makes no sense"),
        ({"stride": (-4, 1)}, "makes no sense"),
        ({"size": (3, "4")}, "makes no sense"),
        ({"size": (10**20,), "stride": (1,)}, "more than 64 bits"),
        ({"size": (2**60,), "stride": (1,)}, "makes no sense"),
    ],
)
def test_tensors_stay_inside_their_storage(tmp_path, place, message):
    base = np.arange(12, dtype=np.float32).reshape(3, 4)
    call, _ = torch_writer.tensor(base, "0", **place)
    torch_writer.write(tmp_path / "x.pt", {"a": call}, {"0": base})
    with pytest.raises(ValueError, match=message):
        torch_file.read(tmp_path / "x.pt")


def test_storages_that_lie_are_refused(tmp_path):
    base = np.arange(12, dtype=np.float32)
    call, _ = torch_writer.tensor(base, "0")
    torch_writer.write(tmp_path / "x.pt", {"a": call}, {"0": base[:5]})
    with pytest.raises(ValueError, match="must have 48 bytes, got 20"):
        torch_file.read(tmp_path / "x.pt")
    torch_writer.write(tmp_path / "x.pt", {"a": call}, {"../0": base})
    with pytest.raises(ValueError, match="must have 48 bytes, got None"):
        torch_file.read(tmp_path / "x.pt")


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(pickle.dumps({"a": 1}))  # torch before 1.6 wrote bare pickles
    with pytest.raises(ValueError, match=r"zip archive as `torch.save` writes it"):
        torch_file.read(path)
    zipped(path, pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match="must hold a dictionary of tensors, got list"):
        torch_file.read(path)
    zipped(path, pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match="must hold tensors by name, got a"):
        torch_file.read(path)
    zipped(path, b"\x80\x02garbage")
    with pytest.raises(ValueError, match=r"x.pt"):
        torch_file.read(path)
    torch_writer.write(path, {"a": np.zeros(3, np.float32)})
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="cut short"):
        torch_file.read(path)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**6))
    path.write_bytes(stream.getvalue())
    with pytest.raises(ValueError, match="is compressed"):
        torch_file.read(path)
