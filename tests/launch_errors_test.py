"""Errors that a launch script explains: config files, what the system says, names with control characters."""

import errno
import importlib
import os
import sys
from pathlib import Path

import pytest

from jaxprobe import outgoing

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def launch():
    """Imports a module of `launch/`."""
    sys.path.insert(0, str(ROOT / "launch"))
    yield importlib.import_module
    sys.path.remove(str(ROOT / "launch"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def get_config(:\n", r"line 1: SyntaxError: .*; correct it: a config file is Python"),
        ("x = 1\n", r"has no function get_config; a config file is Python with"),
        ("get_config = 3\n", r"has no function get_config"),
        ("\n\nx = 1 / 0\n", r"line 3: ZeroDivisionError: division by zero; correct it"),
        ("def get_config():\n    raise ValueError('no GPU')\n", r"line 2: ValueError: no GPU"),
        ("def get_config():\n    raise RuntimeError\n", r"line 2: RuntimeError; correct"),
        ("import sys\nsys.exit(3)\n", r"line 2: SystemExit: 3"),
        ("import nothing_of_this_name\n", r"line 1: ModuleNotFoundError: .*nothing_of_this_name"),
        ("def get_config():\n    return {'seed': 1}\n", r"must return a ConfigDict, got dict"),
        ("def get_config():\n    pass\n", r"must return a ConfigDict, got NoneType"),
        ("def get_config(which):\n    pass\n", r"TypeError: .*missing 1 required"),
        ("x = '\0'\n", r"bad\.py.*: (SyntaxError|ValueError)"),
        (b"x = '\xff'\n", r"bad\.py.*: (SyntaxError|UnicodeDecodeError)"),
    ],
)
def test_a_config_file_that_gives_no_config_is_one_sentence(launch, tmp_path, content, message):
    path = tmp_path / "bad.py"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    config_file = launch("config_file")
    with pytest.raises(config_file.ConfigFileError, match=message) as caught:
        config_file.load(str(path))
    said = str(caught.value)
    assert said.startswith(str(path)) or f"of {path}" in said
    assert "\n" not in said


def test_what_is_no_config_file(launch, tmp_path):
    config_file = launch("config_file")
    with pytest.raises(config_file.ConfigFileError, match="must be a regular file, got a folder"):
        config_file.load(str(tmp_path))
    os.mkfifo(tmp_path / "pipe.py")
    with pytest.raises(config_file.ConfigFileError, match="must be a regular file, got a pipe"):
        config_file.load(str(tmp_path / "pipe.py"))


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free space, then run the same command again"),
        (errno.EROFS, "allow it there, or name another folder in --workdir"),
        (errno.EACCES, "allow it there"),
        (errno.ENOTDIR, "something else is in its place"),
        (errno.EISDIR, "something else is in its place"),
        (errno.ENAMETOOLONG, "use a shorter name or --workdir"),
        (errno.EMFILE, "allow more open files"),
        (errno.EIO, "what was committed is safe: correct that"),
    ],
)
def test_what_the_system_says_comes_with_the_file_and_a_remedy(launch, number, remedy):
    error = OSError(number, os.strerror(number), "/a/\x1b[31mfile")
    said = launch("failures").sentence(error)
    assert said.startswith(r"/a/\x1b[31mfile: " + os.strerror(number))
    assert remedy in said and "\n" not in said


def test_only_what_is_no_mistake_of_ours_is_a_sentence(launch, capsys):
    finish = launch("failures").finish

    def raises(error):
        def work():
            raise error

        return work

    for error in (
        ValueError("a\x1b]0;b"),
        FileNotFoundError("no\nfile"),
        MemoryError(),
        OSError("x"),
    ):
        with pytest.raises(SystemExit, match=r"^error: ") as caught:
            finish(raises(error))
        assert str(caught.value).isprintable()
    for error in (
        TypeError("t"),
        KeyError("k"),
        AttributeError("a"),
        IndexError("i"),
        NameError("n"),
    ):
        with pytest.raises(type(error)):
            finish(raises(error))
    assert finish(lambda: 3) == 3


def test_a_terminal_gets_only_characters_that_it_shows():
    assert outgoing.printable("plain ä 漢 ✓") == "plain ä 漢 ✓"
    nasty = "\x1b[2J\x07\x9b31m\u202eabc\u2066\u200b\r\n\t\x7f\u2028\ud800\x00\x85"
    shown = outgoing.printable(f"id {nasty} end")
    assert shown.isprintable() and shown.isascii()
    assert shown.startswith(
        r"id \x1b[2J\x07\x9b31m\u202eabc\u2066\u200b\r\n\t\x7f\u2028\ud800\x00\x85"
    )
    shown.encode("utf-8")


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        *(
            (text, "'" + text)
            for text in ("=1+1", "+cmd", "-x", "@SUM(A1)", "\t=1", "\r=1", "\n=1")
        ),
        *(
            (text, "'" + text)
            for text in ("  =1", "\uff1d1", "-1+2", "+1-cmd|' /C calc'!A0", "-", "- 5")
        ),
        *(
            (text, text)
            for text in ("plain", "a=b", "", "1-2", "-1.5", "+3", "-1e-05", "-inf", "'=x")
        ),
        *((number, number) for number in (-1, -0.25, 3, float("-inf"), None, True)),
    ],
)
def test_a_spreadsheet_runs_no_cell_and_numbers_stay_numbers(value, wanted):
    assert outgoing.cell(value) == wanted
    assert type(outgoing.cell(value)) is type(value)
