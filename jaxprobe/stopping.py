"""Requests to stop: a signal becomes an exception where work can be interrupted, never inside a commit.

`launch/` installs the handlers; libraries that import jaxprobe keep their own, and then `held` does nothing.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
_SAME_SECONDS = (
    1.0  # launchers may pass on a signal twice; a second one later means to stop at once
)
_state = {"asked": 0, "holds": 0}  # the signal's number, and how deep held blocks are nested
_asked_at = [0.0]


class Stopped(KeyboardInterrupt):
    """The program was asked to stop.

    Attributes:
        number: The signal's number; a shell expects the exit status 128 + number.
    """

    def __init__(self, number: int):
        """Remembers the signal."""
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def on_signals() -> Iterator[None]:
    """Inside the block a signal raises `Stopped`, as soon as no `held` block is running.

    Ignored signals stay ignored (`nohup`). A second signal, at least a second later, ends the program at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler not in (signal.SIG_IGN, None):
            signal.signal(number, _on_signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
        _state.update(asked=0, holds=0)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Delays a stop until the block has ended, so that what it writes is written whole.

    Raises:
        Stopped: The block ended without an error, and a stop was requested during or before it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread handles signals
        return
    _state["holds"] += 1
    try:
        yield
    finally:
        _state["holds"] -= 1
    check()


def check() -> None:
    """Raises `Stopped` if a stop was requested, unless a `held` block is running.

    A stop whose exception Python dropped (inside a finaliser) is raised here again.
    """
    if _state["asked"] and not _state["holds"]:
        raise Stopped(_state["asked"])


def asked() -> bool:
    """Whether a stop was requested."""
    return bool(_state["asked"])


def _on_signal(number: int, frame: object) -> None:
    now = time.monotonic()
    if _state["asked"]:
        if now - _asked_at[0] >= _SAME_SECONDS:
            os._exit(128 + number)  # as safe as kill -9, which all files survive
        return
    _state["asked"], _asked_at[0] = number, now
    if not _state["holds"]:
        raise Stopped(number)
