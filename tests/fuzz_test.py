"""The fuzzer: its valid files are valid, and it notices whatever a reader must not do."""

import json
import os
import random
import re
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
from fuzzing import judge, mutations, worker
from fuzzing.reader import Reader
from fuzzing.readers import READERS

from jaxprobe import sealed
from tests import bare

ROOT = Path(__file__).resolve().parents[1]
LIMITS = judge.Limits(seconds=1.0, memory_mib=50)


@pytest.fixture(scope="module")
def watch():
    return judge.Watch.of_process()


@pytest.mark.parametrize("name", READERS)
def test_valid_files_are_read(name, tmp_path):
    for case in worker.make_cases(READERS[name], tmp_path):
        assert READERS[name].targets(case), f"{name} has nothing to mutate in {case.name}"
        READERS[name].read(case)


def test_a_number_and_a_seed_decide_a_file(tmp_path):
    cases = worker.make_cases(READERS["csv"], tmp_path)
    files = [worker.mutated(READERS["csv"], "csv", number, 7, cases) for number in range(50)]
    again = [worker.mutated(READERS["csv"], "csv", number, 7, cases) for number in range(50)]
    assert files == again
    whole = {path: path.read_bytes() for path, _ in files}
    assert sum(content != whole[path] for path, content in files) >= 48
    assert len({content for _, content in files}) >= 45


@pytest.mark.parametrize("name", ["native", "state", "latents", "store", "run"])
def test_files_with_a_digest_are_sealed_again_so_that_what_stands_behind_it_is_reached(
    name, tmp_path
):
    reader = READERS[name]
    (case,) = worker.make_cases(reader, tmp_path)
    for path in reader.targets(case):
        whole = path.read_bytes()
        assert reader.mend(whole) == whole
        if sealed.KEY.encode() in whole:
            changed = whole.replace(b'"', b' "', 1) if path.suffix == ".json" else whole + b" "
            path.write_bytes(reader.mend(changed))
            digest = re.search(rb"[0-9a-f]{64}", changed[changed.index(sealed.KEY.encode()) :])
            again = re.search(
                rb"[0-9a-f]{64}", path.read_bytes()[path.read_bytes().index(sealed.KEY.encode()) :]
            )
            assert again[0] != digest[0]
            assert sealed.verify(path, again[0].decode(), "restore it")
        path.write_bytes(whole)


