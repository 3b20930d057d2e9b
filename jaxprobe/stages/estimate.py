"""What a run has before it: prompts, tokens, latents, probes, and about how long each stage takes.

Rates are those of the last finished run on the same kind of device, kept in the cache folder. Where there
is none, a product of matrices is timed for a fraction of a second and stands for the machine.
"""

import dataclasses
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from jaxprobe.stages.probe_jobs import Planner

from jaxprobe import base, boundary, datasets, models, table
from jaxprobe.assets import cache_dir
from jaxprobe.checkpoints import native
from jaxprobe.stages import encode as encoding
from jaxprobe.stages import extract as extraction
from jaxprobe.stages import fit as fitting
from jaxprobe.stages import latents as kept
from jaxprobe.stages import run as running
from jaxprobe.stages import run_file
from jaxprobe.store import MANIFEST, ActivationStore, replace_file

RATES = "rates.json"  # in the cache folder
CHARACTERS_PER_TOKEN = (
    4.3  # 222,062 distinct prompts of the published sets: 17.9M tokens of Gemma's
)
UNKNOWN_WIDTH = 16_384  # of an SAE that is not loaded yet
LEARN_SECONDS = 10.0  # shorter work is mostly compiling
# Work per second and GFLOP/s of a float32 product, as measured on two Zen 4 cores; see BUILD_NOTES.md.
PER_GFLOPS = {"extract": 1.19e9, "train_sae": 0.84e9, "encode": 0.5e9, "fit": 0.02}
UNITS = {"extract": "tokens", "train_sae": "tokens", "encode": "latents", "fit": "probes"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One stage's work.

    Attributes:
        count: In the unit that a person counts in, see `UNITS`.
        work: What time is proportional to: floating-point operations, or probes.
        note: More about it.
    """

    count: float
    work: float
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is left to do.

    Attributes:
        parts: By stage.
        rates: Work per second, by stage.
        learned: Stages whose rate is from an earlier run.
        workdir: Where the run records its times.
        before: Seconds of each stage that earlier starts took.
    """

    parts: Mapping[str, Part]
    rates: Mapping[str, float]
    learned: frozenset[str]
    workdir: Path
    before: Mapping[str, float]

    def describe(self) -> str:
        """Lines for the terminal."""
        lines, total = [], 0.0
        for stage, part in self.parts.items():
            seconds = part.work / self.rates[stage]
            total += seconds
            basis = "as in an earlier run" if stage in self.learned else "a guess"
            # Whether what is there was made in this run's way is compared when its stage begins.
            done = (
                f"{duration(seconds)}, {basis}"
                if part.count
                else "as many are there as it asks for"
            )
            lines.append(f"  {stage:10} {part.count:>13,.0f} {UNITS[stage]:8} {part.note}: {done}")
        return "\n".join([f"Left to do, about {duration(total)} in all:", *lines])

    def learn(self) -> None:
        """Keeps this run's rates for the next estimate on such a device."""
        path, device = cache_dir() / RATES, running.device()
        known, times = _rates(path), _times(self.workdir)
        for stage, part in self.parts.items():
            seconds = times.get(stage, 0.0) - self.before.get(stage, 0.0)
            if part.work and seconds >= LEARN_SECONDS:
                known.setdefault(device, {})[stage] = part.work / seconds
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, json.dumps(known, indent=2).encode())
        except OSError as error:  # the work is done: an estimate is not worth an error
            logging.info("the rates of this run are not kept for later estimates: %s", error)


def plan(config: running.RunConfig, workdir: Path | str) -> Plan:
    """Counts what a run of this config still has to do in this work directory."""
    root, config = Path(workdir), running.with_stored_sites(config)
    workdir = root
    if config.shard is not None:
        workdir, config = config.shard.folder(root), running.sharded(config, config.shard)
    store = _store(workdir, root)
    d_model = store.fingerprint["d_model"] if store else _width(config)
    parts = {
        "extract": _extract(config, d_model, root, workdir),
        "train_sae": _train(config, d_model, root),
        **_encode_and_fit(config, d_model, store, workdir),
    }
    known = _rates(cache_dir() / RATES).get(running.device(), {})
    guessed = [stage for stage, part in parts.items() if part.work and stage not in known]
    gflops = _product_gflops() if guessed else 1.0
    rates = {stage: known.get(stage, PER_GFLOPS[stage] * gflops) for stage in parts}
    return Plan(
        parts=parts,
        rates=rates,
        learned=frozenset(known),
        workdir=workdir,
        before=_times(workdir),
    )


