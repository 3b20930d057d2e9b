"""From a config file's content to the config of the experiment that it names."""

import copy
from collections.abc import Mapping
from typing import Any

from jaxprobe import checks, settings
from jaxprobe.experiments import EXPERIMENTS, config


def schema_of(content: Any) -> type[config.Common]:
    """The config dataclass of the experiment that a file's content names, or of the default one.

    Raises:
        ValueError: An unknown experiment.
    """
    name = content.get("experiment", config.Common.experiment)
    checks.check_choice("config.experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name].config


def read(content: Mapping[str, Any]) -> config.Common:
    """The config of a file's content.

    Raises:
        ValueError: An unknown experiment or key, or an invalid value.
    """
    content = copy.deepcopy(dict(content))
    config.imply_training(content)
    return settings.build(schema_of(content), content)
