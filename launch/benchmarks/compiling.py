"""What compiling the forward pass takes, against an extraction of the 113 published datasets."""

import tempfile
import time

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from jaxprobe import base, models
from jaxprobe.stages import run

ALL_TOKENS = 17.9e6  # of the 222,062 distinct prompts of the 113 datasets, with Gemma's tokenizer


def report(config: run.RunConfig, model, tokens_per_second: float) -> str:
    """A line: every bucket's program compiled into an empty cache, and read back from it.

    Args:
        config: Its site, buckets and batches.
        model: A loaded model.
        tokens_per_second: What the extraction is estimated by.
    """
    before = jax.config.jax_compilation_cache_dir
    with tempfile.TemporaryDirectory() as folder:
        _cache_in(folder)
        cold, num_programs = _compile(config, model)
        jax.clear_caches()
        warm, _ = _compile(config, model)
    _cache_in(before)
    extraction = ALL_TOKENS / tokens_per_second
    return (
        f"\n  compiling all {num_programs} programs of an extraction: {cold:.1f} s with an empty cache,"
        f" {warm:.1f} s from the cache (tracing included);\n"
        f"  113 datasets, {ALL_TOKENS / 1e6:.1f}M tokens at {tokens_per_second:,.0f} a second:"
        f" {extraction:,.0f} s, so {cold / extraction:.1%} ({warm / extraction:.1%} from the cache)"
    )


def _cache_in(folder: str | None) -> None:
    jax.config.update("jax_compilation_cache_dir", folder)
    compilation_cache.reset_cache()


def _compile(config: run.RunConfig, model) -> tuple[float, int]:
    forward = models.make_forward(model, [base.Site.parse(config.site)])
    extract = config.extract
    start = time.perf_counter()
    sizes = [size for size in sorted(extract.buckets) if size <= extract.max_length]
    for num_tokens in sizes:
        num_rows = max(1, extract.batch_tokens // num_tokens)
        tokens_BT = jax.ShapeDtypeStruct((num_rows, num_tokens), np.int32)
        length_B = jax.ShapeDtypeStruct((num_rows,), np.int32)
        forward.compiled.lower(forward.parameters, tokens_BT, length_B).compile()
    return time.perf_counter() - start, len(sizes)
