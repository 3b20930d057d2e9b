"""The flag --shard of the launch scripts."""

import dataclasses

from absl import flags

from jaxprobe.stages import run, shards

_SHARD = flags.DEFINE_string(
    "shard",
    None,
    "i/n: do part i of n (from 0) of extract, encode and fit, every n-th dataset, in the folder"
    " shard-i-of-n below the work directory, e.g. --shard=0/4 to --shard=3/4 on four machines; then"
    " run.py or report.py without --shard merges the tables. An SAE that the config trains comes first:"
    " extract.py and train_sae.py without --shard.",
)


def with_shard(config: run.RunConfig) -> run.RunConfig:
    """The job, or the part of it that --shard names; ValueError for anything but i/n."""
    if _SHARD.value is None:
        return config
    return dataclasses.replace(config, shard=shards.Shard.parse(_SHARD.value))
