"""What the launch scripts share: their flags, and errors a person can read."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from absl import app, flags, logging
from ml_collections import config_flags

from jaxprobe.assets import AssetError
from jaxprobe.stages import run
from jaxprobe.store import StoreError
from jaxprobe.table import TableError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The job, e.g. configs/quickstart.py; --config.KEY=VALUE overrides a key."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where everything is written; default: runs/ and the config's name."
)

Result = TypeVar("Result")


def config_and_workdir(argv: list[str]) -> tuple[run.RunConfig, Path]:
    """The job and its folder, from the flags.

    Raises:
        app.UsageError: A stray argument, no config, or a config that makes no sense.
    """
    if len(argv) > 1:
        raise app.UsageError(
            f"unknown argument {argv[1]!r}; flags are --config=FILE, --workdir=DIR and"
            " --config.KEY=VALUE"
        )
    if _CONFIG.value is None:
        raise app.UsageError("--config=FILE is needed, e.g. --config=configs/quickstart.py")
    logging.set_verbosity(logging.INFO)
    try:
        config = run.RunConfig.from_mapping(_CONFIG.value.to_dict())
    except (ValueError, TypeError) as error:
        raise app.UsageError(str(error)) from error
    stem = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    return config, Path(_WORKDIR.value or Path("runs") / stem)


def finish(work: Callable[[], Result]) -> Result:
    """Does the work; an error that says what to do ends the program without a traceback."""
    try:
        return work()
    except (AssetError, StoreError, TableError, ValueError, FileNotFoundError) as error:
        logging.debug("where it came from", exc_info=True)
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")
