"""Places: the same behaviour on a path and in memory, whole objects, and links that lead elsewhere."""

import itertools
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest
import tensorstore as ts

from jaxprobe import boundary, place
from jaxprobe.place import ObstacleError, Place, keys
from jaxprobe.place import files as local_files
from tests import bare

COUNT = itertools.count()


@pytest.fixture(params=["path", "memory"])
def root(request, tmp_path):
    """An empty place of each kind that can be reached here."""
    if request.param == "path":
        return Place.parse(tmp_path / "work")
    return Place.parse(f"memory://place_test/{next(COUNT)}")


def test_an_object_is_written_read_replaced_and_deleted(root):
    item = root / "a" / "b/c.json"
    assert (str(item), item.name) == (f"{root}/a/b/c.json", "c.json")
    assert not item.exists()
    with pytest.raises(FileNotFoundError, match=r"c\.json"):
        item.read()
    with pytest.raises(FileNotFoundError, match=r"c\.json"):
        item.size()
    item.replace(b"one")
    item.replace([b"two", memoryview(b" and three"), bytearray(b"!")])
    assert (item.read(), item.size(), item.exists()) == (b"two and three!", 14, True)
    item.delete()
    item.delete()
    (root / "never" / "was").delete()
    assert not item.exists()
    item.replace(b"")
    assert (item.read(), item.exists(), item.size()) == (b"", True, 0)
    item.replace(pa.py_buffer(b"arrow"))
    assert item.read() == b"arrow"


def test_create_has_one_winner(root):
    item = root / "results" / "job"
    assert item.create([b"fir", b"st"])
    assert not item.create(b"second")
    assert item.read() == b"first"
    item.delete()
    start, won = threading.Barrier(8), []

    def race(number):
        start.wait()
        if item.create(b"%d" % number):
            won.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    _ = [thread.start() for thread in threads]
    _ = [thread.join() for thread in threads]
    assert len(won) == 1
    assert item.read() == b"%d" % won[0]
    assert (root / "results").children() == ["job"]


def test_create_does_not_believe_what_it_saw_before_another_wrote(monkeypatch):
    item = Place.parse("memory://place_test/late") / "a"
    seen = item._driver._look()
    assert item.create(b"theirs")
    monkeypatch.setattr(keys.Keys, "_look", lambda self: seen)
    assert not item.create(b"mine")
    assert item.read() == b"theirs"


def test_children_are_names_directly_below_in_order(root):
    assert root.children() == []
    for name in ("b", "a", "c/deep", "c/deeper/x", "ü x?*%20#", "caa"):
        (root / name).replace(b"1")
    assert root.children() == ["a", "b", "c", "caa", "ü x?*%20#"]
    assert (root / "c").children() == ["deep", "deeper"]
    assert not (root / "c").exists()  # a folder is no object
    assert (root / "ü x?*%20#").read() == b"1"


LONG = ("x" * 201, "é" * 101)
UNFIT = ("", ".", "..", "/a", "a/", "a//b", "a/../b", "../b", "a\0b", "\ud800")


@pytest.mark.parametrize("name", [*LONG, *UNFIT, ".results.0123456789abcdef.tmp"])
def test_names_that_lead_elsewhere_or_fit_nowhere_are_refused(root, name):
    with pytest.raises(ValueError, match="must be file names"):
        root / name


