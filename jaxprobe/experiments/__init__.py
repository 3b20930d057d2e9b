"""Experiments: each is a file, and this module lists them."""

from jaxprobe.experiments.experiment import Experiment
from jaxprobe.experiments.one_against_rest import EXPERIMENT as ONE_AGAINST_REST
from jaxprobe.experiments.probing import EXPERIMENT as PROBING

EXPERIMENTS: dict[str, Experiment] = {
    "probing": PROBING,
    "one_against_rest": ONE_AGAINST_REST,
}
