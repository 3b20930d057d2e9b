"""The flag --shard of the launch scripts."""

import dataclasses
import os
from collections.abc import Mapping

from absl import flags

from jaxprobe.stages import run, shards

BY_PROCESS = "process"
# (this process's number, how many there are), as launchers of many processes name them.
_LAUNCHERS = (
    ("JAX_PROCESS_ID", "JAX_NUM_PROCESSES"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
)
_SHARD = flags.DEFINE_string(
    "shard",
    None,
    "i/n: do part i of n (from 0) of extract, encode and fit, every n-th dataset, in the folder"
    " shard-i-of-n below the work directory, e.g. --shard=0/4 to --shard=3/4 on four machines; then"
    " run.py or report.py without --shard merges the tables. --shard=process takes both numbers from the"
    " launcher (JAX, Slurm, Open MPI, MPICH), so that one command serves all. An SAE that the config trains"
    " comes first: extract.py and train_sae.py without --shard.",
)


def with_shard(config: run.RunConfig) -> run.RunConfig:
    """The job, or the part of it that --shard names; ValueError for a shard that makes no sense."""
    if _SHARD.value is None:
        return config
    text = of_process(os.environ) if _SHARD.value == BY_PROCESS else _SHARD.value
    return dataclasses.replace(config, shard=shards.Shard.parse(text))


def of_process(environment: Mapping[str, str]) -> str:
    """`i/n` of the process that a launcher started.

    Raises:
        ValueError: No launcher that is known has set its variables.
    """
    for index, count in _LAUNCHERS:
        if index in environment and count in environment:
            return f"{environment[index]}/{environment[count]}"
    known = ", ".join(f"{index} and {count}" for index, count in _LAUNCHERS)
    raise ValueError(
        f"--shard={BY_PROCESS} needs the numbers that a launcher sets ({known}), and none are set; start"
        " it by srun or mpirun, or write --shard=i/n"
    )
