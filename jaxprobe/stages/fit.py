"""Activations and latents to result rows: every probe of every split, resuming by row."""

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from jaxprobe import base, checks, datasets, table
from jaxprobe.checkpoints import LoadedSae
from jaxprobe.probes import grid
from jaxprobe.stages import encode as encoding
from jaxprobe.store import ActivationStore

FILE_NAME = "results.parquet"
VERSION = 1  # raised when a change to the code changes results


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Which probes to fit.

    Attributes:
        num_latents: Values of k in the standard regime.
        regime_num_latents: Values of k in the other regimes, and of the controls.
        penalties: Of SAE probes: `l1`, `l2`.
        controls: Whether to fit shuffled labels, random latents and the random SAE.
        solver: `converged`: every fit runs to its optimum.
        dtype: Arithmetic of fits: `float64`, `float32`, or `auto`: float64 on CPUs.
        workers: Jobs at once; on two cores one is as fast, XLA uses both.
    """

    num_latents: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    regime_num_latents: tuple[int, ...] = (16, 128)
    penalties: tuple[str, ...] = ("l1",)
    controls: bool = True
    solver: str = "converged"
    dtype: str = "auto"
    workers: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One call of the probe engine: a split, what it reads, and the rows it yields.

    Attributes:
        split: The split.
        features, method, num_latents: As in result rows; one row per entry of `num_latents`.
        fingerprint: As in result rows.
        run: Fits and scores.
    """

    split: base.Split
    features: str
    method: str
    num_latents: tuple[int, ...]
    fingerprint: str
    run: Callable[[], grid.Scores]


def fit(
    config: FitConfig,
    encode_config: encoding.EncodeConfig,
    store: ActivationStore,
    site: base.Site,
    saes: Mapping[str, LoadedSae],
    workdir: Path | str,
) -> int:
    """Fits what `results.parquet` lacks, a dataset at a time.

    Args:
        config: Which probes.
        encode_config: The datasets and splits, as the encode stage saw them.
        store: Last-token activations.
        site: Where baselines read.
        saes: SAEs by id, as the encode stage returns them.
        workdir: Holds `latents` and receives `results.parquet`.

    Returns:
        The number of rows added.

    Raises:
        TableError: The file holds results of the same probes made in another way.
        ValueError: A config that cannot work, an SAE that reads another site, or latents that the
            encode stage made in another way.
    """
    check_config(config, encode_config)
    _check_sites(site, saes)
    path = Path(workdir) / FILE_NAME
    done = table.done_keys(path)
    names = encode_config.datasets or datasets.names(encode_config.source)
    plan = Planner(config, encode_config, store, site, saes, Path(workdir))
    added = 0
    with tqdm(total=_count(plan, names, done, path), desc="fit", unit="probe") as bar:
        for name in names:
            bar.set_postfix_str(name)
            todo = plan.missing(datasets.load(name, encode_config.source), name, done)
            rows = _run_all(plan, todo, config.workers, bar)
            added += table.append(path, [row for row in rows if row.key() not in done])
    return added


def check_config(config: FitConfig, encode_config: encoding.EncodeConfig) -> None:
    """Raises ValueError for a choice that does not exist, or more latents than are encoded."""
    checks.check_choice("solver", config.solver, ("converged",))
    checks.check_choice("dtype", config.dtype, ("auto", "float32", "float64"))
    checks.check_positive("workers", config.workers)
    for penalty in config.penalties:
        checks.check_choice("penalty", penalty, ("l1", "l2"))
    for name in ("num_latents", "regime_num_latents"):
        for count in getattr(config, name):
            if not 0 < count <= encode_config.max_latents:
                raise ValueError(
                    f"`{name}` must lie between 1 and encode.max_latents ="
                    f" {encode_config.max_latents}, got {count}; encode more, or ask for fewer"
                )
    most = max(config.regime_num_latents, default=0)
    if config.controls and most > encode_config.random_latents:
        raise ValueError(
            f"`regime_num_latents` asks the random-latents control for {most} latents, more than"
            f" encode.random_latents = {encode_config.random_latents}; encode more, or set"
            " fit.controls to False"
        )


