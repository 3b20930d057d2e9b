"""The calls of the probe engine that a dataset needs, and the result rows that each yields."""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxprobe import base, regimes
from jaxprobe.checkpoints import LoadedSae
from jaxprobe.probes import PROBES, Scores, grid
from jaxprobe.stages import encode as encoding
from jaxprobe.stages import latents as kept
from jaxprobe.stages.arrows import Arrow, FitConfig, arrows
from jaxprobe.store import ActivationStore

VERSION = 3  # raised when a change to the code changes results
_NUMBERS = ("valid_auroc", "test_auroc", "test_f1", "test_accuracy", "best_value")  # of a row
SPLITS_AT_ONCE = 16  # of one call of the engine: what a progress bar waits for


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One call of the probe engine, and the rows that it yields.

    Attributes:
        features: As in result rows.
        arrow: The method.
        splits: What it is fitted on.
        rows: Makes result rows, by split and then by k, from scores; without scores, rows that only
            name the probes.
        run: Fits and scores.
    """

    features: str
    arrow: Arrow
    splits: tuple[base.Split, ...]
    rows: Callable[[Scores | None], list[base.ResultRow]]
    run: Callable[[], Scores]


class Planner:
    """Lists the jobs of a dataset."""

    def __init__(self, config, encode_config, store, site, saes, workdir: Path):
        """Remembers what all datasets share; see `fit.fit` for the arguments."""
        self.config: FitConfig = config
        self.encode_config: encoding.EncodeConfig = encode_config
        self.store: ActivationStore = store
        self.site: base.Site = site
        self.saes: Mapping[str, LoadedSae] = saes
        self.workdir = workdir
        self._weights = {name: encoding.weights_digest(sae) for name, sae in saes.items()}

    def jobs(self, dataset: base.TextDataset, name: str) -> Iterator[Job]:
        """Every job of a dataset: baselines, SAE probes, controls.

        Features are read from disk only when a job runs.
        """
        read = _Features(self, dataset, name)
        numbered = list(enumerate(encoding.dataset_splits(self.encode_config, dataset)))
        for standard in (True, False):
            of_kind = [(p, s) for p, s in numbered if (s.regime == "standard") == standard]
            for start in range(0, len(of_kind), SPLITS_AT_ONCE):
                part = of_kind[start : start + SPLITS_AT_ONCE]
                for arrow in arrows(self.config, standard, self.config.controls):
                    for features in self._read_by(arrow):
                        yield self._job(arrow, features, part, read)

    def baseline_fingerprints(
        self, dataset: base.TextDataset, splits: Sequence[base.Split]
    ) -> list[str]:
        """Per split, the fingerprint of its rows on activations."""
        digests = _Features(self, dataset, dataset.name).digests(splits)
        return [
            self.fingerprint(digest, None, split.protocol)
            for digest, split in zip(digests, splits, strict=True)
        ]

    def missing(self, dataset: base.TextDataset, name: str, done: set[tuple]) -> list[Job]:
        """The jobs of a dataset, cut down to the splits of which some row is not in the table."""
        found = []
        for job in self.jobs(dataset, name):
            keys = [row.key() for row in job.rows(None)]
            width = len(job.arrow.counts)
            lacking = [
                s
                for s in range(len(job.splits))
                if any(key not in done for key in keys[s * width : (s + 1) * width])
            ]
            if lacking:
                counts = tuple(
                    count
                    for c, count in enumerate(job.arrow.counts)
                    if any(keys[s * width + c] not in done for s in lacking)
                )
                found.append(self._narrowed(job, lacking, counts, dataset, name))
        return found

    def _narrowed(self, job: Job, lacking, counts, dataset, name: str) -> Job:
        if len(lacking) == len(job.splits) and counts == job.arrow.counts:
            return job
        splits = encoding.dataset_splits(self.encode_config, dataset)
        number = {_address(split): p for p, split in enumerate(splits)}
        part = [(number[_address(job.splits[s])], job.splits[s]) for s in lacking]
        arrow = dataclasses.replace(job.arrow, counts=counts)
        return self._job(arrow, job.features, part, _Features(self, dataset, name))

    def _read_by(self, arrow: Arrow) -> Sequence[str]:
        """The `features` that a method is fitted on."""
        if not arrow.on_latents:
            return (base.ACTIVATIONS,)
        plain = [name for name in self.saes if name != encoding.RANDOM_SAE]
        twins = self.config.controls and encoding.RANDOM_SAE in self.saes
        plainly = arrows(self.config, False, False)
        first = next((other.method for other in plainly if other.on_latents), None)
        if twins and arrow.method == first and not arrow.control:
            return (*plain, encoding.RANDOM_SAE)
        return plain

    def _job(self, arrow: Arrow, features: str, part, read: "_Features") -> Job:
        if features == encoding.RANDOM_SAE:
            arrow = dataclasses.replace(arrow, counts=self.config.regime_num_latents)
        splits = tuple(_with_control(split, arrow.control) for _, split in part)
        numbers = [p for p, _ in part]

        def run() -> Scores:
            x_ND, columns = read(features, arrow, numbers)
            probe = PROBES[arrow.probe]
            is_host = probe.on_host  # a library's, which brings its own arithmetic
            return grid.fit_grid(
                probe,
                x_ND,
                splits,
                columns=columns,
                num_latents=() if columns is None else arrow.counts,
                dtype="auto" if is_host else self.config.dtype,
                memory_gib=grid.MEMORY_GIB if is_host else self.config.memory_gib,
            )

        rows = functools.partial(self._rows, arrow, features, splits, read.digests(splits))
        return Job(features=features, arrow=arrow, splits=splits, rows=rows, run=run)

    def _rows(self, arrow: Arrow, features: str, splits, digests, scores: Scores | None):
        return [
            self._row(arrow, features, split, digest, scores, s, c)
            for s, (split, digest) in enumerate(zip(splits, digests, strict=True))
            for c in range(len(arrow.counts))
        ]

    def _row(self, arrow, features, split, digest, scores, s: int, c: int) -> base.ResultRow:
        # Rounded, so that equal AUROCs summed in another order still tie.
        at = s * len(arrow.counts) + c
        got = dict.fromkeys(_NUMBERS, math.nan)
        if scores is not None:
            got = {name: round(float(np.ravel(getattr(scores, name))[at]), 12) for name in _NUMBERS}
        return base.ResultRow(
            model=str(self.store.fingerprint["model"]),
            site=str(self.site),
            features=features,
            method=arrow.method,
            num_latents=arrow.counts[c],
            dataset=split.dataset,
            regime=split.regime,
            level=split.level,
            protocol=split.protocol,
            seed=split.seed,
            num_train=len(split.train_N),
            num_test=len(split.test_N),
            valid_auroc=got["valid_auroc"],
            test_auroc=got["test_auroc"],
            test_f1=got["test_f1"],
            test_accuracy=got["test_accuracy"],
            best_c=got["best_value"] if arrow.probe.startswith("logistic") else math.nan,
            converged=scores is not None and bool(np.ravel(scores.converged)[at]),
            fingerprint=self.fingerprint(
                digest, None if not arrow.on_latents else features, split.protocol
            ),
        )

    def fingerprint(self, digest: str, sae: str | None, protocol: str) -> str:
        """Twelve hex digits of everything that decides a row's numbers and is not a column."""
        parts = {
            "version": VERSION,
            "store": self.store.digest,
            "dataset": digest,
            "dtype": grid.resolve_dtype(self.config.dtype),
        }
        if protocol == "dedup" and self.encode_config.dedup_by != "exact":
            parts["dedup_by"] = self.encode_config.dedup_by
        if sae is not None:
            parts |= {"sae": self._weights[sae], "ranking": self.encode_config.ranking}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


