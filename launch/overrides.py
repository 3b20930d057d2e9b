"""Looks at `--config` and its overrides before absl does, whose answer to a mistake there is a traceback."""

import runpy
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from absl import app
from ml_collections import ConfigDict, config_dict

from jaxprobe import boundary, checks
from jaxprobe.outgoing import printable

FLAGS = "flags are --config=FILE, --workdir=DIR, --shard=I/N, --unpack_limit_mib=N and --config.KEY=VALUE"
_WANTED = "a config file is Python with a function get_config that returns a ConfigDict, as in configs/tiny.py"


def parse_flags(argv: list[str]) -> list[str]:
    """Absl's own parser, after a look at the config's flags; exits with a message on an error."""
    try:
        check(argv)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {printable(str(error))}")
    return app.parse_flags_with_usage(argv)


def check(argv: list[str]) -> None:
    """Raises ValueError for a config file that gives no config, or an override of none of its keys."""
    given = [part.lstrip("-") for part in argv[1:] if part.startswith("-")]
    files = [part.removeprefix("config=") for part in given if part.startswith("config=")]
    files += [argv[at + 1] for at in range(len(argv) - 1) if argv[at] in ("--config", "-config")]
    if not files:
        return  # absl or the script says what is missing
    name, colon, variant = files[-1].partition(":")
    path = Path(name)
    if not path.exists():
        folder = path.parent if path.parent.is_dir() else Path("configs")
        known = ", ".join(str(file) for file in sorted(folder.glob("*.py")))
        raise ValueError(f"there is no config file {path}; known: {known}")
    config = _config(path, [variant] if colon else [])
    for part in given:
        if part.startswith("config."):
            _check_key(config, part.split("=")[0].split(".")[1:], path)


def _config(path: Path, arguments: list[str]) -> ConfigDict:
    """What the file's `get_config` returns."""
    with boundary.open_regular(path):
        pass
    try:
        get_config = runpy.run_path(str(path)).get("get_config")
        if not callable(get_config):
            raise ValueError(f"{path} has no function get_config; {_WANTED}")
        config = get_config(*arguments)
    except ValueError as error:
        if str(error).startswith(f"{path} has no"):
            raise
        _refuse(path, error)
    except (Exception, SystemExit) as error:
        _refuse(path, error)
    if not isinstance(config, ConfigDict):
        raise ValueError(
            f"get_config of {path} returned {type(config).__name__}, no ConfigDict; {_WANTED}"
        )
    return config


def _refuse(path: Path, error: BaseException) -> NoReturn:
    """Names the line of the file in which it went wrong."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    said = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())[:200]
    where = f"{path}, line {line}" if line else str(path)
    raise ValueError(
        f"{where}: {type(error).__name__}{f': {said}' if said else ''}; mend it: {_WANTED}"
    ) from error


def _check_key(config: Mapping | ConfigDict | None, keys: list[str], path: Path) -> None:
    name = "config"
    for key in keys:
        if not isinstance(config, Mapping | ConfigDict):
            raise ValueError(f"{name} of {path} is a value and has no key {key!r}")
        try:
            checks.check_choice(f"key of {name}", key, config)
        except ValueError as error:
            raise ValueError(f"{error}; a key that {path} does not name is set there") from None
        try:
            name, config = f"{name}.{key}", config[key]
        except config_dict.RequiredValueError:  # a placeholder: this flag fills it
            config = None
