"""What the launch scripts share: their flags, and errors a person can read."""

import io
import logging as python_logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import signals  # first: from here on a signal is met

# LAPACK inside compiled programs: the matrices are small, threads only wait for each other there
# (10 to 80 times slower on a busy machine). Set before JAX loads it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
from absl import flags, logging
from failures import FAILURES, sentence
from ml_collections import config_dict, config_flags
from overrides import FLAGS
from shard_flag import with_shard

from jaxprobe import boundary, stopping
from jaxprobe.assets import cache_dir
from jaxprobe.outgoing import printable
from jaxprobe.stages import run

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The job, e.g. configs/quickstart.py; --config.KEY=VALUE overrides a key."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where everything is written; default: runs/ and the config's name."
)
_UNPACK = flags.DEFINE_integer(
    "unpack_limit_mib",
    None,
    "Most MiB that a compressed file may unpack to where that is over eight times its size; default 128."
    f" Sets {boundary.UNPACK_VARIABLE}.",
    lower_bound=1,
)

Result = TypeVar("Result")


def config_and_workdir(argv: list[str]) -> tuple[run.RunConfig, Path]:
    """The job and its folder, from the flags; exits with a message where they make no sense."""
    if len(argv) > 1:
        sys.exit(f"error: unknown argument {argv[1]!r}; {FLAGS}")
    if _CONFIG.value is None:
        sys.exit("error: --config=FILE is needed, e.g. --config=configs/quickstart.py")
    return finish(_config_and_workdir)


def _config_and_workdir() -> tuple[run.RunConfig, Path]:
    set_limits()
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().addFilter(_make_printable)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that does not know a letter
    python_logging.getLogger("jax").setLevel(python_logging.WARNING)
    # Compiled programs are kept: a second run, or a resumed one, starts at once.
    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "xla"))
    # Those of the forward pass take about a second each, which JAX would not find worth keeping.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    try:
        given = _CONFIG.value.to_dict()
    except config_dict.RequiredValueError as error:
        raise ValueError(
            f"the config leaves a key open ({error}); set it by --config.KEY"
        ) from None
    config = with_shard(run.RunConfig.from_mapping(given))
    stem = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    return config, Path(_WORKDIR.value or Path("runs") / stem)


def _make_printable(record: python_logging.LogRecord) -> bool:
    """Lets a log line through, with names in it that cannot move the cursor."""
    record.msg, record.args = printable(record.getMessage()), ()
    return True


def set_limits() -> None:
    """Hands --unpack_limit_mib to the readers, and to processes that this one starts."""
    if _UNPACK.value is not None:
        os.environ[boundary.UNPACK_VARIABLE] = str(_UNPACK.value)


def finish(work: Callable[[], Result]) -> Result:
    """Does the work; an error that says what to do ends the program without a traceback.

    What a user, a disk or another program can bring about is a sentence (`failures.FAILURES`); anything
    else is a mistake of jaxprobe and stays a traceback. A signal ends the program with 128 and its
    number, after what was done is committed.
    """
    try:
        with stopping.on_signals():
            return work()
    except stopping.Stopped as stop:
        signals.leave(stop.number, "what was done is kept, and the same command goes on from here")
    except BrokenPipeError:
        os._exit(141)  # whoever read our output has gone: as SIGPIPE ends other programs
    except FAILURES as error:
        _explain(error)


def _explain(error: BaseException) -> NoReturn:
    logging.debug("where it came from", exc_info=True)
    sys.exit(f"error: {sentence(error)}")