class _Features:
    """What the probes of one dataset read, from disk, once each."""

    def __init__(self, plan: Planner, dataset: base.TextDataset, name: str):
        self._plan, self._dataset, self._name = plan, dataset, name
        self._shifted = encoding.shifted_set(plan.encode_config, dataset)
        self._digest = encoding.dataset_digest(dataset)

    def __call__(self, features: str, arrow: Arrow, numbers):
        """Features of the dataset's rows, then of the shifted set's, and the columns of each split."""
        if not arrow.on_latents:
            return self._activations, None
        latents = self._latents(features)
        table_PK = latents.random_PK if arrow.control == "random_latents" else latents.top_PK
        columns = [table_PK[p][: max(arrow.counts)] for p in numbers]
        union_U = np.unique(np.concatenate(columns))
        z_NU = latents.rows.dense(union_U)
        if self._shifted:
            z_NU = np.concatenate([z_NU, latents.shifted.dense(union_U)])
        return z_NU, [np.searchsorted(union_U, column_K) for column_K in columns]

    def digests(self, splits: Sequence[base.Split]) -> list[str]:
        """Per split, a digest of the texts and labels that its rows stand for."""
        shifted = encoding.dataset_digest(self._shifted) if self._shifted else ""
        return [
            self._digest + (shifted if split.regime == "covariate_shift" else "")
            for split in splits
        ]

    @functools.cached_property
    def _activations(self) -> np.ndarray:
        shifted = self._shifted.texts if self._shifted else ()
        return self._plan.store.read(self._plan.site, (*self._dataset.texts, *shifted))

    @functools.lru_cache(maxsize=4)  # noqa: B019 (an instance lives as long as its dataset's jobs)
    def _latents(self, sae_id: str) -> kept.DatasetLatents:
        plan = self._plan
        path = kept.latents_path(plan.workdir, sae_id, self._name)
        sae = plan.saes[sae_id]
        identity = encoding.latents_identity(plan.encode_config, plan.store, sae, self._dataset)
        return kept.read(path, identity)


def shuffled_labels(split: base.Split) -> np.ndarray:
    """The control's labels: the split's own in an order that has nothing to do with the texts."""
    address = f"{split.seed}/{split.dataset}/{split.regime}/{split.level}/{split.protocol}/shuffle"
    entropy = int.from_bytes(hashlib.sha256(address.encode()).digest()[:8], "little")
    return np.random.default_rng(entropy).permutation(split.y_train_N)


def _with_control(split: base.Split, control: str) -> base.Split:
    if control != "shuffled_labels":
        return split
    y_N = shuffled_labels(split)
    folds = regimes.validation_folds(y_N, split.seed)
    return dataclasses.replace(split, y_train_N=y_N, folds=folds)


def _address(split: base.Split) -> tuple:
    level = None if math.isnan(split.level) else split.level
    return split.regime, level, split.protocol
