"""The boundary of every reader: files made by others are read within limits, and fail in one sentence.

A reader opens files with `open_regular` (no devices, pipes or folders), compares the sizes that a file
claims with its length before it allocates memory, unpacks no more than `unpacked_limit` allows, and parses
inside `reader`, which turns any error of the parser into one `FileError`.
"""

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

MIB = 1 << 20
JSON_BYTES = 8 * MIB  # of a config; an empty object takes 70 bytes of memory for 3 of text
UNPACK_VARIABLE = "JAXPROBE_UNPACK_LIMIT_MIB"
_UNPACKED_MIB, _UNPACKED_TIMES = 128, 8
# Mistakes in a parser's own code, whatever the file holds: these stay tracebacks.
_PROGRAMMING = (NameError, ImportError, SyntaxError, AssertionError)


class FileError(ValueError):
    """A file that cannot be read as what it should be; says which, what is wrong and what to do."""


@contextlib.contextmanager
def reader(path: str | os.PathLike, what: str, remedy: str) -> Iterator[None]:
    """Turns any error of a parser into one sentence that names the file.

    Args:
        path: The file, as the user knows it.
        what: What it should be, with an article, such as `a GGUF file`.
        remedy: What to do, as an imperative, such as `fetch it again`.

    Raises:
        FileError: The block raised anything but a programming error or a request to stop. Errors
            that already name the file keep their message; the original error is the cause.
    """
    try:
        yield
    except BaseException as error:
        panic = type(error).__module__ == "pyo3_runtime"  # Rust's panic, which is not an Exception
        if isinstance(error, _PROGRAMMING) or not (panic or isinstance(error, Exception)):
            raise
        name = os.fspath(path)
        said = " ".join(str(error).split())
        if isinstance(error, FileError) and Path(name).name in said:
            raise
        if isinstance(error, ValueError | OSError) and Path(name).name in said:
            raise FileError(str(error)) from error
        reason = said[:600] if isinstance(error, ValueError) and said else _described(error)
        raise FileError(f"{name} cannot be read as {what} ({reason}); {remedy}") from error


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """Opens a regular file for reading, as `open(path, "rb")` does.

    Raises:
        FileError: It is something else: a folder, a device, a pipe, a socket.
        OSError: It cannot be opened.
    """
    # Without O_NONBLOCK, opening a pipe would wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise FileError(
                f"{os.fspath(path)} must be a regular file, got {_kind(mode)}; name a file"
            )
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def check_regular_below(folder: str | os.PathLike, depth: int) -> None:
    """Refuses a folder that holds devices, pipes or sockets, before a library opens its files.

    Links count as their targets. Entries that cannot be inspected are left to the library.

    Args:
        folder: The folder; it need not exist.
        depth: How many levels of folders the library opens below it.

    Raises:
        FileError: An entry is neither a regular file nor a folder; its path is named.
    """
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except OSError:
        return
    for entry in entries:
        # The folder's own table says what an entry is, without opening the entry.
        if entry.is_file() or (entry.is_dir() and depth == 0):
            continue
        if entry.is_dir():
            check_regular_below(entry.path, depth - 1)
            continue
        with contextlib.suppress(OSError):  # a temporary file that has gone, a broken link
            kind = _kind(os.stat(entry.path).st_mode)
            raise FileError(f"{entry.path} must be a regular file, got {kind}")


def read_bytes(path: str | os.PathLike, limit: int) -> bytes:
    """A whole regular file of at most `limit` bytes.

    Raises:
        FileError: It is longer, or not a regular file.
        OSError: It cannot be read.
    """
    with open_regular(path) as file:
        check_size(path, os.fstat(file.fileno()).st_size, limit)
        content = file.read(limit + 1)  # it may have grown since
        check_size(path, len(content), limit)
        return content


def check_size(path: str | os.PathLike, size: int, limit: int) -> None:
    """Raises FileError where a file's `size` in bytes is above the limit for its kind."""
    if size > limit:
        raise FileError(
            f"{os.fspath(path)} must have at most {limit:,} bytes, got {size:,}; is it another file?"
        )


def read_json(path: str | os.PathLike, limit: int = JSON_BYTES, *, unique: bool = False) -> Any:
    """The content of a JSON file.

    Args:
        path: The file.
        limit: Most bytes that it may have.
        unique: Whether an object that has a key twice is refused; otherwise the last one counts.

    Raises:
        FileError: Not JSON, too long, too deep, or not a regular file.
        FileNotFoundError: There is no file.
    """
    hook = _unique_keys if unique else None
    with missing_stays_missing(path), reader(path, "a JSON file", "fetch or save it again"):
        return json.loads(read_bytes(path, limit), object_pairs_hook=hook)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"it has `{twice[:80]}` twice")
    return found


@contextlib.contextmanager
def missing_stays_missing(path: str | os.PathLike) -> Iterator[None]:
    """Passes on a FileNotFoundError of the block unchanged, for callers that handle it."""
    try:
        yield
    except FileError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise error.__cause__ from None
        raise


def unpacked_limit(packed_bytes: int) -> int:
    """Most bytes that `packed_bytes` of compressed content may unpack to.

    128 MiB, or eight times the packed size where that is more; weights and text stay far below.
    `JAXPROBE_UNPACK_LIMIT_MIB` (the flag `--unpack_limit_mib` of the launch scripts) replaces the
    128 MiB.
    """
    given = os.environ.get(UNPACK_VARIABLE, str(_UNPACKED_MIB))
    if not given.isdecimal():
        raise ValueError(f"{UNPACK_VARIABLE} must be a whole number of MiB, got {given!r}")
    return max(int(given) * MIB, _UNPACKED_TIMES * packed_bytes)


def check_unpacked(path: str | os.PathLike, size: int, packed_bytes: int) -> None:
    """Raises FileError where compressed content unpacks to more than `unpacked_limit`."""
    limit = unpacked_limit(packed_bytes)
    if size > limit:
        raise FileError(
            f"{os.fspath(path)} unpacks to more than {limit // MIB} MiB from {packed_bytes:,} bytes;"
            f" if that is intended, set {UNPACK_VARIABLE} (or --unpack_limit_mib) to the MiB it may take"
        )


def _described(error: BaseException) -> str:
    """An error's message where it helps a reader of the sentence, else its type."""
    said = " ".join(str(error).split())[:200]
    if isinstance(error, OSError):
        return error.strerror or said or type(error).__name__
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")
