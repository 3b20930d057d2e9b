"""Probes: one file a method, one line each in `table.PROBES`."""

from jaxprobe.probes.grid import fit_grid as fit_grid
from jaxprobe.probes.probe import Probe as Probe
from jaxprobe.probes.probe import Scores as Scores
from jaxprobe.probes.single import ProbeResult as ProbeResult
from jaxprobe.probes.single import fit_probe as fit_probe
from jaxprobe.probes.table import PROBES as PROBES
