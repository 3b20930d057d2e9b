"""Activations and latents to `results.parquet`: every probe of every split, resuming by row."""

import concurrent.futures
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from jaxprobe import base, datasets, stopping, table
from jaxprobe.checkpoints import LoadedSae
from jaxprobe.stages import encode as encoding
from jaxprobe.stages.arrows import FitConfig as FitConfig
from jaxprobe.stages.arrows import check_config
from jaxprobe.stages.arrows import num_probes as num_probes
from jaxprobe.stages.probe_jobs import Job, Planner
from jaxprobe.stages.probe_jobs import shuffled_labels as shuffled_labels
from jaxprobe.store import ActivationStore

FILE_NAME = "results.parquet"
SAVE_SECONDS = 30.0  # so much work at most is lost when a run is killed


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
            added += _run_all(todo, config.workers, done, path, bar)
    return added


def _count(plan: Planner, names: Sequence[str], done: set[tuple], path: Path) -> int:
    """Probes to fit; refuses a table that holds the same probes made in another way."""
    fingerprints = {key[:-1]: key[-1] for key in done}
    total = 0
    for name in names:
        dataset = datasets.load(name, plan.encode_config.source)
        for job in plan.jobs(dataset, name):
            rows = job.rows(None)
            _check_same_way(path, rows, fingerprints)
            total += sum(row.key() not in done for row in rows)
    return total


def _run_all(todo: list[Job], workers: int, done: set[tuple], path: Path, bar: tqdm) -> int:
    """Runs jobs, a few at once, and appends their rows in order; those that ended are never lost."""
    added, rows, saved = 0, [], time.monotonic()
    pool = concurrent.futures.ThreadPoolExecutor(workers)
    try:
        for job, scores in zip(todo, pool.map(lambda job: job.run(), todo), strict=True):
            with stopping.held():
                fresh = [row for row in job.rows(scores) if row.key() not in done]
                rows += fresh
                bar.update(len(fresh))
                if time.monotonic() - saved > SAVE_SECONDS:
                    added += table.append(path, rows)
                    rows, saved = [], time.monotonic()
    finally:
        # Whatever ended the loop; a job under way in a thread is not waited for.
        pool.shutdown(wait=False, cancel_futures=True)
        with stopping.held():
            added += table.append(path, rows)
    return added


def _check_sites(site: base.Site, saes: Mapping[str, LoadedSae]) -> None:
    for name, sae in saes.items():
        if sae.site != site:
            raise ValueError(
                f"SAE {name} reads {sae.site}, the baselines read {site}: set config.site to the"
                " SAE's, or leave the SAE out"
            )


def _check_same_way(
    path: Path, rows: Sequence[base.ResultRow], fingerprints: Mapping[tuple, str]
) -> None:
    """Refuses to put results of the same probes, made in another way, beside each other."""
    for row in rows:
        *name, fingerprint = row.key()
        other = fingerprints.get(tuple(name), fingerprint)
        if other != fingerprint:
            raise table.TableError(
                f"{path} holds {row.method} on {row.dataset} with fingerprint {other}, this run"
                f" would make {fingerprint}: the activations, the SAE, the dataset or the"
                " settings of the fit differ; use another work directory, or delete that file"
            )
