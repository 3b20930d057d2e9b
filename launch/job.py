"""What the launch scripts share: their flags, and errors a person can read."""

import logging as python_logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

# LAPACK inside compiled programs: the matrices are small, threads only wait for each other there
# (10 to 80 times slower on a busy machine). Set before JAX loads it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
from absl import flags, logging
from ml_collections import config_flags
from overrides import FLAGS
from shard_flag import with_shard

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


def config_and_workdir(argv: list[str]) -> tuple[run.RunConfig, Path]:
    """The job and its folder, from the flags; exits with a message where they make no sense."""
    if len(argv) > 1:
        sys.exit(f"error: unknown argument {argv[1]!r}; {FLAGS}")
    if _CONFIG.value is None:
        sys.exit("error: --config=FILE is needed, e.g. --config=configs/quickstart.py")
    logging.set_verbosity(logging.INFO)
    python_logging.getLogger("jax").setLevel(python_logging.WARNING)
    # Compiled programs are kept: a second run, or a resumed one, starts at once.
    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "xla"))
    # Those of the forward pass take about a second each, which JAX would not find worth keeping.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    config = finish(lambda: with_shard(run.RunConfig.from_mapping(_CONFIG.value.to_dict())))
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
