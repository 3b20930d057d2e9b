"""Probes of activations and latents: a job is one call of the probe engine."""

import dataclasses
import hashlib
import math
from collections.abc import Sequence

import numpy as np

from jaxprobe import base, regimes
from jaxprobe.base import Split
from jaxprobe.features.kept import DatasetLatents
from jaxprobe.jobs import COLUMN_METRICS, Evaluation, Job
from jaxprobe.methods import chosen
from jaxprobe.probes import PROBES, FittedProbe, Scores, grid
from jaxprobe.workspace import Workspace

KEPT = ("scores", "probes")
# Methods whose name in result rows is not their key in `PROBES`.
_KEYS = {"logistic_l2": "logistic"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Engine:
    """How the probe engine runs a job; call it as a job's `predict`.

    Attributes:
        dtype: Arithmetic of fits: `float64`, `float32`, or `auto`: float64 on CPUs.
        memory_gib: GiB that the probes of one compiled program may take together on a device.
        keep: Some of `KEPT`.
    """

    dtype: str = "auto"
    memory_gib: float = grid.MEMORY_GIB
    keep: tuple[str, ...] = ()

    def __call__(self, job: Job, workspace: Workspace) -> list[Evaluation]:
        """Fits and scores every split of the job with every arrow.

        Raises:
            ValueError: An arrow asks for the best k of features that are not ranked.
        """
        splits = [with_control(split, job.arrow.control) for split in job.splits]
        x_ND, columns, union_U = _features(job, workspace)
        counts = [arrow.k for arrow in job.arrows]
        if columns is None and any(counts):
            raise ValueError(
                f"`k` of an arrow on {job.arrow.features} must be 0, because only ranked latents have a best k,"
                f" got {max(counts)}; give the job `latents` and `ranking`, or leave k out"
            )
        method = probe_key(job.arrow.method)
        scores = grid.fit_grid(
            method,
            x_ND,
            splits,
            columns=columns,
            num_latents=() if columns is None else counts,
            metrics=(*COLUMN_METRICS, *job.metrics),
            keep_scores="scores" in self.keep,
            keep_probes="probes" in self.keep or chosen.wanted(job),
            # A host library decides about its own arithmetic and memory.
            **({} if PROBES[method].on_host else self._settings(workspace)),
        )
        if scores.probes is not None and columns is not None:
            scores = _of_the_sae(scores, job, workspace, union_U)
        found = _evaluations(method, scores, splits, len(counts), self.keep)
        return _with_chosen(found, job, workspace, scores) if chosen.wanted(job) else found

    def _settings(self, workspace: Workspace) -> dict:
        return {"dtype": workspace.fit_dtype(self.dtype), "memory_gib": self.memory_gib}


def probe_key(method: str) -> str:
    """The key in `PROBES` of a method, given its name in result rows."""
    return _KEYS.get(method, method)


def with_control(split: Split, control: str) -> Split:
    """The split as the control fits it: with shuffled labels, or unchanged."""
    if control != "shuffled_labels":
        return split
    y_N = shuffled_labels(split)
    folds = regimes.validation_folds(y_N, split.seed)
    return dataclasses.replace(split, y_train_N=y_N, folds=folds)


def shuffled_labels(split: Split) -> np.ndarray:
    """The control's labels: the split's own, shuffled independently of the texts."""
    address = f"{split.seed}/{split.dataset}/{split.regime}/{split.level}/{split.protocol}/shuffle"
    entropy = int.from_bytes(hashlib.sha256(address.encode()).digest()[:8], "little")
    return np.random.default_rng(entropy).permutation(split.y_train_N)


def _features(
    job: Job, workspace: Workspace
) -> tuple[np.ndarray, list[np.ndarray] | None, np.ndarray]:
    """Features of the dataset's rows; for latents also each split's columns, and the matrix's latents."""
    arrow = job.arrow
    if job.features:
        return workspace.features(job.dataset, job.features), None, np.zeros(0, int)
    if arrow.features == base.ACTIVATIONS:
        return workspace.activations(job.dataset, job.site, arrow.pooling), None, np.zeros(0, int)
    latents = _latents(job, workspace)
    table_PK = latents.random_PK if arrow.control == "random_latents" else latents.top_PK
    number = {id(split): p for p, split in enumerate(job.latents)}
    most = max(arrow.k for arrow in job.arrows)
    columns = [table_PK[number[id(split)]][:most] for split in job.splits]
    union_U = np.unique(np.concatenate(columns))
    own = [np.searchsorted(union_U, one) for one in columns]
    return latents.rows.dense(union_U), own, union_U


def _latents(job: Job, workspace: Workspace) -> DatasetLatents:
    return workspace.latents(*job.reads())


def _of_the_sae(scores: Scores, job: Job, workspace: Workspace, union_U: np.ndarray) -> Scores:
    """Scores whose fitted probes take all latents of the SAE, not only the columns that the job loads."""
    latent_U = _latents(job, workspace).latent_U[union_U]
    d_sae = workspace.sae(job.arrow.features, job.site).d_sae

    def whole(probe: FittedProbe | None) -> FittedProbe | None:
        if probe is None or probe.latents is None:
            return probe
        latents = latent_U[np.asarray(probe.latents)]
        return dataclasses.replace(probe, latents=latents, num_features=d_sae)

    probes = tuple(tuple(map(whole, of_split)) for of_split in scores.probes or ())
    return dataclasses.replace(scores, probes=probes)


def _with_chosen(
    found: list[Evaluation], job: Job, workspace: Workspace, scores: Scores
) -> list[Evaluation]:
    """Evaluations with the latents that the probes of one k weigh most."""
    latents, k = _latents(job, workspace), chosen.shown_k(job)
    for s, split in enumerate(job.splits):
        for a, arrow in enumerate(job.arrows):
            if arrow.k == k:
                at = s * len(job.arrows) + a
                told = chosen.chosen(job, split, _nested(scores.probes, (s, a)), latents)
                found[at] = dataclasses.replace(found[at], chosen=told)
    return found


def _evaluations(
    method: str, scores: Scores, splits: Sequence[Split], counts: int, keep: Sequence[str]
) -> list[Evaluation]:
    """The engine's scores, split by split and k by k."""
    shape = (len(splits), counts)
    fields = {
        name: np.asarray(getattr(scores, name)).reshape(shape)
        for name in ("valid_auroc", "best_value", "converged")
    }
    metrics = {name: np.asarray(v).reshape(*shape, -1) for name, v in scores.metrics.items()}
    has_c = method.startswith("logistic")
    return [
        Evaluation(
            valid_auroc=float(fields["valid_auroc"][at]),
            tests=tuple(
                {name: float(value[at][t]) for name, value in metrics.items()}
                for t in range(len(splits[at[0]].tests))
            ),
            best_value=float(fields["best_value"][at]) if has_c else math.nan,
            converged=bool(fields["converged"][at]),
            prediction=_nested(scores.predictions, at) if "scores" in keep else None,
            probe=_nested(scores.probes, at) if "probes" in keep else None,
        )
        for at in np.ndindex(*shape)
    ]


def _nested(kept: Sequence | None, at: tuple[int, ...]):
    """What was kept for a split and k; one entry per split where the features have no k."""
    one = (kept or ())[at[0]]
    return one[at[1]] if isinstance(one, tuple | list) else one
