"""Drawings: scales and escaped elements."""

import math

import numpy as np
import pytest

from jaxprobe.rendering import svg


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.52, 0.99, math.nan], (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)),
        ([-0.0012, 0.0004], (-0.0015, -0.001, -0.0005, 0, 0.0005)),
        ([0.7], (0.7, 0.7002, 0.7004, 0.7006, 0.7008, 0.701)),
        ([], (0, 0.2, 0.4, 0.6, 0.8, 1)),
    ],
)
def test_scale_ends_on_round_ticks(values, ticks):
    scale = svg.nice_scale(values, 100, 0)
    np.testing.assert_allclose(scale.ticks, ticks, atol=1e-12)
    assert (scale(ticks[0]), scale(ticks[-1])) == (100, 0)


def test_an_element_escapes_what_it_holds():
    drawn = svg.text(1, 2, "<b>\"a\" & 'b'</b>", 'tone" onload="x', "start")
    assert "<b>" not in drawn and "&lt;b&gt;" in drawn
    assert 'onload="' not in drawn
    assert svg.element("g", drawn) == f"<g>{drawn}</g>"  # and what is escaped stays as it is
