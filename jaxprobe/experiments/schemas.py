"""From a config file's content to the config of the experiment that it names."""

import copy
from collections.abc import Mapping
from typing import Any

from jaxprobe import checks, settings
from jaxprobe.experiments import config
from jaxprobe.experiments.probing import config as probing_config

# Name of an experiment -> its config, a kind of `config.Common` whose fields all have defaults.
SCHEMAS: dict[str, type[config.Common]] = {"probing": probing_config.Config}


def schema_of(content: Any) -> type[config.Common]:
    """The config dataclass of the experiment that a file's content names, or of the default one.

    Raises:
        ValueError: An unknown experiment.
    """
    name = content.get("experiment", config.Common.experiment)
    checks.check_choice("config.experiment", name, SCHEMAS)
    return SCHEMAS[name]


def read(content: Mapping[str, Any]) -> config.Common:
    """The config of a file's content.

    Raises:
        ValueError: An unknown experiment or key, or a value that its key does not take.
    """
    content = copy.deepcopy(dict(content))
    config.imply_training(content)
    return settings.build(schema_of(content), content)
