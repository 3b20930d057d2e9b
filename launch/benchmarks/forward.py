"""Real tokens per second to the run's site, against TransformerLens and transformers in one process.

Every side gets the same ids and returns the last token's activations; padding is not counted as tokens. Ours
follows the plan of the extract stage (length buckets), TransformerLens is called as in the published package (32
prompts in their order), transformers gets the prompts sorted by length. Rounds alternate between the sides. On a
busy machine, CPU seconds of all threads are more reliable.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from absl import flags

from benchmarks import compiling, torch_peers
from benchmarks.timing import Seconds
from jaxprobe import base, datasets, models, tokens
from jaxprobe.stages import run

_PROMPTS = flags.DEFINE_integer(
    "forward_prompts", 400, "forward: prompts of each short dataset; of longer ones a fourth.", 4
)
_LONG = flags.DEFINE_list(
    "forward_long", ["90_glue_qnli", "110_aimade_humangpt3"], "forward: datasets of longer prompts."
)
_ROUNDS = flags.DEFINE_integer("forward_rounds", 2, "forward: how often each side runs.", 1)
_PEERS = flags.DEFINE_bool("forward_peers", True, "forward: whether torch's side runs too.")
SHORT_DATASETS = 4  # of the config's
REFERENCE = "transformers float32"


class Prompts(NamedTuple):
    """A set of prompts, as ids."""

    name: str
    ids: Sequence[np.ndarray]

    @property
    def num_tokens(self) -> int:
        """The number of real tokens."""
        return sum(map(len, self.ids))


def suite(config: run.RunConfig, workdir) -> None:
    """A table per set of prompts and for all of them, ratios, and the time to compile."""
    del workdir
    site = base.Site.parse(config.job.site)
    loaded = {
        dtype: models.load_model(config.job.model, dtype) for dtype in ("bfloat16", "float32")
    }
    sets = _prompts(config, loaded["float32"])
    sides: dict[str, Callable] = {}
    compiled = {}
    for dtype, model in loaded.items():
        name = f"ours {'mixed' if dtype == 'bfloat16' else dtype}"
        forward = models.make_forward(model, [site])
        start = time.perf_counter()
        shapes = {(*b.tokens_BT.shape,): b for _, ids in sets for b in _plan(config, model, ids)}
        for batch in shapes.values():
            jax.block_until_ready(forward(batch.tokens_BT, batch.length_B))
        compiled[name] = f"{len(shapes)} programs in {time.perf_counter() - start:.1f} s"
        sides[name] = _ours(config, model, forward, site)
    if _PEERS.value:
        peers, missing = _load_peers(config, site)
        sides |= {peer.name: peer.run for peer in peers}
        print("".join(f"  {line}\n" for line in missing), end="")
    print("  ours: first calls " + ", ".join(f"{name} {text}" for name, text in compiled.items()))
    total = {name: np.zeros(2) for name in sides}
    for prompts in sets:
        seconds, x_ND = _measure(sides, prompts)
        padded = _padded(prompts, _plan(config, loaded["float32"], prompts.ids))
        _print(f"{prompts.name}: {padded}", prompts.num_tokens, seconds, _errors(x_ND))
        for name in sides:
            total[name] += seconds[name]
    everything = {name: Seconds(*both) for name, both in total.items()}
    num_tokens = sum(prompts.num_tokens for prompts in sets)
    _print(f"all: {num_tokens:,} tokens", num_tokens, everything, {})
    rate = Seconds(*(seconds / num_tokens for seconds in everything["ours mixed"]))
    print(compiling.report(config, loaded["bfloat16"], rate))


def _prompts(config: run.RunConfig, model) -> list[Prompts]:
    """The first distinct prompts of some datasets, in their order."""

    def ids(names, count):
        texts = [
            text
            for name in names
            for text in list(dict.fromkeys(datasets.load(name, config.job.source).texts))[:count]
        ]
        return tokens.token_ids(model.tokenizer, texts, config.job.extract.max_length)

    short = config.job.datasets[:SHORT_DATASETS]
    found = [Prompts(f"{len(short)} short sets", ids(short, _PROMPTS.value))]
    return [*found, *(Prompts(n, ids([n], _PROMPTS.value // 4)) for n in _LONG.value)]


def _plan(config: run.RunConfig, model, ids) -> list[base.TokenBatch]:
    extract = config.job.extract
    return list(
        tokens.batches(
            ids,
            buckets=extract.buckets,
            batch_tokens=extract.batch_tokens,
            pad_id=model.tokenizer.pad_id,
        )
    )


def _ours(config: run.RunConfig, model, forward, site: base.Site) -> Callable:
    def side(ids: Sequence[np.ndarray]) -> np.ndarray:
        x_ND = np.zeros((len(ids), model.width(site)), np.float32)
        plan = _plan(config, model, ids)
        results = [forward(batch.tokens_BT, batch.length_B)[site] for batch in plan]
        for batch, x_BD in zip(plan, results, strict=True):
            real_B = batch.prompt_B >= 0
            x_ND[batch.prompt_B[real_B]] = np.asarray(x_BD)[real_B]
        return x_ND

    return side


def _load_peers(config: run.RunConfig, site: base.Site) -> tuple[list[torch_peers.Peer], list[str]]:
    if site.stream != "resid_post":
        return [], [f"not compared: the peers read resid_post, but the config {site}"]
    peers, missing = torch_peers.load(config.job.model, site.block)
    if peers:
        print(f"  torch runs on {torch_peers.threads()} threads, its default")
    return peers, missing


def _measure(sides, prompts: Prompts) -> tuple[dict[str, Seconds], dict[str, np.ndarray]]:
    """Medians of each side's rounds, and the activations that it returned."""
    rows: dict[str, list] = {name: [] for name in sides}
    x_ND = {}
    for side in sides.values():
        side(prompts.ids[:2])  # first touches of memory are not timed
    for _ in range(_ROUNDS.value):
        for name, side in sides.items():
            wall, cpu = time.perf_counter(), time.process_time()
            x_ND[name] = side(prompts.ids)
            rows[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: Seconds(*np.median(both, axis=0)) for name, both in rows.items()}, x_ND


