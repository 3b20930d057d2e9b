"""Time to compile the forward pass, compared with extraction of the 113 published datasets."""

import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from benchmarks.timing import Seconds
from jaxprobe import base, models
from jaxprobe.stages import run

ALL_TOKENS = 17.9e6  # of the 222,062 distinct prompts of the 113 datasets, with Gemma's tokenizer


def report(config: run.RunConfig, model, rate: Seconds) -> str:
    """Lines of text: the time to compile every bucket's program, and to read it back from the cache.

    Args:
        config: The job, for its site, buckets and batches.
        model: A loaded model.
        rate: Seconds per token, from which the time of the whole extraction is estimated.
    """
    before = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        _cache_in(folder)
        cold, num_programs = _compile(config, model)
        jax.clear_caches()
        warm, _ = _compile(config, model)
        stored = len([path for path in Path(folder).iterdir() if path.name.endswith("-cache")])
    _cache_in(before)
    whole = Seconds(*(ALL_TOKENS * seconds for seconds in rate))
    lines = [
        f"\n  113 datasets, {ALL_TOKENS / 1e6:.1f}M tokens at this rate: {whole}",
        f"  compiling all {num_programs} programs, empty cache: {cold}, {_share(cold, whole)}",
        f"  again, {stored} of them from the cache:   {warm}, {_share(warm, whole)}",
    ]
    return "\n".join(lines)


def _share(part: Seconds, whole: Seconds) -> str:
    return f"{part.wall / whole.wall:.2%} of it ({part.cpu / whole.cpu:.2%})"


def _cache_in(folder: str | None) -> None:
    jax.config.update("jax_compilation_cache_dir", folder)
    compilation_cache.reset_cache()


def _compile(config: run.RunConfig, model) -> tuple[Seconds, int]:
    forward = models.make_forward(model, [base.Site.parse(config.job.site)])
    extract = config.job.extract
    wall, cpu = time.perf_counter(), time.process_time()
    sizes = [size for size in sorted(extract.buckets) if size <= extract.max_length]
    for num_tokens in sizes:
        num_rows = max(1, extract.batch_tokens // num_tokens)
        tokens_BT = jax.ShapeDtypeStruct((num_rows, num_tokens), np.int32)
        length_B = jax.ShapeDtypeStruct((num_rows,), np.int32)
        traced = forward.compiled.trace(forward.parameters, tokens_BT, length_B)  # type: ignore[attr-defined]
        traced.lower().compile()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu), len(sizes)
