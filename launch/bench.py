"""Speed, agreement, memory: python launch/bench.py --suite=forward|encode|fit|load|memory|all [--workdir=DIR].

Reads the work directory of a finished run (default: the quickstart's) and prints a table a suite.
Both sides of a comparison run in the same process, one after the other, on the same rows. `load` writes a
checkpoint of 4 GB first; it and `memory` need no finished run and are not part of `all`.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import app, flags
from benchmarks import models as big_models
from job import config_and_workdir, finish
from overrides import parse_flags

from jaxprobe import base, checkpoints, datasets, models, regimes, tokens
from jaxprobe.probes import grid
from jaxprobe.stages import encode, extract, run
from jaxprobe.store import ActivationStore

_SUITE = flags.DEFINE_enum(
    "suite", "all", ["forward", "encode", "fit", "load", "memory", "all"], "What to measure."
)


def main(argv: list[str]) -> None:
    """Runs the suites asked for."""
    config, workdir = config_and_workdir(argv)
    suites = {"forward": forward_suite, "encode": encode_suite, "fit": fit_suite}
    alone = {"load": big_models.load_suite, "memory": big_models.memory_suite}
    for name, suite in (suites | alone).items():
        if _SUITE.value == name or (_SUITE.value == "all" and name in suites):
            print(f"\n{name}: {run.device()}")
            finish(lambda suite=suite: suite(config, workdir))


def timed(work: Callable[[], Any], repeats: int = 3) -> tuple[Any, float, float]:
    """The result, the first call's seconds (compiling) and the median of the others."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        result = jax.block_until_ready(work())
        seconds.append(time.perf_counter() - start)
    return result, seconds[0], float(np.median(seconds[1:]))


def forward_suite(config: run.RunConfig, workdir) -> None:
    """Real tokens per second to the run's site, both number formats, on its own prompts."""
    del workdir
    site = base.Site.parse(config.site)
    texts = sorted({t for name in config.encode.datasets[:4] for t in datasets.load(name).texts})
    for dtype in ("bfloat16", "float32"):
        model = models.load_model(config.extract.model, dtype)
        ids = tokens.token_ids(model.tokenizer, texts[:2000], config.extract.max_length)
        plan = list(tokens.batches(ids, pad_id=model.tokenizer.pad_id))
        forward = models.make_forward(model, [site])

        def work(forward=forward, plan=plan):
            return [forward(batch.tokens_BT, batch.length_B) for batch in plan]

        _, first, rest = timed(work, repeats=1)
        real = sum(int(batch.length_B.sum()) for batch in plan)
        padded = sum(batch.tokens_BT.size for batch in plan)
        print(
            f"  {dtype}: {real / rest:,.0f} tokens/s ({real:,} tokens, {padded / real - 1:.0%} padding,"
            f" {forward.num_compiled()} programs, compiling {first - rest:.0f} s)"
        )


def encode_suite(config: run.RunConfig, workdir) -> None:
    """SAE encoding of 5,000 rows into 16,384 latents against the matrix product alone."""
    rng = np.random.default_rng(0)
    x_ND = jax.device_put(rng.normal(size=(5000, 640)).astype(np.float32))
    w_DS = jax.device_put(rng.normal(size=(640, 16384)).astype(np.float32) / 25)
    zero_S = jax.numpy.zeros(16384)
    sae = checkpoints.JumpReluSae(
        W_enc_DS=w_DS, b_enc_S=zero_S, W_dec_SD=w_DS.T, b_dec_D=x_ND[0] * 0, threshold_S=zero_S + 2
    )
    _, _, ours = timed(lambda: jax.jit(checkpoints.encode)(sae, x_ND))
    _, _, floor = timed(lambda: jax.jit(jax.numpy.matmul)(x_ND, w_DS))
    print(f"  encode {ours:.3f} s, product alone {floor:.3f} s, ratio {ours / floor:.2f}")


def fit_suite(config: run.RunConfig, workdir) -> None:
    """Probes of the standard split against scikit-learn's converged solvers on the same rows."""
    store = ActivationStore.open(workdir / extract.FOLDER)
    site = base.Site.parse(config.site)
    sae = run.load_saes(config, workdir)[0]
    if sae is None:
        raise ValueError("the fit suite needs a config with a `train_sae` section")
    print(
        "  dataset                        work  ours s  sklearn s  ratio  AUROC ours  sklearn   C ours  sklearn"
    )
    gaps: dict[str, list[float]] = {}
    for name in config.encode.datasets:
        dataset = datasets.load(name, config.encode.source)
        split = regimes.splits(dataset, seed=config.encode.seed)[0]
        x_ND = store.read(site, dataset.texts)
        identity = encode.latents_identity(config.encode, store, sae, dataset)
        latents = encode.read(encode.latents_path(workdir, sae.id, name), identity)
        z_NK = latents.z_NU[:, latents.top_PK[0]]
        problem = grid.problem(split)
        for work, features, ours in (
            ("L2", x_ND, lambda x=x_ND, p=problem: grid.fit_activations(x, x, p)),
            *(
                (
                    f"L1 {k}",
                    z_NK[:, :k],
                    lambda z=z_NK, p=problem, k=k: grid.fit_latents(z, z, p, (k,)),
                )
                for k in (16, 128, 512)
            ),
        ):
            scores, _, seconds = timed(ours, repeats=1)
            auroc, best_c, theirs = reference(features, split, work[:2])
            got, got_c = np.ravel(scores.test_auroc)[0], np.ravel(scores.best_c)[0]
            gaps.setdefault(work, []).append(abs(got - auroc))
            print(
                f"  {name:30} {work:6} {seconds:6.2f} {theirs:10.2f} {theirs / seconds:6.1f}"
                f" {got:11.4f} {auroc:8.4f} {got_c:8.0e} {best_c:8.0e}"
            )
    for work, values in gaps.items():
        print(f"  {work}: mean |AUROC difference| {np.mean(values):.5f}, largest {max(values):.5f}")


def reference(x_ND, split: base.Split, work: str) -> tuple[float, float, float]:
    """Test AUROC, chosen C and seconds of a loop over scikit-learn's converged solvers."""
    import warnings

    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    warnings.simplefilter("ignore")
    kind: dict[str, Any] = {"solver": "newton-cholesky", "max_iter": 1000, "tol": 1e-6}
    if work == "L1":
        kind = {"solver": "liblinear", "l1_ratio": 1, "max_iter": 1000, "tol": 1e-4}
        kind["intercept_scaling"] = float(np.abs(x_ND).max())
    x_ND, y_N = x_ND.astype(np.float64), split.y_train_N

    def score(rows, c, test_N, y_test_N):
        model = LogisticRegression(C=c, **kind).fit(x_ND[split.train_N[rows]], y_N[rows])
        return float(roc_auc_score(y_test_N, model.decision_function(x_ND[test_N])))

    start = time.perf_counter()
    c_R = grid.C_GRID[::-1]
    valid_R = [
        np.mean([score(f.train, c, split.train_N[f.valid], y_N[f.valid]) for f in split.folds])
        for c in c_R
    ]
    best_c = float(c_R[int(np.argmax(valid_R))])
    auroc = score(np.arange(len(y_N)), best_c, split.test_N, split.y_test_N)
    return auroc, best_c, time.perf_counter() - start


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