def _errors(x_ND: dict[str, np.ndarray]) -> dict[str, str]:
    """Relative differences to transformers in float32."""
    if REFERENCE not in x_ND:
        return {}
    wanted_ND, texts = x_ND[REFERENCE], {}
    for name, got_ND in x_ND.items():
        error_N = np.linalg.norm(got_ND - wanted_ND, axis=1) / np.linalg.norm(wanted_ND, axis=1)
        texts[name] = f"{np.median(error_N):.1e}, at most {error_N.max():.1e}"
    return texts


def _padded(prompts: Prompts, plan: Sequence[base.TokenBatch]) -> str:
    """Counts, and how much padding each way to fill batches adds to the real tokens."""
    length_N, real = np.array([len(row) for row in prompts.ids]), prompts.num_tokens

    def in_order(length_N):
        starts = range(0, len(length_N), torch_peers.BATCH)
        parts = [length_N[start : start + torch_peers.BATCH] for start in starts]
        return sum(len(part) * int(part.max()) for part in parts) / real - 1

    ours = sum(batch.tokens_BT.size for batch in plan) / real - 1
    return (
        f"{len(length_N):,} prompts, {real:,} tokens, {real / len(length_N):.0f} per prompt; padding"
        f" {ours:.0%} ours, {in_order(np.sort(length_N)):.0%} transformers,"
        f" {in_order(length_N):.0%} TransformerLens"
    )


def _print(title: str, num_tokens: int, seconds: dict[str, Seconds], errors) -> None:
    print(f"\n  {title}")
    print(
        f"  {'':24} tokens/s by wall, by CPU time of two cores; mixed and float32 of ours / it,"
        " wall (CPU); difference"
    )
    for name, (wall, cpu) in seconds.items():
        ratios = []
        for ours in ("ours mixed", "ours float32"):
            mine = seconds[ours]
            ratios.append(f"{wall / mine.wall:5.2f} ({cpu / mine.cpu:5.2f})")
        print(
            f"  {name:24} {num_tokens / wall:7,.0f} {2 * num_tokens / cpu:7,.0f}   {'  '.join(ratios)}"
            f"   {errors.get(name, '')}",
            flush=True,
        )