def _count(plan: "Planner", names: Sequence[str], done: set[tuple], path: Path) -> int:
    """Probes to fit; refuses a table that holds the same probes made in another way."""
    fingerprints = {key[:-1]: key[-1] for key in done}
    total = 0
    for name in names:
        dataset = datasets.load(name, plan.encode_config.source)
        _check_same_way(path, list(plan.jobs(dataset, name)), fingerprints, plan)
        total += sum(len(job.num_latents) for job in plan.missing(dataset, name, done))
    return total


def _run_all(plan: "Planner", todo: list[Job], workers: int, bar: tqdm) -> list[base.ResultRow]:
    """Rows of all jobs, in order; jobs are small, so several at once use the cores best."""
    rows = []
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for job, scores in zip(todo, pool.map(lambda job: job.run(), todo), strict=True):
            rows += plan.rows(job, scores)
            bar.update(len(job.num_latents))
    return rows


class Planner:
    """Lists the jobs of a dataset and turns scores into rows."""

    def __init__(self, config, encode_config, store, site, saes, workdir: Path):
        """Remembers what all datasets share; see `fit` for the arguments."""
        self.config, self.encode_config, self.workdir = config, encode_config, workdir
        self.store, self.site, self.saes = store, site, saes
        self._weights = {name: encoding.weights_digest(sae) for name, sae in saes.items()}

    def jobs(self, dataset: base.TextDataset, name: str) -> Iterator[Job]:
        """Every job of a dataset: baselines, SAE probes, controls.

        Features are read from disk only when a job runs.
        """
        splits = encoding.dataset_splits(self.encode_config, dataset)
        digest = encoding.dataset_digest(dataset)
        x = functools.cache(lambda: self.store.read(self.site, dataset.texts))
        texts = functools.partial(encoding.test_texts, self.encode_config, dataset)
        latents = {
            sae_id: functools.cache(functools.partial(self._latents, sae_id, dataset, name))
            for sae_id in self.saes
        }
        for p, split in enumerate(splits):
            shifts = split.regime == "covariate_shift"
            x_test = (lambda s=split: self.store.read(self.site, texts(s))) if shifts else x
            content = digest + encoding.shifted_digest(self.encode_config, dataset) * shifts
            yield from self._activation_jobs(split, content, x, x_test)
            for sae_id, read in latents.items():
                yield from self._latent_jobs(split, p, sae_id, content, read)

    def missing(self, dataset: base.TextDataset, name: str, done: set[tuple]) -> list[Job]:
        """The jobs of a dataset of which some row is not in the table."""
        return [
            job
            for job in self.jobs(dataset, name)
            if any(row.key() not in done for row in self.rows(job, None))
        ]

    def rows(self, job: Job, scores: grid.Scores | None) -> list[base.ResultRow]:
        """Result rows of a job; without scores, rows that only name the probes."""
        rows = []
        for i, count in enumerate(job.num_latents):
            # Rounded, so that equal AUROCs summed in another order still tie.
            got = [math.nan] * 5
            if scores is not None:
                got = [round(float(np.ravel(field)[i]), 12) for field in scores[:5]]
            converged = scores is not None and bool(np.ravel(scores.converged)[i])
            rows.append(
                base.ResultRow(
                    model=str(self.store.fingerprint["model"]),
                    site=str(self.site),
                    features=job.features,
                    method=job.method,
                    num_latents=count,
                    dataset=job.split.dataset,
                    regime=job.split.regime,
                    level=job.split.level,
                    protocol=job.split.protocol,
                    seed=job.split.seed,
                    num_train=len(job.split.train_N),
                    num_test=len(job.split.test_N),
                    valid_auroc=got[0],
                    test_auroc=got[1],
                    test_f1=got[2],
                    test_accuracy=got[3],
                    best_c=got[4],
                    converged=converged,
                    fingerprint=job.fingerprint,
                )
            )
        return rows

    def _latents(self, sae_id: str, dataset, name: str) -> encoding.DatasetLatents:
        path = encoding.latents_path(self.workdir, sae_id, name)
        sae = self.saes[sae_id]
        identity = encoding.latents_identity(self.encode_config, self.store, sae, dataset)
        return encoding.read(path, identity)

    def _activation_jobs(self, split: base.Split, digest: str, x, x_test) -> Iterator[Job]:
        labels = {"logistic": None}
        if self.config.controls:
            labels["logistic_shuffled_labels"] = shuffled_labels(split)
        for method, y_N in labels.items():

            def run(y_N=y_N):
                problem = grid.problem(split, y_N)
                return grid.fit_activations(x(), x_test(), problem, self.config.dtype)

            yield Job(
                split=split,
                features=base.ACTIVATIONS,
                method=method,
                num_latents=(0,),
                fingerprint=self._fingerprint(digest),
                run=run,
            )

    def _latent_jobs(self, split, p: int, sae: str, digest: str, read) -> Iterator[Job]:
        standard = split.regime == "standard"
        full = self.config.num_latents if standard else self.config.regime_num_latents
        short = self.config.regime_num_latents
        if sae == encoding.RANDOM_SAE:
            if self.config.controls:
                yield self._latent_job(split, p, sae, digest, read, "logistic_l1", short)
            return
        for penalty in self.config.penalties:
            yield self._latent_job(split, p, sae, digest, read, f"logistic_{penalty}", full)
        if self.config.controls:
            for control in ("shuffled_labels", "random_latents"):
                method = f"logistic_l1_{control}"
                yield self._latent_job(split, p, sae, digest, read, method, short)

    def _latent_job(self, split, p, sae, digest, read, method: str, counts) -> Job:
        def run():
            latents = read()
            random = method.endswith("random_latents")
            columns_K = (latents.random_PK if random else latents.top_PK)[p]
            y_N = shuffled_labels(split) if method.endswith("shuffled_labels") else None
            z_NK, z_MK = latents.of_split(split, columns_K)
            problem = grid.problem(split, y_N)
            penalty = method.split("_")[1]
            return grid.fit_latents(z_NK, z_MK, problem, counts, penalty, self.config.dtype)

        return Job(
            split=split,
            features=sae,
            method=method,
            num_latents=tuple(counts),
            fingerprint=self._fingerprint(digest, sae),
            run=run,
        )

    def _fingerprint(self, digest: str, sae: str | None = None) -> str:
        """Twelve hex digits of everything that decides a row's numbers and is not a column."""
        parts = {
            "version": VERSION,
            "store": self.store.digest,
            "dataset": digest,
            "solver": self.config.solver,
            "dtype": grid.resolve_dtype(self.config.dtype),
        }
        if sae is not None:
            parts |= {"sae": self._weights[sae], "ranking": self.encode_config.ranking}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def num_probes(config: FitConfig, regime: str, num_saes: int, random_sae: bool) -> int:
    """Rows that a split yields: what `Planner.jobs` lists, counted without features."""
    counts = config.num_latents if regime == "standard" else config.regime_num_latents
    total = 1 + config.controls + num_saes * len(config.penalties) * len(counts)
    if config.controls:
        total += (2 * num_saes + random_sae) * len(config.regime_num_latents)
    return total


