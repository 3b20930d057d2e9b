"""What a signal does before and after the work: one sentence, and the status that a shell expects.

It imports nothing slow: a launch script imports it first, so that signals are handled during the seconds that
importing JAX takes.
"""

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


def leave(number: int, said: str) -> NoReturn:
    """Says why and exits at once, without waiting for threads inside compiled programs."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass  # its reader has gone
    try:
        os.write(2, f"stopped by {signal.Signals(number).name}; {said}\n".encode())
    except OSError:
        pass
    os._exit(128 + number)


def _leave_until_told() -> None:
    """From now on a signal ends the program at once, as there is nothing to commit before the work.

    Only for the launch scripts: a test that imports their modules keeps its handlers. Ignored signals stay
    ignored, as `nohup` and background jobs need.
    """
    script = getattr(sys.modules["__main__"], "__file__", None)
    if script is None or Path(script).resolve().parent != Path(__file__).resolve().parent:
        return
    for name in _NAMES:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda got, frame: leave(got, "no work had begun"))


_leave_until_told()
