"""Reads a config file, once, and adds the keys that it leaves out: then each can be overridden."""

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
    """A sentence about a config file; no ValueError, which absl would wrap into its own message."""


def load(text: str, overridden: Sequence[str] = ()) -> ConfigDict:
    """What a config file says, with every key that it leaves out, locked.

    Args:
        text: `FILE.py`, or `FILE.py:VARIANT`: then its `get_config` is called with the variant.
        overridden: Dotted keys that somebody wants to override, such as `fit.baselines`.

    Raises:
        ConfigFileError: A file that gives no config, an unknown variant or key, or a value that its
            key does not take; the message names the alternatives.
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
            f"get_config of {path} returned {type(config).__name__}, no ConfigDict; {_WANTED}"
        )
    return config


def _check_variant(path: Path, variants: Any, get_config: Any, arguments: list[str]) -> None:
    """Raises ValueError for a variant that the file's `VARIANTS` lacks, or where it takes none."""
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


def _fill(config: ConfigDict, kind: type, root: type, name: str) -> None:
    """Adds what a section leaves out, in place, and gives each value the type that its key has.

    A ConfigDict remembers the type of each value and holds overrides to it.
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
                del config[key]  # it would turn the new value into the old one's type
                config[key] = _typed(value, hint)
            elif _is_open(reference):  # ml_collections cannot override what has no value at all
                del config[key]
                config[key] = config_dict.placeholder(settings.plain(hint))


def _fill_section(config: ConfigDict, key: str, kind: type, root: type, name: str) -> None:
    if config.get(key) is None:
        config[key] = ConfigDict()
    if not isinstance(config[key], ConfigDict):
        raise ValueError(f"`{name}` must hold keys and values, got {config[key]!r}")
    _fill(config[key], kind, root, name)


def _typed(value: Any, hint: Any) -> Any:
    """A value that stands for its key's type even where it is None."""
    if not settings.allows_none(hint):
        return value
    reference = config_dict.placeholder(settings.plain(hint))
    reference.set(value)
    return reference


def _reference(config: ConfigDict, key: str) -> config_dict.FieldReference | None:
    """What stands at a key that the file left open or tied to another key's value."""
    value = dict(config.items(preserve_field_references=True))[key]
    return value if isinstance(value, config_dict.FieldReference) else None


def _is_open(reference: config_dict.FieldReference) -> bool:
    try:
        reference.get()
    except config_dict.RequiredValueError:
        return True
    return False
