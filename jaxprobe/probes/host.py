"""Probes that run on the host."""

from collections.abc import Callable
from typing import NamedTuple


class HostProbe(NamedTuple):
    """A method that calls a library."""

    fit: Callable