def test_a_long_name_fits(root):
    item = root / ("x" * 200)
    item.replace(b"1")
    assert item.create(b"2") is False
    assert root.children() == ["x" * 200]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "name a directory"),
        ("a\0b", "name a directory"),
        ("https://host/x", "begin with memory://, gs://, s3://"),
        ("file:///x", "by its path alone"),
        ("gs://", "must name a bucket"),
        ("s3:///x", "must name a bucket"),
        ("gs://bucket/../other", r"leave out `\.`"),
        ("memory://a//b", r"leave out `\.`"),
        ("gs://B!/x", "bucket"),
    ],
)
def test_what_is_no_place_is_refused(text, told):
    with pytest.raises(ValueError, match=told):
        Place.parse(text)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("memory://", {"driver": "memory", "path": "a/"}),
        ("memory://x/", {"driver": "memory", "path": "x/a/"}),
        ("gs://bucket", {"driver": "gcs", "bucket": "bucket", "path": "a/"}),
        ("gs://bucket/b c/d", {"driver": "gcs", "bucket": "bucket", "path": "b c/d/a/"}),
        ("s3://bucket/x", {"driver": "s3", "bucket": "bucket", "path": "x/a/"}),
    ],
)
def test_a_url_is_a_spec_of_tensorstore(text, spec):
    item = Place.parse(text) / "a"
    assert item.kvstore() == spec
    assert ts.KvStore.Spec(spec).to_json()["path"] == spec["path"]
    assert item.local is None
    assert str(Place.parse(text)) == text


def test_places_are_values():
    one = Place.parse("runs/x")
    assert one == Place.parse(Path("runs/x")) == Place.parse(one)
    assert len({one / "a", one / "a", one / "b"}) == 2
    assert (one / "a/b").local == Path("runs/x/a/b")
    assert str(Place.parse("runs/x/") / "a") == "runs/x/a"
    assert str(Place.parse("/") / "a") == "/a"
    with pytest.raises(AttributeError):
        one.root = "other"


def test_arrays_lie_below_a_place(root):
    metadata = {"data_type": "float32", "shape": [3]}
    spec = {"driver": "zarr3", "kvstore": (root / "x").kvstore(), "metadata": metadata}
    array = ts.open(spec, create=True, context=place.context()).result()
    array[:] = 2.5
    again = ts.open(spec, open=True, context=place.context()).result()
    assert again.read().result().tolist() == [2.5] * 3
    assert (root / "x").children() == ["c", "zarr.json"]
    assert (root / "x/c/0").exists()


def test_a_lock_has_one_holder_and_is_freed(root):
    lock = root / ".lock"
    with lock.locked():
        with pytest.raises(BlockingIOError, match=r"\.lock"), lock.locked():
            pass
    with pytest.raises(ZeroDivisionError), lock.locked():
        _ = 1 / 0
    with lock.locked():
        pass


def test_memory_says_who_holds_a_lock():
    lock = Place.parse("memory://place_test/lock")
    with lock.locked():
        with pytest.raises(BlockingIOError, match=f"{os.getpid()}.*delete this object"):
            lock.locked().__enter__()


# Local paths only: links, other people's files, killed processes.


