"""Looks at `--config` and its overrides before absl does, whose answer to a misspelt key is a traceback."""

import runpy
import sys
from collections.abc import Mapping
from pathlib import Path

from absl import app

from jaxprobe import checks

FLAGS = "flags are --config=FILE, --workdir=DIR, --shard=I/N and --config.KEY=VALUE"


def parse_flags(argv: list[str]) -> list[str]:
    """Absl's own parser, after a look at the config's flags; exits with a message on an error."""
    try:
        check(argv)
    except ValueError as error:
        sys.exit(f"error: {error}")
    return app.parse_flags_with_usage(argv)


def check(argv: list[str]) -> None:
    """Raises ValueError where there is no such config file, or an override names none of its keys."""
    given = [part.lstrip("-") for part in argv[1:] if part.startswith("-")]
    files = [part.removeprefix("config=") for part in given if part.startswith("config=")]
    files += [argv[at + 1] for at in range(len(argv) - 1) if argv[at] in ("--config", "-config")]
    if not files:
        return  # absl or the script says what is missing
    path = Path(files[-1].split(":")[0])
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else Path("configs")
        known = ", ".join(str(file) for file in sorted(folder.glob("*.py")))
        raise ValueError(f"there is no config file {path}; known: {known}")
    config = runpy.run_path(str(path))["get_config"]().to_dict()
    for part in given:
        if part.startswith("config."):
            _check_key(config, part.split("=")[0].split(".")[1:], path)


def _check_key(config: Mapping, keys: list[str], path: Path) -> None:
    name = "config"
    for key in keys:
        if not isinstance(config, Mapping):
            raise ValueError(f"{name} of {path} is a value and has no key {key!r}")
        try:
            checks.check_choice(f"key of {name}", key, config)
        except ValueError as error:
            raise ValueError(f"{error}; a key that {path} does not name is set there") from None
        name, config = f"{name}.{key}", config[key]
