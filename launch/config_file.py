"""Reads a config file once, and adds the keys that it leaves out, so that each can be overridden."""

import inspect
import runpy
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ml_collections import ConfigDict, config_dict

from jaxprobe import boundary, checks, settings
from jaxprobe.experiments import schemas
from jaxprobe.experiments.config import imply_training

_WANTED = (
    "a config file is Python with a function get_config that returns a ConfigDict, as in"
    " configs/tiny.py"
)


class ConfigFileError(Exception):
    """A sentence about a config file; not a ValueError, which absl would wrap into its own message."""


def load(text: str, overridden: Sequence[str] = ()) -> ConfigDict:
    """The content of a config file, with the keys that it leaves out added, locked.

    Args:
        text: `FILE.py`, or `FILE.py:VARIANT`, which calls its `get_config` with the variant.
        overridden: Dotted keys that the command line overrides, such as `fit.baselines`.

    Raises:
        ConfigFileError: The file gives no config, a variant or key is unknown, or a value is invalid;
            the message names the alternatives.
    """
    name, colon, variant = text.partition(":")
    try:
        config = executed(Path(name), [variant] if colon else [])
        if isinstance(config, config_dict.FrozenConfigDict):
            config = config.as_configdict()
        if config.is_locked:
            config.unlock()
        schema = schemas.schema_of(config)
        for path in overridden:
            settings.check_path(schema, path)
        imply_training(config)
        _fill(config, schema, schema, "config")
    except (ValueError, OSError) as error:
        raise ConfigFileError(str(error)) from error
    config.lock()
    return config


def executed(path: Path, arguments: list[str]) -> ConfigDict:
    """What the file's `get_config` returns."""
    if not path.exists():
        folder = path.parent if path.parent.is_dir() else Path("configs")
        known = ", ".join(str(file) for file in sorted(folder.glob("*.py")))
        raise ValueError(f"there is no config file {path}; known: {known}")
    with boundary.open_regular(path):
        pass
    try:
        module = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:
        _refuse(path, error)
    get_config = module.get("get_config")
    if not callable(get_config):
        raise ValueError(f"{path} has no function get_config; {_WANTED}")
    _check_variant(path, module.get("VARIANTS"), get_config, arguments)
    try:
        config = get_config(*arguments)
    except (Exception, SystemExit) as error:
        _refuse(path, error)
    if not isinstance(config, ConfigDict):
        raise ValueError(
            f"get_config of {path} must return a ConfigDict, got {type(config).__name__}; {_WANTED}"
        )
    return config


def _check_variant(path: Path, variants: Any, get_config: Any, arguments: list[str]) -> None:
    """Raises ValueError for a variant that is not in the file's `VARIANTS`, or where it takes none."""
    for variant in arguments:
        if isinstance(variants, dict | list | tuple | set):
            checks.check_choice(f"variant of {path}", variant, variants)
        try:
            inspect.signature(get_config).bind(variant)
        except TypeError:
            raise ValueError(
                f"{path} takes no variant, got {variant!r}; leave out :{variant}"
            ) from None


def _refuse(path: Path, error: BaseException) -> NoReturn:
    """Raises an error that names the line of the file where it went wrong."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    said = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())[:200]
    where = f"{path}, line {line}" if line else str(path)
    raise ValueError(
        f"{where}: {type(error).__name__}{f': {said}' if said else ''}; correct it: {_WANTED}"
    ) from error


def _fill(config: ConfigDict, kind: type, root: type, name: str) -> None:
    """Adds what a section leaves out, in place, and converts each value to its key's type.

    A ConfigDict remembers the type of each value, and overrides must have that type.
    """
    for key in config:
        settings.check_key(root, kind, name, key)
    defaults = settings.defaults(kind)
    with config.unlocked():
        for key, hint in settings.keys(kind).items():
            if settings.is_section(hint):
                _fill_section(config, key, hint, root, f"{name}.{key}")
            elif key not in config:
                config[key] = _typed(defaults[key], hint)
            elif (reference := _reference(config, key)) is None:
                value = settings.checked(f"{name}.{key}", config[key], hint)
                del config[key]  # otherwise it would convert the new value to the old one's type
                config[key] = _typed(value, hint)
            elif _is_open(reference):  # ml_collections cannot override a key without a value
                del config[key]
                config[key] = config_dict.placeholder(settings.plain(hint))


def _fill_section(config: ConfigDict, key: str, kind: type, root: type, name: str) -> None:
    if config.get(key) is None:
        config[key] = ConfigDict()
    if not isinstance(config[key], ConfigDict):
        raise ValueError(f"`{name}` must hold keys and values, got {config[key]!r}")
    _fill(config[key], kind, root, name)


def _typed(value: Any, hint: Any) -> Any:
    """A value that carries its key's type even where it is None."""
    if not settings.allows_none(hint):
        return value
    reference = config_dict.placeholder(settings.plain(hint))
    reference.set(value)
    return reference


def _reference(config: ConfigDict, key: str) -> config_dict.FieldReference | None:
    """The reference at a key that the file left open or tied to another key's value."""
    value = dict(config.items(preserve_field_references=True))[key]
    return value if isinstance(value, config_dict.FieldReference) else None


def _is_open(reference: config_dict.FieldReference) -> bool:
    try:
        reference.get()
    except config_dict.RequiredValueError:
        return True
    return False
