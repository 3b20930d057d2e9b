"""How a result was made: config, versions, processor, command. One file per run, named by its content.

A result names the record of the run that made it, so a page says about a result what was true when it was made,
whatever ran in the directory since.
"""

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxprobe import sealed
from jaxprobe.identity import digest
from jaxprobe.workdir import Workdir

PACKAGES = ("jaxprobe", "jax", "jaxlib", "numpy", "penzai", "optax", "tensorstore", "gguf")
# The entries that every record has.
_TYPES = {
    **dict.fromkeys(("config", "versions", "seeds", "fingerprints", "sae_quality"), dict),
    **dict.fromkeys(("commit", "device", "processor"), str),
}
_AGAIN = "restore it from a copy, or run the fit stage again in another work directory"


def make(config: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The record of a run that is about to make results.

    Args:
        config: The experiment's config, every key.
        **more: Further entries, such as fingerprints or the SAEs' quality.
    """
    return {
        "config": config,
        "versions": versions(),
        "commit": commit(),
        "device": device(),
        "processor": processor(),
        **more,
    }


def keep(work: Workdir, record: Mapping[str, Any]) -> str:
    """Writes a record unless it exists; returns the name by which results refer to it."""
    name = digest(record)[:16]
    place = work.records / f"{name}.json"
    if not place.exists():
        place.create(sealed.to_json(record))
    return name


def read(work: Workdir, name: str) -> dict[str, Any]:
    """The record of that name.

    Raises:
        FileNotFoundError: There is no such record.
        FileError: The file is not what was written.
    """
    place = work.records / f"{name}.json"
    record = sealed.read_json(place, _AGAIN)
    sealed.check_types(place, record, _TYPES, _AGAIN)
    sections = {key: dict for key in ("fit", "encode") if key in record["config"]}
    sealed.check_types(place, record["config"], sections, _AGAIN)
    return record


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute the numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def commit() -> str:
    """The git commit of jaxprobe's own checkout, followed by `+` where files differ; empty without one."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    try:
        said = [
            subprocess.run(
                ["git", "-C", str(root), *words],
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            ).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "-uno"))
        ]
    except (OSError, subprocess.SubprocessError):
        return ""
    return said[0][:12] + ("+" if said[1] else "")


def device() -> str:
    """Number and kind of the devices that the process sees."""
    first = jax.devices()[0]
    return f"{jax.device_count()} x {first.platform} ({first.device_kind})"


def processor() -> str:
    """The processor's name and how many cores this process may use."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return f"{name}, {cores} cores"


def command() -> str:
    """The command line of this process."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