def outside(tmp_path) -> Path:
    """A folder with a file that nobody may touch."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_text("precious")
    return folder


def untouched(folder: Path) -> bool:
    return os.listdir(folder) == ["precious"] and (folder / "precious").read_text() == "precious"


def test_a_work_directory_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "work").symlink_to(tmp_path / "disk")
    item = Place.parse(tmp_path / "work") / "a/b"
    item.replace(b"1")
    assert not item.create(b"2")
    assert (tmp_path / "disk/a/b").read_bytes() == b"1"
    assert item.read() == b"1"
    item.delete()
    assert os.listdir(tmp_path / "disk/a") == []


def test_a_link_in_place_of_an_object_is_replaced_itself(tmp_path):
    folder = outside(tmp_path)
    root = Place.parse(tmp_path / "work")
    (root / "begun").replace(b"")
    for item in (root / "a", root / "b"):
        item.local.symlink_to(folder / "precious")
    assert (root / "a").read() == b"precious"  # reading follows links
    assert not (root / "a").create(b"x")
    (root / "a").replace(b"mine")
    (root / "b").delete()
    assert untouched(folder)
    assert not (root / "a").local.is_symlink()
    assert (root / "a").read() == b"mine"
    assert root.children() == ["a", "begun"]
    (root / "c").local.symlink_to(folder / "absent")
    with pytest.raises(ObstacleError, match=r"work/c.*|broken link.*work/c"):
        (root / "c").create(b"x")
    (root / "d").local.mkdir()
    with pytest.raises(ObstacleError, match="a folder, a device or a broken link"):
        (root / "d").create(b"x")
    with pytest.raises(OSError, match="work/d"):
        (root / "d").replace(b"x")
    with pytest.raises(OSError, match="work/d"):
        (root / "d").delete()
    with pytest.raises(OSError, match=r"work/\.lock"):
        (root / ".lock").local.symlink_to(folder / "absent")
        (root / ".lock").locked().__enter__()
    assert untouched(folder)
    assert root.children() == [".lock", "a", "begun", "c", "d"]  # nothing unfinished


def test_a_link_in_place_of_a_folder_is_refused(tmp_path):
    folder = outside(tmp_path)
    root = Place.parse(tmp_path / "work")
    (root / "begun").replace(b"")
    (root / "results").local.symlink_to(folder)
    item = root / "results/precious"
    assert item.read() == b"precious"  # moved to another disk, say
    assert (root / "results").children() == ["precious"]
    for write in (item.delete, lambda: item.replace(b"x"), lambda: item.create(b"x")):
        with pytest.raises(ObstacleError, match=r"nothing is written or deleted.*work/results"):
            write()
    with pytest.raises(ObstacleError, match="work/results"):
        (root / "results/.lock").locked().__enter__()
    with pytest.raises(ObstacleError, match="work/results"):
        (root / "results/deeper").check_folders(1)
    with pytest.raises(ObstacleError, match="work/results"):
        root.check_folders(1)
    (root / "s/t/u/v").replace(b"")
    (root / "s/t/u/w").local.symlink_to(folder)
    (root / "s").check_folders(2)
    with pytest.raises(ObstacleError, match="s/t/u/w"):
        (root / "s").check_folders(3)
    assert untouched(folder)


def test_tensorstores_own_names_lead_through_planted_links_with_its_locks_and_not_with_ours(
    tmp_path,
):
    folder = outside(tmp_path)
    root = Place.parse(tmp_path / "work")
    (root / "begun").replace(b"")
    (root / "x.__lock").local.symlink_to(folder / "precious")
    ours = ts.KvStore.open(root.kvstore()).result()
    ours.write("x", b"mine").result()
    assert untouched(folder)
    assert (root / "x").read() == b"mine"
    theirs = {"driver": "file", "path": root.kvstore()["path"]}
    ts.KvStore.open(theirs).result().write("x", b"mine").result()
    assert not untouched(folder)  # the day this fails, `files` can be asked whether it is needed


def test_planted_temporary_names_are_never_opened(tmp_path, monkeypatch):
    folder = outside(tmp_path)
    root = Place.parse(tmp_path / "work")
    (root / "begun").replace(b"")
    drawn = iter(["0" * 16, "1" * 16])
    monkeypatch.setattr(local_files.secrets, "token_hex", lambda size: next(drawn))
    (root.local / f".a.{'0' * 16}.tmp").symlink_to(folder / "precious")
    with pytest.raises(FileExistsError, match="work/a"):  # as good as never: 64 random bits
        (root / "a").replace(b"x")
    (root / "a").replace(b"y")
    assert untouched(folder)
    assert (root / "a").read() == b"y"


def test_files_of_others_survive_and_what_a_killed_process_left_does_not(tmp_path):
    root = Place.parse(tmp_path / "work")
    (root / "a").replace(b"1")
    others = ["a.tmp", ".a.partial", ".a.tmp", "a.__lock", ".b.0123456789abcdef.tmp", "a~"]
    others += [".a.0123456789abcde.tmp", ".a.0123456789ABCDEF.tmp"]
    for name in others:
        (root.local / name).write_text(name)
    left = root.local / ".a.0123456789abcdef.tmp"
    left.write_text("half")
    link = root.local / ".a.00000000000000ff.tmp"
    link.symlink_to(root.local / "a~")
    assert set(root.children()) == {"a", *others} - {".b.0123456789abcdef.tmp"}
    (root / "a").replace(b"2")
    assert not left.exists()
    assert link.is_symlink()
    assert {path.name for path in root.local.iterdir()} == {"a", *others, link.name}
    assert all((root.local / name).read_text() == name for name in others)


def test_an_unfinished_file_of_a_living_writer_is_kept(tmp_path):
    root = Place.parse(tmp_path / "work")
    (root / "a").replace(b"1")

    descriptor = os.open(tmp_path / "work", os.O_RDONLY)
    try:
        with local_files._unfinished(descriptor, "a", b"theirs") as name:
            (root / "a").replace(b"2")
            assert (tmp_path / "work" / name).exists()
        assert os.listdir(tmp_path / "work") == ["a"]
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("call", ["fsync", "rename", "link"])
def test_a_failed_write_leaves_the_old_object_and_names_the_place(tmp_path, monkeypatch, call):
    item = Place.parse(tmp_path / "work") / "a"
    if call != "link":
        item.replace(b"old")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(local_files.os, call, full)
        with pytest.raises(OSError, match=r"No space left on device: .*work/a'$"):
            (item.create if call == "link" else item.replace)(b"new")
    assert item.exists() == (call != "link")
    assert not item.exists() or item.read() == b"old"
    assert [name for name in os.listdir(tmp_path / "work") if name != "a"] == []


def test_writes_are_synced_with_their_folders_and_have_ordinary_modes(tmp_path, monkeypatch):
    calls, fsync = [], os.fsync

    def recorded(descriptor):
        calls.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    monkeypatch.setattr(local_files.os, "fsync", recorded)
    item = Place.parse(tmp_path) / "new/a"
    item.replace(b"1")
    assert calls == [True, False, True]  # the folder's own name, the content, the file's name
    calls.clear()
    assert (Place.parse(tmp_path) / "new/b").create(b"1")
    assert calls == [False, True]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(item.local.stat().st_mode) == 0o666 & ~mask
    assert item.local.stat().st_nlink == (item.local.parent / "b").stat().st_nlink == 1


def test_a_pipe_or_folder_is_not_read(tmp_path):
    root = Place.parse(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", ""):
        item = root / name if name else Place.parse(tmp_path)
        assert not item.exists()
        with pytest.raises((OSError, boundary.FileError)):
            item.read()
    (root / "file").replace(b"1")
    assert not (root / "file/below").exists()
    with pytest.raises(OSError, match="file/below"):
        (root / "file/below").replace(b"1")


CHILD = f"""{bare.PACKAGE}
from jaxprobe.place import Place
work, name, way = sys.argv[1:]
place = Place.parse(work) / "a"
print("ready", flush=True)
if way == "create":
    sys.stdin.readline()
    print(place.create(name.encode()), flush=True)
