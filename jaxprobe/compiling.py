"""An opt-in cache on disk of compiled programs, shared by processes."""

import os
from pathlib import Path

import jax

from jaxprobe import assets

LEAST_SECONDS = 0.1  # the forward pass compiles for about a second, too short for JAX's own default


def cache_compiled_programs(folder: str | os.PathLike | None = None) -> Path:
    """Stores what JAX compiles from now on, so that the next process need not compile it again.

    The first `fit_probe` of each method compiles for 8 to 30 s on two cores. Importing jaxprobe changes no
    setting of JAX: those belong to the importing program. This function sets two of them for the whole
    process, `jax_compilation_cache_dir` and `jax_persistent_cache_min_compile_time_secs`. The scripts in
    `launch/` do the same. JAX distinguishes programs by their code, versions and processor.

    Args:
        folder: The cache's folder; by default `xla` in jaxprobe's cache. It grows, and may be deleted.

    Returns:
        The folder.

    Example:
        >>> import tempfile
        >>> import jaxprobe as jp
        >>> folder = jp.cache_compiled_programs(tempfile.mkdtemp())
    """
    path = assets.cache_dir() / "xla" if folder is None else Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    return path
