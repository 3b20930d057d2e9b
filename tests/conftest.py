"""Strict arithmetic for every test: no silent promotion of types or ranks."""

import atexit
import os
import pathlib
import shutil
import tempfile

from tests import compiling_flags

os.environ.setdefault("XLA_FLAGS", f"{compiling_flags.DEVICES} {compiling_flags.HASTE}")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the launch scripts do
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Most of a test's time is compiling: what one test has compiled, the others and the processes that
    # they start take from here. The first process to come here makes it for all, and takes it away.
    _COMPILED = tempfile.mkdtemp(prefix="jaxprobe-tests-")
    atexit.register(shutil.rmtree, _COMPILED, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

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
