"""Strict arithmetic for every test: no silent promotion of types or ranks."""

import os
import pathlib

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the launch scripts do

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def sae_probes_wheel():
    """The published datasets' wheel; skips where it can neither be found nor fetched."""
    from jaxprobe import assets

    try:
        return assets.fetch("pypi://sae-probes")
    except assets.AssetError as error:
        pytest.skip(f"needs the published datasets: {error}")
