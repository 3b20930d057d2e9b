"""The config's section for extraction."""

import dataclasses

from jaxprobe import tokens
from jaxprobe.settings import Count


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extract:
    """`config.extract`: how prompts become activations.

    Attributes:
        max_length: Most tokens of a prompt, BOS included; longer prompts lose their beginning.
        buckets: Row lengths of batches, each a compiled program.
        batch_tokens: Tokens of a batch, padding included. An accelerator needs more than a CPU.
        mesh: Devices along (data, model): how many share a batch's rows, and how many a parameter.
        token_dtype: Number format of token activations on disk. bfloat16 halves the 46 GB of all
            datasets (17.9M tokens, d_model 640); its rounding adds 2e-5 of the variance at Gemma
            3 270M's block 12.
        token_datasets: Datasets whose tokens train SAEs; None means all of `datasets`.
    """

    max_length: Count = 1024
    buckets: tuple[Count, ...] = tokens.BUCKETS
    batch_tokens: Count = tokens.BATCH_TOKENS
    mesh: tuple[Count, Count] = (1, 1)
    token_dtype: str = "bfloat16"
    token_datasets: tuple[str, ...] | None = None
