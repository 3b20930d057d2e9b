"""Wall and CPU seconds: on a shared machine the latter are more reliable."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np


class Seconds(NamedTuple):
    """Medians over repeats, after a first call that compiles or warms up."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        """For a table."""
        return f"{self.wall:7.3f} s wall, {self.cpu:7.3f} s CPU"


def timed(work: Callable[[], Any], repeats: int = 3) -> tuple[Any, Seconds]:
    """The last result, and how long a call takes."""
    result = jax.block_until_ready(work())
    rows = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        result = jax.block_until_ready(work())
        rows.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall, cpu = np.median(rows, axis=0)
    return result, Seconds(float(wall), float(cpu))
