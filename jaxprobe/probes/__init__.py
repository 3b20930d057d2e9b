"""Probes: one file per method, and one line each in `registry.PROBES`."""

from jaxprobe.probes.fit_probe import ProbeResult as ProbeResult
from jaxprobe.probes.fit_probe import fit_probe as fit_probe
from jaxprobe.probes.fitted import FittedProbe as FittedProbe
from jaxprobe.probes.fitted import load_probe as load_probe
from jaxprobe.probes.grid import fit_grid as fit_grid
from jaxprobe.probes.host_probe import HostProbe as HostProbe
from jaxprobe.probes.probe import Probe as Probe
from jaxprobe.probes.registry import PROBES as PROBES
from jaxprobe.probes.scaling import centred as centred
from jaxprobe.probes.scaling import standardised as standardised
from jaxprobe.probes.scores import Scores as Scores
from jaxprobe.probes.scores import metrics_of as metrics_of
