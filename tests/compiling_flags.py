"""How the tests compile: in haste, except where a process is to compute what a user's computes.

Most of a test's time is compiling, and compiled in haste a program is there five times sooner. It does the same
sums in another order, so tests that compare with a reference hold either way. With XLA's own settings for all:
`XLA_FLAGS=--xla_force_host_platform_device_count=2 pytest ...`, as .ci/run does for what decides results.
"""

import os

DEVICES = "--xla_force_host_platform_device_count=2"
HASTE = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    " --xla_cpu_parallel_codegen_split_count=1"  # each core has a process of its own
)


def as_users() -> dict[str, str]:
    """The environment of a process that compiles as a user's does."""
    return {**os.environ, "XLA_FLAGS": os.environ["XLA_FLAGS"].replace(HASTE, "").strip()}


def with_devices(count: int) -> dict[str, str]:
    """The environment of a process on so many devices of the host."""
    # The last of a flag's values holds.
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={count}"
    return {**os.environ, "XLA_FLAGS": flags}
