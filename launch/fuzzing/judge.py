"""Judges the outcome of a mutated file: it is read, or refused in one sentence that names it; else a finding."""

import contextlib
import functools
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jaxprobe.assets import AssetError
from jaxprobe.results import TableError
from jaxprobe.store import StoreError

MIB = 1 << 20
SENTENCES = (ValueError, AssetError, StoreError, TableError, FileNotFoundError)
_WRITES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate")
_RUNS = ("subprocess.Popen", "os.system", "os.exec", "os.fork", "socket.connect")
_CODE = ("pickle.find_class",)


class Limits(NamedTuple):
    """Limits of one read: CPU seconds, and MiB above what the process held before."""

    seconds: float = 2.0
    memory_mib: int = 300


class Watch:
    """Notes what a read does besides reading: files written, processes, connections, code from data."""

    def __init__(self):
        """See `of_process`."""
        self.seen, self.on = [], False

    @classmethod
    @functools.cache
    def of_process(cls) -> "Watch":
        """The one watch of this process: an audit hook cannot be removed."""
        watch = cls()
        sys.addaudithook(watch._audit)
        return watch

    def _audit(self, event: str, arguments: tuple) -> None:
        if not self.on:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.seen.append(f"opened {path!r} for writing")
        elif event in _WRITES or event in _RUNS:
            self.seen.append(f"{event} {arguments!r}"[:200])
        elif event in _CODE or (event == "exec" and not _installed(arguments[0])):
            self.seen.append(f"{event} {str(arguments)[:100]}")


def _installed(code) -> bool:
    """Whether a code object came from a source file, by a late import, and not from a file's content."""
    return os.path.isfile(code.co_filename) or code.co_filename.startswith("<frozen")


def judge(read, folder: Path, name: str, watch: Watch, limits: Limits) -> str | None:
    """Reads once.

    Args:
        read: Reads a folder.
        folder: The folder.
        name: The mutated file; an error must name it or the folder.
        watch: The watch of this process.
        limits: The limits of this read.

    Returns:
        What is wrong with the outcome; None if nothing.
    """
    watch.seen.clear()
    _forget_peak()
    before, start = _status("VmRSS"), time.thread_time()
    wrong = None
    watch.on = True
    try:
        read(folder)
    except MemoryError as error:
        wrong = f"MemoryError {error}"
    except SENTENCES as error:
        wrong = _nameless(error, folder, name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        where = _where(error)
        wrong = f"{type(error).__name__}: {str(error)[:200]} ({where})"
    finally:
        watch.on = False
    seconds = time.thread_time() - start
    grown = (_status("VmHWM") - before) // 1024
    if wrong is None and seconds > limits.seconds:
        wrong = f"took {seconds:.1f} s of CPU time"
    if wrong is None and grown > limits.memory_mib:
        wrong = f"took {grown} MiB"
    if wrong is None and watch.seen:
        wrong = watch.seen[0]
    return wrong


def _nameless(error: Exception, folder: Path, name: str) -> str | None:
    said = str(error)
    if name in said or folder.name in said:
        return None
    return f"an error that does not name the file: {type(error).__name__}: {said[:200]} ({_where(error)})"


def _where(error: BaseException) -> str:
    """The innermost line of jaxprobe in an error's traceback."""
    found, trace = "?", error.__traceback__
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        if "jaxprobe" in path:
            found = f"{Path(path).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _status(key: str) -> int:
    """KiB of this process, from /proc/self/status."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(key))
    return int(line.split()[1])


def _forget_peak() -> None:
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


@contextlib.contextmanager
def bounded_memory(extra_mib: int) -> Iterator[None]:
    """Limits this process to `extra_mib` more address space, so that a bug cannot exhaust the machine."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + extra_mib * MIB
    old = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)