def shuffled_labels(split: base.Split) -> np.ndarray:
    """The control's labels: the split's own in an order that has nothing to do with the texts."""
    address = f"{split.seed}/{split.dataset}/{split.regime}/{split.level}/{split.protocol}/shuffle"
    entropy = int.from_bytes(hashlib.sha256(address.encode()).digest()[:8], "little")
    return np.random.default_rng(entropy).permutation(split.y_train_N)


def _check_sites(site: base.Site, saes: Mapping[str, LoadedSae]) -> None:
    for name, sae in saes.items():
        if sae.site != site:
            raise ValueError(
                f"SAE {name} reads {sae.site}, the baselines read {site}: set config.site to the"
                " SAE's, or leave the SAE out"
            )


def _check_same_way(
    path: Path, jobs: list[Job], fingerprints: Mapping[tuple, str], plan: Planner
) -> None:
    """Refuses to put results of the same probes, made in another way, beside each other."""
    for job in jobs:
        for row in plan.rows(job, None):
            *name, fingerprint = row.key()
            other = fingerprints.get(tuple(name), fingerprint)
            if other != fingerprint:
                raise table.TableError(
                    f"{path} holds {row.method} on {row.dataset} with fingerprint {other}, this run"
                    f" would make {fingerprint}: the activations, the SAE, the dataset or the"
                    " settings of the fit differ; use another work directory, or delete that file"
                )
