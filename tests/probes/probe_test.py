"""Scoring some rows of a padded list."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprobe.probes import probe

ROW_M = np.array([4, 1, 3, 0, 2, 0, 0])


def squares(row_B):
    return jnp.arange(10.0, 15.0)[row_B] ** 2


@pytest.mark.parametrize("size", [1, 3, 7, 256])
@pytest.mark.parametrize("count", [0, 1, 3, 5, 7])
def test_as_many_rows_as_are_asked_for_are_scored(size, count):
    found_M = np.asarray(probe.map_rows(squares, ROW_M, count, size))
    np.testing.assert_array_equal(found_M[:count], squares(ROW_M[:count]))
    # Rows of the last call beyond `count` may be there; what no call reaches is 0.
    assert not found_M[-(-count // size) * size :].any()


def test_counts_are_traced_and_mapped():
    count_L = jnp.array([0, 2, 7])
    found_LM = jax.vmap(jax.jit(lambda count: probe.map_rows(squares, ROW_M, count, 2)))(count_L)
    for count, found_M in zip(count_L, found_LM, strict=True):
        np.testing.assert_array_equal(found_M[:count], squares(ROW_M[:count]))


def test_scores_may_have_several_values_a_row():
    found_MH = probe.map_rows(lambda row_B: jnp.stack([row_B, 2 * row_B], 1), ROW_M, 5, 2)
    np.testing.assert_array_equal(found_MH[:5], np.stack([ROW_M, 2 * ROW_M], 1)[:5])