def test_json_stays_json_and_headers_keep_their_length():
    header = json.dumps({"a": {"shape": [2, 3], "dtype": "F32"}}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(24)
    refused_later = 0
    for seed in range(300):
        changed = mutations.mutate(random.Random(seed), content, [content])
        size = int.from_bytes(changed[:8], "little")
        try:
            json.loads(changed[8 : 8 + size])
            refused_later += changed[8 : 8 + size] != header
        except (ValueError, RecursionError):
            continue
    assert refused_later > 100  # most mutations pass the first gate of a reader


def eats_memory(folder):
    keep = bytearray(120 << 20)
    keep[:: 1 << 12] = b"x" * len(keep[:: 1 << 12])
    raise ValueError(f"{folder.name} is large")


def takes_time(folder):
    start = time.thread_time()
    while time.thread_time() - start < 1.1:
        pass


def refuses(folder):
    raise ValueError(f"{folder / 'file'} must be something else")


@pytest.mark.parametrize(
    ("read", "finding"),
    [
        (lambda folder: (folder / "file").read_bytes(), None),
        (refuses, None),
        (lambda folder: {}["key"], "KeyError"),
        (lambda folder: int("x"), "does not name the file: ValueError: invalid literal"),
        (lambda folder: sys.exit(3), "SystemExit"),
        (lambda folder: (folder / "more").write_text("x"), "for writing"),
        (lambda folder: subprocess.run(["true"], check=True), "subprocess.Popen"),
        (lambda folder: eval("1+1"), "exec"),
        (eats_memory, "MiB"),
        (takes_time, "s of CPU time"),
    ],
)
def test_what_a_reader_must_not_do_is_noticed(read, finding, tmp_path, watch):
    case = tmp_path / "case-x"
    case.mkdir()
    (case / "file").write_bytes(b"x")
    wrong = judge.judge(read, case, "file", watch, LIMITS)
    assert wrong is None if finding is None else finding in wrong


def test_a_stray_file_of_native_code_is_noticed_and_the_valid_file_comes_back(tmp_path, watch):
    reader = Reader(makes={"x": lambda folder: (folder / "file").write_bytes(b"whole")}, read=None)
    cases = worker.make_cases(reader, tmp_path)
    path = cases[0] / "file"

    def native(folder):
        watch.on = False  # as code that the audit hook does not see
        (folder / "left").write_bytes(path.read_bytes())

    wrong = worker.outcome(reader._replace(read=native), cases, path, b"mutated", watch)
    assert wrong == "left or removed ['left']"
    assert (path.read_bytes(), (cases[0] / "left").read_bytes()) == (b"whole", b"mutated")


# A reader that dies at one file and hangs at another; the worker imports it in place of the real ones.
BROKEN = """{package}
import json, os, time, zlib
from pathlib import Path
readers = sys.modules["fuzzing.readers"] = types.ModuleType("fuzzing.readers")
readers.READERS = {{}}
from fuzzing import fleet, reader, worker

def read(folder):
    found = zlib.crc32((folder / "file").read_bytes())
    if found == {dies}:
        os.kill(os.getpid(), 9)
    if found == {hangs}:
        time.sleep(60)

make = lambda folder: (folder / "file").write_bytes(b"whole" * 20)
readers.READERS["broken"] = reader.Reader(makes={{"x": make}}, read=read)
readers.READERS["sound"] = reader.Reader(makes={{"x": make}}, read=lambda folder: None)
if len(sys.argv) > 1:
    sys.exit(worker.main(json.loads(sys.argv[1])))
worker.__file__ = __file__
fleet.HANG_SECONDS = 3.0
plan = fleet.Plan(("sound", "broken"), "numbered", 60, 40, 3, 1, Path({found!r}))
sound, broken = fleet.fuzz(plan).values()
print(json.dumps([sound.files, broken.files, sorted(broken.findings.items())]))
"""


def test_a_reader_that_dies_or_hangs_is_found_and_the_other_files_are_still_read(tmp_path):
    make = {"x": lambda folder: (folder / "file").write_bytes(b"whole" * 20)}
    cases = worker.make_cases(Reader(makes=make, read=None), tmp_path)
    reader = Reader(makes=make, read=None)
    contents = [worker.mutated(reader, "broken", number, 3, cases)[1] for number in (11, 23)]
    dies, hangs = map(zlib.crc32, contents)
    script = tmp_path / "broken.py"
    script.write_text(
        BROKEN.format(package=bare.PACKAGE, dies=dies, hangs=hangs, found=str(tmp_path / "found"))
    )
    paths = os.pathsep.join((str(ROOT), str(ROOT / "launch")))
    got = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert got.returncode == 0, got.stderr[-2000:]
    died, hung = ["ended its process with -9: ", [11]], ["hung for more than 3 s", [23]]
    assert json.loads(got.stdout) == [40, 40, [died, hung]]
    assert (tmp_path / "found" / "findings.jsonl").read_text().count("\n") == 2


def test_the_script_ends_with_one_where_something_is_found(tmp_path):
    arguments = ("--reader=csv", "--count=40", "--jobs=1", f"--found={tmp_path / 'found'}")
    got = subprocess.run(
        [sys.executable, "launch/fuzz.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert got.returncode == 0, got.stdout + got.stderr
    assert "csv                   40 files" in got.stdout
    assert "all                   40 files, 0 findings" in got.stdout