def duration(seconds: float) -> str:
    """As a person says it: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _extract(config: running.RunConfig, d_model: int, *workdirs: Path) -> Part:
    num_prompts, texts = extraction.outstanding(running.to_extract(config), *workdirs)
    longest = config.extract.max_length
    tokens = sum(min(1 + len(text) / CHARACTERS_PER_TOKEN, longest) for text in texts)
    # A block of a Gemma-like model has about 13.6 d_model^2 weights.
    blocks = base.Site.parse(config.site).block + 1
    return Part(
        count=tokens,
        work=tokens * 2 * 13.6 * d_model**2 * max(blocks, 1),
        note=f"of {len(texts):,} of {num_prompts:,} distinct prompts",
    )


def _train(config: running.RunConfig, d_model: int, root: Path) -> Part:
    wanted = config.train_sae
    if wanted is None or (running.trained_dir(wanted, root) / native.FILE_NAME).exists():
        return Part(count=0, work=0)
    tokens, d_sae = wanted.num_tokens, wanted.d_sae
    return Part(count=tokens, work=tokens * 12.0 * d_model * d_sae, note=f"for {d_sae:,} latents")


def _encode_and_fit(
    config: running.RunConfig, d_model: int, store: ActivationStore | None, workdir: Path
) -> dict[str, Part]:
    encode = config.encode
    trained = int(config.train_sae is not None)
    num_saes = trained + len(config.saes)
    control = encode.random_sae and num_saes > 0
    names = encode.datasets or datasets.names(encode.source)
    rows = splits = probes = 0
    asked: set[tuple] = set()  # what tells this job's rows from others' in the same table
    refused: set[tuple] = set()  # of them, what the fit stage will not have beside its own
    keys = _keys(config, workdir)
    for name in names:
        dataset = datasets.load(name, encode.source)
        found = encoding.dataset_splits(encode, dataset)
        rows += len(dataset.texts) if found else 0
        splits += len(found)
        asked |= set(map(_address, found))
        if store is not None and keys:
            refused |= _made_otherwise(config, store, dataset, found, keys)
        probes += sum(fitting.num_probes(config.fit, s.regime, num_saes, control) for s in found)
    have = len(list((workdir / kept.FOLDER).glob("*/*.safetensors")))
    files = (num_saes + control) * len(names)
    left = max(0.0, 1 - have / files) if files else 0.0
    widths = [config.train_sae.d_sae] if config.train_sae is not None else []
    latents = sum(widths + [UNKNOWN_WIDTH] * len(config.saes)) * (1 + control / max(num_saes, 1))
    counted = asked - refused
    done = sum(address in counted for address, _, _ in keys)
    note = f"on {splits:,} splits of {len(names)} datasets"
    if refused:
        note += (
            f"; {fitting.FILE_NAME} holds results of {len(refused):,} of them that were made in another"
            " way, which the fit stage refuses"
        )
    return {
        "encode": Part(
            count=latents * left,
            work=left * 2.0 * rows * d_model * latents,
            note=f"of {rows:,} rows",
        ),
        "fit": Part(
            count=max(0, probes - done),
            work=max(0, probes - done),
            note=note,
        ),
    }


def _keys(config: running.RunConfig, workdir: Path) -> list[tuple[tuple, str, str]]:
    """Address of the split, features and fingerprint of each row that the table has of this site."""
    # A key is model, site, features, method, k, then the split's address, then the fingerprint.
    keys = table.done_keys(workdir / fitting.FILE_NAME)
    return [(key[5:10], key[2], key[10]) for key in keys if key[1] == config.site]


def _made_otherwise(
    config: running.RunConfig,
    store: ActivationStore,
    dataset: base.TextDataset,
    splits: Sequence[base.Split],
    keys: Sequence[tuple[tuple, str, str]],
) -> set[tuple]:
    """Addresses of the splits whose baselines have another fingerprint than this run would give them.

    Another SAE is not noticed here: its weights are not read for an estimate.
    """
    planner = Planner(config.fit, config.encode, store, base.Site.parse(config.site), {}, Path())
    marks = planner.baseline_fingerprints(dataset, splits)
    wanted = dict(zip(map(_address, splits), marks, strict=True))
    return {
        address
        for address, features, mark in keys
        if features == base.ACTIVATIONS and wanted.get(address, mark) != mark
    }


def _address(split: base.Split) -> tuple:
    """As `ResultRow.key` has it."""
    level = None if math.isnan(split.level) else round(split.level, 6)
    return split.dataset, split.regime, level, split.protocol, split.seed


def _store(*workdirs: Path) -> ActivationStore | None:
    """The first store that is there."""
    for workdir in workdirs:
        if (workdir / extraction.FOLDER / MANIFEST).exists():
            return ActivationStore.open(workdir / extraction.FOLDER)
    return None


def _width(config: running.RunConfig) -> int:
    return models.identify(config.extract.model, config.extract.dtype).d_model


def _product_gflops(size: int = 1024) -> float:
    """GFLOP/s of a float32 product of matrices, the best of a few."""
    x = jnp.ones((size, size), jnp.float32)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(x, x))
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        jax.block_until_ready(product(x, x))
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds) / 1e9


def _times(workdir: Path) -> Mapping[str, float]:
    return run_file.positive(_read(workdir / running.RECORD).get(run_file.TIMES))


def _rates(path: Path) -> dict[str, dict[str, float]]:
    """Work per second by kind of device and stage."""
    return {device: run_file.positive(rates) for device, rates in _read(path).items()}


def _read(path: Path) -> dict[str, Any]:
    """A JSON file's object; empty where it is not there or damaged, since it only informs."""
    try:
        found = boundary.read_json(path)
    except (OSError, boundary.FileError) as error:
        logging.debug("the estimate goes without %s: %s", path, error)
        return {}
    return found if isinstance(found, dict) else {}
