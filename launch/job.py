"""What the launch scripts share: their flags, and errors a person can read."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jax
import overrides
from absl import app, flags, logging
from ml_collections import config_flags

from jaxprobe.assets import AssetError, cache_dir
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


def parse_flags(argv: list[str]) -> list[str]:
    """Absl's own parser, after a look at `--config` and its overrides; exits on a user's error."""
    try:
        overrides.check(argv)
    except ValueError as error:
        sys.exit(f"error: {error}")
    return app.parse_flags_with_usage(argv)


def config_and_workdir(argv: list[str]) -> tuple[run.RunConfig, Path]:
    """The job and its folder, from the flags; exits with a message where they make no sense."""
    if len(argv) > 1:
        sys.exit(f"error: unknown argument {argv[1]!r}; {overrides.FLAGS}")
    if _CONFIG.value is None:
        sys.exit("error: --config=FILE is needed, e.g. --config=configs/quickstart.py")
    logging.set_verbosity(logging.INFO)
    # Compiled programs are kept: a second run, or a resumed one, starts at once.
    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "xla"))
    config = finish(lambda: run.RunConfig.from_mapping(_CONFIG.value.to_dict()))
    stem = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    return config, Path(_WORKDIR.value or Path("runs") / stem)


def finish(work: Callable[[], Result]) -> Result:
    """Does the work; an error that says what to do ends the program without a traceback."""
    try:
        return work()
    except (AssetError, StoreError, TableError, ValueError, TypeError, FileNotFoundError) as error:
        logging.debug("where it came from", exc_info=True)
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")
