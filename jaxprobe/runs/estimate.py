"""The remaining work of a run: prompts, tokens, latents, probes, and about how long each stage takes.

Rates are those of the last finished run on the same kind of device, kept in the cache folder, and include the
compiling of that run. Where there is none, a matrix product is timed for a fraction of a second, compiling is
estimated from the number of programs, and the estimate is called a guess.
"""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import logging

from jaxprobe import boundary, records
from jaxprobe.assets import cache_dir
from jaxprobe.place import Place

RATES = "rates.json"  # in the cache folder
# 222,062 distinct prompts of the published sets hold 17.9M tokens of Gemma's.
CHARACTERS_PER_TOKEN = 4.3
LEARN_SECONDS = 10.0  # shorter work is mostly compiling
# Work per second and GFLOP/s of a float32 product, as measured on two Zen 4 cores; see BUILD_NOTES.md.
PER_GFLOPS = {"extract": 1.19e9, "train_sae": 0.84e9, "encode": 0.5e9, "fit": 0.02}
UNITS = {"extract": "tokens", "train_sae": "tokens", "encode": "latents", "fit": "probes"}
# Seconds to compile one program, by platform, and programs of a stage's first run.
COMPILE_SECONDS = {"cpu": 1.5, "gpu": 8.0, "tpu": 6.0}
PROGRAMS = {"extract": 6, "train_sae": 4, "encode": 6, "fit": 24}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One stage's work.

    Attributes:
        count: Amount in the unit that is shown, see `UNITS`.
        work: Amount that time is proportional to: floating-point operations, or probes.
        note: More about it.
    """

    count: float = 0.0
    work: float = 0.0
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """What is left to do.

    Attributes:
        parts: The work by stage.
        rates: Work per second, by stage.
        learned: Stages whose rate is from an earlier run.
    """

    parts: Mapping[str, Part]
    rates: Mapping[str, float]
    learned: frozenset[str]

    def describe(self) -> str:
        """Lines for the terminal."""
        lines, total, guessed = [], 0.0, False
        for stage, part in self.parts.items():
            if not part.work:
                lines.append(f"  {stage:10} nothing: it is done")
                continue
            seconds = part.work / self.rates[stage]
            basis = "as in an earlier run"
            if stage not in self.learned:
                seconds += PROGRAMS[stage] * COMPILE_SECONDS.get(jax.default_backend(), 6.0)
                basis, guessed = "a guess, compiling included", True
            total += seconds
            amount = f"{part.count:>13,.0f} {UNITS[stage]:8} {part.note}"
            lines.append(f"  {stage:10} {amount}: {duration(seconds)}, {basis}")
        if not total:
            return "Nothing is left to do but the report."
        head = (
            f"Left to do, about {duration(total)} in all{' (partly a guess)' if guessed else ''}:"
        )
        return "\n".join([head, *lines])

    def learn(self, before: Mapping[str, float], after: Mapping[str, float]) -> None:
        """Keeps this run's rates for the next estimate on such a device.

        Args:
            before: Seconds that each stage had worked when the estimate was made.
            after: Seconds that each has worked now.
        """
        known, device = _rates(), records.device()
        for stage, part in self.parts.items():
            seconds = after.get(stage, 0.0) - before.get(stage, 0.0)
            if part.work and seconds >= LEARN_SECONDS:
                known.setdefault(device, {})[stage] = part.work / seconds
        try:
            Place.parse(cache_dir() / RATES).replace(json.dumps(known, indent=2).encode())
        except OSError as error:  # the work is done: an estimate is not worth an error
            logging.info("the rates of this run are not kept for later estimates: %s", error)


def estimate(parts: Mapping[str, Part]) -> Estimate:
    """How long this work takes, by the rates of earlier runs or of a timed matrix product."""
    known = _rates().get(records.device(), {})
    guessed = [stage for stage, part in parts.items() if part.work and stage not in known]
    gflops = _product_gflops() if guessed else 1.0
    rates = {stage: known.get(stage, PER_GFLOPS[stage] * gflops) for stage in parts}
    return Estimate(parts=parts, rates=rates, learned=frozenset(known))


def extracting(
    d_model: int, blocks: int, longest: int, texts: Sequence[str], num_prompts: int
) -> Part:
    """Tokens to run through the model.

    Args:
        d_model: Width of the residual stream.
        blocks: How many blocks are run, up to the last site.
        longest: Most tokens of a prompt.
        texts: The prompts that are still to be run.
        num_prompts: Number of distinct prompts of the job.
    """
    tokens = sum(min(1 + len(text) / CHARACTERS_PER_TOKEN, longest) for text in texts)
    # A block of a Gemma-like model has about 13.6 d_model^2 weights.
    return Part(
        count=tokens,
        work=tokens * 2 * 13.6 * d_model**2 * blocks,
        note=f"of {len(texts):,} of {num_prompts:,} distinct prompts",
    )


def training(num_tokens: int, d_model: int, widths: Sequence[int]) -> Part:
    """Tokens of all SAEs that are not trained yet."""
    return Part(
        count=float(num_tokens * len(widths)),
        work=num_tokens * 12.0 * d_model * sum(widths),
        note=f"for {len(widths)} SAEs of {sum(widths):,} latents in all",
    )


def encoding(d_model: int, files: Sequence[tuple[int, int]]) -> Part:
    """Latents of every row that is not encoded yet.

    Args:
        d_model: Width of the activations.
        files: Rows and d_sae of each file of latents.
    """
    return Part(
        count=float(sum(rows * d_sae for rows, d_sae in files)),
        work=sum(2.0 * rows * d_model * d_sae for rows, d_sae in files),
        note=f"in {len(files):,} files",
    )


def fitting(probes: int, num_datasets: int) -> Part:
    """Probes that have no results yet."""
    return Part(count=float(probes), work=float(probes), note=f"on {num_datasets} datasets")


def duration(seconds: float) -> str:
    """A readable duration: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _product_gflops(size: int = 1024) -> float:
    """GFLOP/s of a float32 matrix product, the best of a few."""
    x = jnp.ones((size, size), jnp.float32)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(x, x))
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        jax.block_until_ready(product(x, x))
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds) / 1e9


def _rates(path: Path | None = None) -> dict[str, dict[str, float]]:
    """Work per second by kind of device and stage; empty where the file is not there or damaged."""
    try:
        found = boundary.read_json(path or cache_dir() / RATES)
    except (OSError, boundary.FileError) as error:
        logging.debug("the estimate goes without earlier rates: %s", error)
        return {}
    found = found if isinstance(found, dict) else {}
    return {device: _positive(rates) for device, rates in found.items()}


def _positive(value: object) -> dict[str, float]:
    """The entries of a mapping that are finite numbers above 0."""
    if not isinstance(value, Mapping):
        return {}
    return {
        str(name): float(x)
        for name, x in value.items()
        if isinstance(x, int | float) and not isinstance(x, bool) and 0 < x < 1e300
    }
