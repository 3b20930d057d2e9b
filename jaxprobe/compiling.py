"""Compiled programs that are kept from one process to the next, for those who ask."""

import os
from pathlib import Path

import jax

from jaxprobe import assets

LEAST_SECONDS = 0.1  # those of the forward pass take about a second, which JAX would not keep


def cache_compiled_programs(folder: str | os.PathLike | None = None) -> Path:
    """Keeps what JAX compiles on disk from here on, so that the next process need not compile again.

    The first `fit_probe` of each method compiles for 8 to 30 s on two cores. Importing jaxprobe changes
    no setting of JAX, which belong to the program that imports it; this sets two of them, for the whole
    process: `jax_compilation_cache_dir` and `jax_persistent_cache_min_compile_time_secs`. The scripts
    in `launch/` do the same. JAX tells programs apart by their code, versions and processor.

    Args:
        folder: Where to keep them; by default `xla` in jaxprobe's cache. It grows, and may be deleted.

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
