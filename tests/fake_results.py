"""Seeded result rows and a run record that look like a real run's."""

import dataclasses
import math

import numpy as np

from jaxprobe import base, records, results, sealed
from jaxprobe.experiments.config import TrainSae
from jaxprobe.experiments.probing.config import Config, Encode, Fit
from jaxprobe.runs import plans
from jaxprobe.stages import report
from jaxprobe.workdir import Workdir

DATASETS = (
    *("5_hist_fig_ismale", "21_headline_istrump", "66_living-room", "87_glue_cola"),
    *(
        "94_ai_gen",
        "110_aimade_humangpt3",
        "131_temp_cat_Typical Time",
        "149_twt_emotion_happiness",
    ),
    *("161_agnews_0", "<script>alert('x')</script>"),
)
K = tuple(2**i for i in range(10))
SAE = "gemma3-270m-block12-4096"
WIDE_SAE = "gemma3-270m-block12-16384"
BASELINES = ("logistic", "pca", "knn", "xgboost", "mlp")
EXTENDED = ("logistic_standardised", "mean_difference", "lda", "ridge", "lat")
ALL_REGIMES = {
    "standard": (math.nan,),
    "scarcity": (2.0, 14.0, 103.0),
    "imbalance": (0.05, 0.5, 0.95),
    "label_noise": (0.0, 0.25),
    "covariate_shift": (math.nan,),
}
MODEL, SITE = "gemma3-270m-q4-k-m", "blocks.12.resid_post"


def rows(datasets=DATASETS, protocols=base.PROTOCOLS, regimes=None, seed=0, full=False):
    """Rows of a run: baseline, SAE, random SAE and shuffled labels, on every dataset.

    Args:
        datasets: Names.
        protocols: Some of `base.PROTOCOLS`.
        regimes: Levels by regime; `{"standard": (nan,)}` where None.
        seed: Of the scores.
        full: Whether to add the other baselines, a second SAE and further probes of its latents.
    """
    rng = np.random.default_rng(seed)
    made = []
    for place, dataset in enumerate(datasets):
        ceiling = 0.99 - 0.045 * (place % 10) * rng.uniform(0.6, 1)
        for regime, levels in (regimes or {"standard": (math.nan,)}).items():
            for level in levels:
                for protocol in protocols:
                    top = ceiling - (0.02 if protocol == "dedup" else 0)
                    if not math.isnan(level):
                        top -= 0.1 * abs(rng.normal())
                    where = {"dataset": dataset, "regime": regime, "level": level}
                    made += _case(rng, top, {**where, "protocol": protocol}, full)
    return made


def _case(rng, top, where, full):
    cells = [("activations", "logistic", 0, top)]
    for k in K:
        cells.append((SAE, "logistic_l1", k, top - 0.004 - 0.24 / k**0.6))
        cells.append(("random_sae", "logistic_l1", k, top - 0.04 - 0.35 / k**0.45))
    cells.append((SAE, "logistic_l1_random_latents", 128, top - 0.09))
    cells.append(("activations", "logistic_shuffled_labels", 0, 0.5))
    cells.append((SAE, "logistic_l1_shuffled_labels", 128, 0.5))
    if full:
        for place, method in enumerate((*BASELINES[1:], *EXTENDED)):
            cells.append(("activations", method, 0, top - 0.004 * (place + 1)))
        for k in (16, 128):
            cells.append((WIDE_SAE, "logistic_l1", k, top - 0.006 - 0.2 / k**0.6))
            cells.append((WIDE_SAE, "logistic_l2", k, top - 0.01 - 0.2 / k**0.6))
            cells.append((SAE, "logistic_l1_saga", k, top - 0.02 - 0.2 / k**0.6))
            cells.append((SAE, "best_latents", k, top - 0.05))
    made = []
    for features, method, k, level in cells:
        test = float(np.clip(level + rng.normal(0, 0.012), 0.3, 1))
        valid = float(np.clip(np.round(test + rng.normal(0, 0.015), 3), 0, 1))
        row = base.ResultRow(
            **{"model": MODEL, "site": SITE, "features": features, "method": method, **where},
            num_latents=k,
            seed=42,
            num_train=1024,
            num_test=500,
            best_c=0.1,
            valid_auroc=valid,
            test_auroc=test,
            test_f1=test - 0.1,
            test_accuracy=test - 0.1,
            converged=bool(rng.uniform() > 0.02),
            fingerprint="0f3a",
        )
        made.append(row)
    return made


