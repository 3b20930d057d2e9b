"""The cache of compiled programs, in a process of its own: it changes settings of JAX."""

import subprocess
import sys

SCRIPT = """
import pathlib, sys
import jax, jax.numpy as jnp
before = jax.config.jax_compilation_cache_dir
import jaxprobe as jp
assert jax.config.jax_compilation_cache_dir == before  # importing changes nothing
from jaxprobe import compiling
compiling.LEAST_SECONDS = 0.0
folder = jp.cache_compiled_programs(sys.argv[1])
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones(3)).block_until_ready()
assert list(folder.iterdir()), "nothing was kept"
"""


def test_programs_are_kept_where_asked_and_importing_changes_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "kept")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
