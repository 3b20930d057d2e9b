"""Digests of files: read once a process, again after any change, and the Hub's names believed only when read."""

import hashlib
import os
import shutil

import numpy as np
import pytest

from jaxprobe import assets, boundary, checkpoints, models
from jaxprobe.assets import digests
from tests import fakes

SITE = fakes.Site.parse("blocks.1.resid_post")


@pytest.fixture
def reads(monkeypatch):
    """Lists how many bytes each hashing read."""
    real, found = hashlib.file_digest, []

    def file_digest(file, name):
        found.append(os.fstat(file.fileno()).st_size)
        return real(file, name)

    monkeypatch.setattr(hashlib, "file_digest", file_digest)
    return found


def test_a_file_is_read_once_and_again_when_anything_changed(tmp_path, reads):
    path = tmp_path / "weights"
    path.write_bytes(b"a" * 1000)
    wanted = hashlib.sha256(b"a" * 1000).hexdigest()
    assert [assets.file_sha256(path) for _ in range(3)] == [wanted] * 3
    link = tmp_path / "link"
    link.symlink_to(path)
    assert assets.files_sha256([path, link]) == [wanted] * 2
    assert len(reads) == 1
    times = path.stat()
    # Replaced by a file of the same size and times, as rsync and tar leave them.
    other = tmp_path / "other"
    other.write_bytes(b"b" * 1000)
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(path)
    assert path.stat().st_mtime_ns == times.st_mtime_ns
    assert assets.file_sha256(path) == hashlib.sha256(b"b" * 1000).hexdigest()
    # Edited where it lies, and the times put back, at once after it was hashed.
    with path.open("r+b") as file:
        file.write(b"c")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert assets.file_sha256(path) == hashlib.sha256(b"c" + b"b" * 999).hexdigest()
    # Gone and made again: a file system may give the same inode.
    path.unlink()
    path.write_bytes(b"d" * 1000)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert assets.file_sha256(path) == hashlib.sha256(b"d" * 1000).hexdigest()
    assert len(reads) == 4


def test_edits_right_after_hashing_are_noticed(tmp_path):
    path = tmp_path / "weights"
    for number in range(10):
        content = str(number).encode() * 100
        path.write_bytes(content)
        assert assets.file_sha256(path) == hashlib.sha256(content).hexdigest()


def test_nothing_is_remembered_from_a_clock_that_runs_ahead(tmp_path, monkeypatch, reads):
    path = tmp_path / "weights"
    path.write_bytes(b"a")
    monkeypatch.setattr(digests.time, "time_ns", lambda: path.stat().st_ctime_ns - 10**12)
    assert assets.file_sha256(path) == assets.file_sha256(path)
    assert len(reads) == 2


def test_only_regular_files_are_hashed(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(boundary.FileError, match="a regular file, got a pipe"):
        assets.file_sha256(tmp_path / "pipe")


def snapshot(tmp_path, files):
    """A Hub cache: snapshots of links into blobs, large files named by SHA-256, small ones by Git."""
    folder, blobs = tmp_path / "hub" / "snapshots" / "main", tmp_path / "hub" / "blobs"
    blobs.mkdir(parents=True)
    folder.mkdir(parents=True)
    for name, (content, large) in files.items():
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        blob = blobs / (hashlib.sha256(content).hexdigest() if large else git)
        blob.write_bytes(content)
        (folder / name).symlink_to(blob)
    return folder


def flip(path, position=-3):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    times = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_flipped_bit_in_the_hubs_cache_is_noticed(tmp_path):
    sae = fakes.loaded_sae(SITE, d_sae=8)
    made = checkpoints.save_sae(tmp_path / "made", sae.sae, {}, layout="gemma_scope")
    folder = snapshot(tmp_path, {made.name: (made.read_bytes(), True), "cfg": (b"{}", False)})
    digest = assets.file_sha256(folder / made.name)
    assert digest == (folder / made.name).resolve().name
    loaded = checkpoints.load_sae(folder, site=str(SITE))
    np.testing.assert_array_equal(loaded.sae.W_enc_DS, sae.sae.W_enc_DS)
    for name in (made.name, "cfg"):
        flip((folder / name).resolve(), 0)
        for read in (
            lambda: checkpoints.load_sae(folder),
            lambda at=name: assets.file_sha256(folder / at),
        ):
            with pytest.raises(
                (assets.AssetError, ValueError), match=rf"{name} is damaged: the Hub"
            ):
                read()
        flip((folder / name).resolve(), 0)
    # A plain copy has no name to be held to.
    plain = shutil.copytree(folder, tmp_path / "plain")
    flip(plain / "cfg", 0)
    assets.check_hub_files(plain)


def test_a_models_weights_are_hashed_once_a_run(tmp_path, reads, monkeypatch):
    """`identify` before the run, again in its first stage, and `load_model`: one reading."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + b"\0" * 100)

    class Found:
        contents, config = (path,), "config"

    prints = {models.model._fingerprint(Found, "float32") for _ in range(3)}
    assert len(prints) == len(reads) == 1
    times = path.stat()
    flip(path)
    assert path.stat().st_mtime_ns == times.st_mtime_ns
    assert models.model._fingerprint(Found, "float32") not in prints
