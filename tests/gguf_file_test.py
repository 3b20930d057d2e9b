import gguf
import numpy as np
import pytest

from jaxprobe.gguf_file import open_gguf


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "some.gguf"
    rng = np.random.default_rng(0)
    tensors = {"plain": rng.normal(size=(3, 4, 5)), "wide": rng.normal(size=(700, 256))}
    tensors = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    writer = gguf.GGUFWriter(path, "made-up")
    writer.add_uint32("a.count", 7)
    writer.add_float32("a.number", 0.5)
    writer.add_bool("a.flag", True)
    writer.add_array("a.words", ["x", "", "\u2581é\n"])
    writer.add_array("a.numbers", [1, -2, 3])
    writer.add_tensor("plain", tensors["plain"])
    for kind in ("Q8_0", "Q5_0"):
        kind_id = gguf.GGMLQuantizationType[kind]
        packed = gguf.quantize(tensors["wide"], kind_id)
        writer.add_tensor(kind, packed, raw_dtype=kind_id)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, tensors


def test_metadata_equals_the_gguf_packages_reading(written):
    file, reader = open_gguf(written[0]), gguf.GGUFReader(written[0])
    for key, field in reader.fields.items():
        if not key.startswith("GGUF."):
            got = file.metadata[key]
            assert (got.tolist() if isinstance(got, np.ndarray) else got) == field.contents(), key
    assert file.value("a.words") == ["x", "", "\u2581é\n"]
    with pytest.raises(ValueError, match=r"no metadata `a\.missing`"):
        file.value("a.missing")


def test_tensors_equal_the_gguf_packages_reading(written):
    file = open_gguf(written[0])
    np.testing.assert_array_equal(file.read("plain", np.float32), written[1]["plain"])
    for tensor in gguf.GGUFReader(written[0]).tensors:
        whole = gguf.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(file.read(tensor.name, np.float32), whole)
    assert file.read("Q8_0", np.float16).dtype == np.float16


def test_every_cut_file_is_refused(written, tmp_path):
    whole = written[0].read_bytes()
    cut = tmp_path / "cut.gguf"
    for size in (4, 30, 200, 400, len(whole) - 1):
        cut.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cut\.gguf.*(ends inside|cut short).*fetch it again"):
            open_gguf(cut)


def test_other_files_are_refused(tmp_path, written):
    other = tmp_path / "other.gguf"
    other.write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(ValueError, match=r"must be a GGUF file.*got b'PK"):
        open_gguf(other)
    other.write_bytes(b"GGUF" + (9).to_bytes(4, "little") + bytes(60))
    with pytest.raises(ValueError, match="version must be one of"):
        open_gguf(other)
