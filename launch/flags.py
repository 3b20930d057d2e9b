"""The flags that the launch scripts share, and the job that they describe."""

import dataclasses
import io
import logging as python_logging
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import signals  # noqa: F401  first: from here on signals are handled

# For LAPACK in compiled programs: the matrices are small, and threads would only wait for each other
# (10 to 80 times slower on a busy machine). Set before JAX loads it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
from absl import app, flags, logging
from config_file import ConfigFileError, load
from failures import finish
from ml_collections import config_dict, config_flags

from jaxprobe import boundary
from jaxprobe.assets import cache_dir
from jaxprobe.experiments import schemas
from jaxprobe.experiments.config import check_overrides
from jaxprobe.outgoing import printable
from jaxprobe.runs import shards
from jaxprobe.stages import run

FLAGS = (
    "flags are --config=FILE, --workdir=DIR, --shard=I/N, --unpack_limit_mib=N and"
    " --config.KEY=VALUE"
)
BY_PROCESS = "process"
# Variables for (this process's number, number of processes), as set by launchers of many processes.
_LAUNCHERS = (
    ("JAX_PROCESS_ID", "JAX_NUM_PROCESSES"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
)
_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "The job, e.g. configs/quickstart.py, or FILE:VARIANT; --config.KEY=VALUE overrides any key,"
    " e.g. --config.fit.baselines=\"('logistic', 'pca')\".",
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where everything is written; default: runs/ and the config's name."
)
_UNPACK = flags.DEFINE_integer(
    "unpack_limit_mib",
    None,
    "Most MiB that a compressed file may unpack to where that is over eight times its size;"
    f" default 128. Sets {boundary.UNPACK_VARIABLE}.",
    lower_bound=1,
)
_SHARD = flags.DEFINE_string(
    "shard",
    None,
    "i/n: do part i of n (from 0) of extract, encode and fit, every n-th dataset, e.g. --shard=0/4"
    " to --shard=3/4 on four machines that share a work directory; then run.py or report.py without"
    " --shard writes the report of all results. --shard=process takes both numbers from the launcher"
    " (JAX, Slurm, Open MPI, MPICH), so that one command serves all. An SAE that the config trains"
    " comes first: extract.py and train_sae.py without --shard.",
)


class _FilledConfig(flags.ArgumentParser):
    """Reads the config file instead of ml_collections' own reader, which has no schema."""

    def __init__(self, overridden: list[str]):
        self._overridden = overridden

    def parse(self, argument: str) -> config_dict.ConfigDict:
        return load(argument, self._overridden)


def parse_flags(argv: list[str]) -> list[str]:
    """Absl's own parser, with every key in the config; exits with a message on an error."""
    fill_config(flags.FLAGS, argv)
    try:
        return app.parse_flags_with_usage(argv)
    except ConfigFileError as error:
        sys.exit(f"error: {printable(str(error))}")


def fill_config(values: flags.FlagValues, argv: list[str]) -> None:
    """Makes the flag `config` read its file by `config_file.load`, given the overridden keys."""
    given = values.read_flags_from_files(argv[1:], force_gnu=False)
    found = [re.match(r"--?(?:no)?config\.([^=]+)", part) for part in given]
    values["config"].parser = _FilledConfig([match[1] for match in found if match])


def config_and_workdir(argv: list[str]) -> tuple[run.RunConfig, Path]:
    """The job and its folder, from the flags; exits with a message where they are invalid."""
    if len(argv) > 1:
        sys.exit(f"error: unknown argument {argv[1]!r}; {FLAGS}")
    if _CONFIG.value is None:
        sys.exit("error: --config=FILE is needed, e.g. --config=configs/quickstart.py")
    return finish(_config_and_workdir)


def _config_and_workdir() -> tuple[run.RunConfig, Path]:
    _prepare_process()
    content = job_content()
    overridden = config_flags.get_override_values(flags.FLAGS["config"])
    check_overrides(schemas.read(content), overridden)
    config = with_shard(run.RunConfig.from_mapping(content))
    asked = config_flags.get_config_filename(flags.FLAGS["config"])
    return config, Path(_WORKDIR.value) if _WORKDIR.value else default_workdir(asked)


def default_workdir(config: str) -> Path:
    """The folder for `FILE.py` or `FILE.py:VARIANT` in `runs`; each variant is a job of its own."""
    file, _, variant = config.partition(":")
    return Path("runs") / (Path(file).stem + (f"_{variant}" if variant else ""))


def job_content() -> dict:
    """The config file's content with the command line's overrides."""
    return _without_wrapped_none(_CONFIG.value.to_dict())


def _without_wrapped_none(content: dict) -> dict:
    """Unwraps `None` where absl's parser of tuples turned it into a tuple that holds it."""
    return {
        key: _without_wrapped_none(value)
        if isinstance(value, dict)
        else None
        if value == (None,)
        else value
        for key, value in content.items()
    }


def _prepare_process() -> None:
    """Sets what applies to the whole process: limits, logging, the terminal, JAX's cache."""
    set_limits()
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().addFilter(_make_printable)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that lack a character
    python_logging.getLogger("jax").setLevel(python_logging.WARNING)
    # Compiled programs are kept: a second run, or a resumed one, starts at once.
    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "xla"))
    # The forward pass's programs take about a second each, too little for JAX to keep by default.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _make_printable(record: python_logging.LogRecord) -> bool:
    """Passes a log line on, escaped so that names in it cannot move the cursor."""
    record.msg, record.args = printable(record.getMessage()), ()
    return True


def set_limits() -> None:
    """Passes --unpack_limit_mib to the readers, and to processes that this one starts."""
    if _UNPACK.value is not None:
        os.environ[boundary.UNPACK_VARIABLE] = str(_UNPACK.value)


def with_shard(config: run.RunConfig) -> run.RunConfig:
    """The job, or the part of it that --shard names; ValueError for an invalid shard."""
    if _SHARD.value is None:
        return config
    text = of_process(os.environ) if _SHARD.value == BY_PROCESS else _SHARD.value
    return dataclasses.replace(config, shard=shards.Shard.parse(text))


def of_process(environment: Mapping[str, str]) -> str:
    """`i/n` of the process that a launcher started.

    Raises:
        ValueError: No known launcher has set its variables.
    """
    for index, count in _LAUNCHERS:
        if index in environment and count in environment:
            return f"{environment[index]}/{environment[count]}"
    known = ", ".join(f"{index} and {count}" for index, count in _LAUNCHERS)
    raise ValueError(
        f"--shard={BY_PROCESS} needs the numbers that a launcher sets ({known}), and none are set;"
        " start it with srun or mpirun, or write --shard=i/n"
    )
