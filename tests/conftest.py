"""Strict arithmetic for every test: no silent promotion of types or ranks."""

import atexit
import gc
import os
import pathlib
import shutil
import tempfile

from tests import compiling_flags

os.environ.setdefault("XLA_FLAGS", f"{compiling_flags.DEVICES} {compiling_flags.HASTE}")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the launch scripts do
# torch's threads wait by spinning: with as many processes as cores, most of its time was that.
os.environ.setdefault("OMP_NUM_THREADS", "1")
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


# Files that take longest, in this order: a process that takes a file keeps it, and the last should be short.
LONGEST = (
    *("smoke", "models/parity", "models/hf_parity", "probes/grid", "probes/registry", "stopping"),
    *("models/forward", "probes/fitted", "probes/fit_probe", "stages/train_sae", "assets"),
    *("real_splits", "saes/rules", "probes/solvers", "saes/architectures", "tokens/layouts"),
    *("probes/mlp", "models/gguf_parity", "stages/beside", "stages/fit", "stages/extract"),
    *("checkpoints/parity", "stages/run", "probes/closed_form", "datasets", "probes/knn", "api"),
)
_PLACE = {f"{name}_test.py": number for number, name in enumerate(LONGEST)}


def pytest_collection_modifyitems(items):
    """What takes long comes first."""
    here = pathlib.Path(__file__).parent
    items.sort(key=lambda item: _PLACE.get(str(item.path.relative_to(here)), len(_PLACE)))


def pytest_collection_finish():
    """Leaves what was imported out of the searches for garbage, which tracing would set off all the time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="session")
def sae_probes_wheel():
    """The published datasets' wheel; skips where it can neither be found nor fetched."""
    from jaxprobe import assets

    try:
        return assets.fetch("pypi://sae-probes")
    except assets.AssetError as error:
        pytest.skip(f"needs the published datasets: {error}")