def config():
    """The config of the job that the rows look like."""
    return Config(
        site=SITE,
        fit=Fit(baselines=BASELINES, num_latents=K),
        train_sae=TrainSae(train=True),
        encode=Encode(protocols=("paper", "dedup")),
    )


def run_record(**more):
    """What a run keeps of itself, as the product makes it."""
    tokens = {"variance_explained": 0.8123, "l0": 61.7, "dead": 0.0518, "num_tokens": 20480}
    return records.make(
        dataclasses.asdict(config()),
        **{
            "seeds": {"splits": 42, "train_sae": 0},
            "fingerprints": {"activations": {"model": "a5fd3b62", "site": "<b>not markup</b>"}},
            "sae_quality": {SAE: {"all_tokens": tokens, "last_tokens": tokens}},
            **more,
        },
    )


LEAKS = {
    name: {"rows": 1000, "prompts under both labels": i % 3, "leak rate": 0.09 * i}
    for i, name in enumerate(DATASETS)
}


def keep(root, rows, record=None, asked=None, **more):
    """Writes rows and what made them into a work directory, as the fit stage does.

    Args:
        root: The directory.
        rows: Result rows.
        record: Of the run; `run_record` where None.
        asked: The job's config as a mapping; that of `config` where None.
        **more: Further fields of `results.Scored`.
    """
    work = Workdir.parse(root)
    root.mkdir(parents=True, exist_ok=True)
    key = records.keep(work, record or run_record())
    about = {"record": key, **more.pop("about", {})}
    name = f"all-{key}.parquet"
    results.write_job(work.jobs / name, results.Scored(rows=rows, about=about, **more))
    facts = {"leaks": LEAKS}
    asked = asked or dataclasses.asdict(config())
    plans.write(work, asked, None, record=key, objects=[name], facts=facts)
    times = {"extract": 88.21, "train_sae": 131.0, "fit": 40.5}
    work.run_file.replace(sealed.to_json({"times": times}))
    return root


def reported(root, rows, **config):
    """Writes rows and what made them into a work directory and reports them.

    Returns:
        The directory, and the terminal's text.
    """
    keep(root, rows)
    return root, report.report(report.ReportConfig(**config), root)


def plain_quiver(rows, protocol, saes_first, whole=True):
    """The quiver of the standard regime in plain Python loops."""
    base, chosen, sae_chosen = [], [], 0
    for dataset in DATASETS:
        mine = {
            (row.features, row.method, row.num_latents): row
            for row in rows
            if row.dataset == dataset and row.protocol == protocol
        }
        baseline = mine["activations", "logistic", 0]
        saes = [mine[SAE, "logistic_l1", k] for k in (128, 16)]
        best = None
        for row in [*saes, baseline] if saes_first else [baseline, *saes]:
            if best is None or row.valid_auroc > best.valid_auroc:
                best = row
        base.append(baseline.test_auroc)
        chosen.append(best.test_auroc)
        sae_chosen += best is not baseline
    delta = [b - a for a, b in zip(base, chosen, strict=True)]
    if not whole:
        return delta
    n, mean = len(delta), sum(delta) / len(delta)
    se = math.sqrt(sum((d - mean) ** 2 for d in delta) / n) / math.sqrt(n)
    signs = [sum(d > 0 for d in delta), sum(d == 0 for d in delta), sum(d < 0 for d in delta)]
    return [n, sum(base) / n, sum(chosen) / n, mean, se, sae_chosen, *signs]


def plain_deltas(rows, protocol, saes_first):
    """Test AUROC with SAE arrows minus that of the baseline, per dataset."""
    return plain_quiver(rows, protocol, saes_first, whole=False)
