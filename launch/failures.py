"""Errors as one sentence for the terminal: what happened, to which file, and what to do."""

import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

import signals
from absl import logging

from jaxprobe import stopping
from jaxprobe.assets import AssetError
from jaxprobe.outgoing import printable
from jaxprobe.results import TableError
from jaxprobe.store import StoreError

# Errors caused by files, disks, networks and users. TypeError, KeyError and the like are bugs of the
# program: they stay tracebacks.
FAILURES = (AssetError, StoreError, TableError, ValueError, OSError, MemoryError)
Result = TypeVar("Result")
_GO_ON = "then run the same command again to go on"
_REMEDIES = {
    (errno.ENOSPC, errno.EDQUOT): f"free space, {_GO_ON}",
    (errno.EFBIG,): f"allow larger files there (`ulimit -f`), {_GO_ON}",
    (errno.EACCES, errno.EPERM, errno.EROFS): (
        "allow it there, or name another folder in --workdir (JAXPROBE_CACHE for the cache)"
    ),
    (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY): (
        "something else is in its place: move it away, or name another --workdir"
    ),
    (errno.ENAMETOOLONG,): "use a shorter name or --workdir",
    (errno.ENOENT,): "has it been moved? name an existing one",
    (errno.ELOOP,): "its symbolic links form a loop: correct them",
    (errno.EMFILE, errno.ENFILE): f"allow more open files (`ulimit -n`), {_GO_ON}",
    (errno.ENOMEM,): f"free memory, {_GO_ON}",
}


def finish(work: Callable[[], Result]) -> Result:
    """Does the work; an error that says what to do ends the program without a traceback.

    Errors that a user, a disk or another program can cause (`FAILURES`) become a sentence; anything
    else is a bug of jaxprobe and stays a traceback. A signal ends the program with status 128 plus its
    number, after finished work is committed.
    """
    try:
        with stopping.on_signals():
            return work()
    except stopping.Stopped as stop:
        signals.leave(stop.number, "what was done is kept, and the same command goes on from here")
    except BrokenPipeError:
        os._exit(
            141
        )  # the reader of our output has gone: the status with which SIGPIPE ends programs
    except FAILURES as error:
        _explain(error)


def _explain(error: BaseException) -> NoReturn:
    logging.debug("where it came from", exc_info=True)
    sys.exit(f"error: {sentence(error)}")


def sentence(error: BaseException) -> str:
    """One line, in which names chosen by others cannot move the cursor or reverse the text."""
    if isinstance(error, OSError) and error.errno is not None:
        said = _of_system(error)
    elif isinstance(error, MemoryError):
        said = f"memory ran out ({error or 'no details'}); free some, {_GO_ON}"
    else:
        said = str(error) or type(error).__name__
    return printable(" ".join(said.splitlines()))


def _of_system(error: OSError) -> str:
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if _is_path(name)]
    reason = (error.strerror or os.strerror(error.errno or 0)).strip()
    remedy = next((text for codes, text in _REMEDIES.items() if error.errno in codes), None)
    where = f"{' -> '.join(names)}: " if names else ""
    return f"{where}{reason}; {remedy or f'what was committed is safe: correct that, {_GO_ON}'}"


def _is_path(name: object) -> bool:
    return isinstance(name, str | bytes)
