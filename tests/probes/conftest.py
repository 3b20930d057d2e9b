"""Programs that splits of several sizes share."""

import pytest

from jaxprobe.probes import lanes


@pytest.fixture
def one_program(monkeypatch):
    """Pads splits of every size alike, so that a method compiles once and not once per bucket of sizes.

    That the buckets change no number is what `grid_test` sees.
    """
    monkeypatch.setattr(lanes, "BUCKETS", ((160, 36),))