else:
    while True:
        for letter in (b"x", b"y"):
            place.replace([letter * 100_000] * 30)
"""


def child(work: Path, name: str, way: str) -> subprocess.Popen:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", CHILD, str(work), name, way]
    started = subprocess.Popen(command, cwd=Path(__file__).parents[1], **pipes)
    assert started.stdout.readline() == "ready\n"
    return started


def test_two_processes_create_and_one_wins(tmp_path):
    children = [child(tmp_path / "work", name, "create") for name in ("one", "two")]
    for each in children:
        each.stdin.write("\n")
        each.stdin.flush()
    said = [each.communicate(timeout=60)[0].strip() for each in children]
    assert sorted(said) == ["False", "True"]
    winner = ("one", "two")[said.index("True")]
    assert (Place.parse(tmp_path / "work") / "a").read() == winner.encode()


def test_a_killed_replace_leaves_whole_bytes(tmp_path):
    item = Place.parse(tmp_path / "work") / "a"
    seen = set()
    writer = child(tmp_path / "work", "", "replace")
    with writer:
        while len(seen) < 2:  # until both have been seen, each of them whole
            if item.exists():
                content = item.read()
                assert len(content) == 3_000_000 and len(set(content)) == 1
                seen.add(content[:1])
        time.sleep(0.013)
        writer.send_signal(signal.SIGKILL)
    content = item.read()
    assert len(content) == 3_000_000 and len(set(content)) == 1
    item.replace(b"new")
    assert os.listdir(tmp_path / "work") == ["a"]
    assert item.read() == b"new"
