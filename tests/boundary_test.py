"""Every reader's boundary, on real files of every kind that a path can name."""

import json
import os
import socket

import pytest

from jaxprobe import boundary


def failing(path, error):
    with boundary.reader(path, "a sheep", "shear it again"):
        raise error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyError("wool"), "KeyError: 'wool'"),
        (ValueError("two heads"), "two heads"),
        (RecursionError("x"), "it is nested too deeply"),
        (MemoryError(), "it asks for more memory than there is"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (PermissionError(13, "Permission denied", "/x"), "Permission denied"),
    ],
)
def test_whatever_a_parser_meets_is_one_sentence(error, reason):
    with pytest.raises(boundary.FileError) as caught:
        failing("/farm/dolly.sheep", error)
    wanted = f"/farm/dolly.sheep cannot be read as a sheep ({reason}); shear it again"
    assert str(caught.value) == wanted
    assert caught.value.__cause__ is error


def test_an_error_that_names_the_file_keeps_its_words():
    with pytest.raises(boundary.FileError, match=r"^dolly.sheep has two heads$"):
        failing("/farm/dolly.sheep", ValueError("dolly.sheep has two heads"))


@pytest.mark.parametrize("error", [NameError("x"), ImportError("x"), KeyboardInterrupt()])
def test_programming_errors_and_stops_pass(error):
    with pytest.raises(type(error)):
        failing("x", error)


def test_a_panic_of_the_tokenizers_library_is_a_sentence(tmp_path):
    # The real thing: this character map makes the library's Rust code panic.
    import tokenizers.normalizers as normalizers

    with (
        pytest.raises(boundary.FileError, match="cannot be read as a map"),
        boundary.reader("map.bin", "a map", "fetch it again"),
    ):
        normalizers.Precompiled(b"\x07\x00\x00\x00abc")


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    for name, kind in (("pipe", "a pipe"), ("zero", "a device"), (".", "a folder")):
        with pytest.raises(boundary.FileError, match=f"must be a regular file, got {kind}"):
            boundary.open_regular(tmp_path / name)
    with pytest.raises(OSError):  # the kernel itself refuses a socket
        boundary.open_regular(tmp_path / "socket")
    listener.close()
    (tmp_path / "real").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("real")
    with boundary.open_regular(tmp_path / "link") as file:
        assert file.read() == b"abc"


def test_sizes_are_limited(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert boundary.read_bytes(path, 100) == b"x" * 100
    with pytest.raises(boundary.FileError, match=r"file must have at most 99 bytes, got 100"):
        boundary.read_bytes(path, 99)


def test_json_that_no_parser_survives(tmp_path):
    path = tmp_path / "deep.json"
    path.write_text("[" * 200_000)
    with pytest.raises(boundary.FileError, match=r"deep\.json .*nested too deep"):
        boundary.read_json(path)
    path.write_text("1" * 100_000)
    with pytest.raises(boundary.FileError, match=r"deep\.json cannot be read as a JSON file"):
        boundary.read_json(path)
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(boundary.FileError, match=r"deep\.json"):
        boundary.read_json(path)
    path.write_text(json.dumps({"a": 1}))
    assert boundary.read_json(path) == {"a": 1}
    with pytest.raises(FileNotFoundError):
        boundary.read_json(tmp_path / "none.json")


def test_unpacking_has_a_limit_that_the_user_can_raise(monkeypatch):
    monkeypatch.delenv(boundary.UNPACK_VARIABLE, raising=False)
    boundary.check_unpacked("a.zst", 128 << 20, 300)
    with pytest.raises(boundary.FileError, match=r"a\.zst unpacks to more than 128 MiB"):
        boundary.check_unpacked("a.zst", (128 << 20) + 1, 300)
    boundary.check_unpacked("a.zst", 1 << 30, 1 << 28)  # four times its size is ordinary
    monkeypatch.setenv(boundary.UNPACK_VARIABLE, "1024")
    boundary.check_unpacked("a.zst", 1 << 30, 300)
    monkeypatch.setenv(boundary.UNPACK_VARIABLE, "many")
    with pytest.raises(ValueError, match="whole number of MiB"):
        boundary.check_unpacked("a.zst", 1, 1)
