"""Probes: one file a method, one line each in `registry.PROBES`."""

from jaxprobe.probes.fit_probe import ProbeResult as ProbeResult
from jaxprobe.probes.fit_probe import fit_probe as fit_probe
from jaxprobe.probes.grid import fit_grid as fit_grid
from jaxprobe.probes.probe import Probe as Probe
from jaxprobe.probes.registry import PROBES as PROBES
from jaxprobe.probes.scores import Scores as Scores
from jaxprobe.probes.scores import metrics_of as metrics_of
