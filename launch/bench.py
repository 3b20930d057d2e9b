"""Speed and agreement: python launch/bench.py --suite=forward|encode|fit|all [--workdir=DIR].

Reads the work directory of a finished run (default: the quickstart's) and prints a table a suite.
Both sides of a comparison run in the same process, one after the other, on the same rows.

`--suite=select` needs no run and no --config, and is not part of `all`: it ranks the latents of a random
bfloat16 encoder for all splits of one dataset. Its sizes are flags; the default takes 11 GB.
"""

import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import app, flags
from job import config_and_workdir, finish
from overrides import parse_flags

from jaxprobe import base, checkpoints, datasets, models, regimes, selection, tokens
from jaxprobe.probes import grid
from jaxprobe.stages import encode, extract, latents, run
from jaxprobe.store import ActivationStore

_SUITE = flags.DEFINE_enum(
    "suite", "all", ["forward", "encode", "fit", "select", "all"], "What to measure."
)
_LATENTS = flags.DEFINE_integer("select_latents", 1 << 20, "select: latents of the encoder.", 1)
_ROWS = flags.DEFINE_integer("select_rows", 5000, "select: rows of the dataset.", 200)
_WIDTH = flags.DEFINE_integer("select_width", 3584, "select: width of the activations.", 1)
_L0 = flags.DEFINE_float("select_l0", 200, "select: mean number of active latents per row.", 0)
_RANKING = flags.DEFINE_enum("select_ranking", "normalised", selection.RANKINGS, "select: ranking.")


def main(argv: list[str]) -> None:
    """Runs the suites asked for."""
    if _SUITE.value == "select":
        print(f"select: {run.device()}")
        return finish(select_suite)
    config, workdir = config_and_workdir(argv)
    suites = {"forward": forward_suite, "encode": encode_suite, "fit": fit_suite}
    for name, suite in suites.items():
        if _SUITE.value in (name, "all"):
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


def select_suite() -> None:
    """Ranking for all splits, and encoding what they keep, against the encoder's product alone."""
    num_rows, width, d_sae = _ROWS.value, _WIDTH.value, _LATENTS.value
    x_ND = np.random.default_rng(0).normal(size=(num_rows, width)).astype(np.float32)
    sae = random_encoder(width, d_sae, _L0.value)
    splits = random_splits(num_rows)
    weights = selection.class_weights(num_rows, [(s.train_N, s.y_train_N) for s in splits])
    block = min(selection.block_size(num_rows), d_sae)
    product = jax.jit(block_product, static_argnames="size")
    x_device = jax.numpy.asarray(x_ND)
    samples = range(0, d_sae - block + 1, block * max(1, d_sae // block // 16))
    seconds = [
        timed(lambda s=s: product(x_device, sae.W_enc_DS, s, size=block), repeats=1)[2]
        for s in samples
    ]
    alone = statistics.mean(seconds) * d_sae / block
    start = time.perf_counter()
    encode_block = encode.block_encoder(sae, x_ND)
    top = selection.top_latents(encode_block, d_sae, weights, 512, _RANKING.value)
    ranked = time.perf_counter() - start
    latent_U = np.unique(top.index_PK)
    kept = latents.Columns.of(encode.kept_columns(sae, x_ND, latent_U), num_rows)
    both = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    encode_flops = 2 * num_rows * width * d_sae
    rank_flops = 2 * (len(weights.pos_PN) + 2 * len(weights.train_TN)) * num_rows * d_sae
    print(
        f"  {d_sae:,} latents, {num_rows:,} rows of {width:,}, {len(splits)} splits on"
        f" {len(weights.train_TN)} sets of rows, ranking {_RANKING.value},"
        f" {top.fires_TS.mean():.1%} of latents fire on a set\n"
        f"  floor: {encode_flops / 1e12:.2f} TFLOP to encode, {rank_flops / 1e12:.2f} to rank,"
        f" {sae.W_enc_DS.nbytes / 2**30:.2f} GiB of weights\n"
        f"  product alone {alone:.1f} s (from {len(seconds)} of {d_sae // block} blocks,"
        f" {encode_flops / alone / 1e9:.0f} GFLOP/s)\n"
        f"  selection {ranked:.1f} s, ratio {ranked / alone:.2f}; with {len(latent_U):,} kept columns"
        f" ({len(kept.value_E):,} entries) {both:.1f} s, ratio {both / alone:.2f}\n"
        f"  peak memory {peak / 2**30:.2f} GiB, {(peak - sae.W_enc_DS.nbytes) / 2**30:.2f} beyond the weights"
    )


def block_product(x_ND, W_enc_DS, start, size):
    """The encoder's product for a block of latents."""
    w_DB = jax.lax.dynamic_slice_in_dim(W_enc_DS, start, size, axis=1)
    return x_ND @ w_DB.astype(jax.numpy.float32)


def random_splits(num_rows: int) -> list[base.Split]:
    """The splits of all five regimes of a balanced dataset, protocol paper."""
    data = base.TextDataset(
        name="random",
        texts=tuple(map(str, range(num_rows))),
        y_N=np.arange(num_rows, dtype=np.int32) % 2,
        label_names=("0", "1"),
        source="none",
    )
    moved = {regime: data if regime == "covariate_shift" else None for regime in base.REGIMES}
    return [
        s
        for regime, shifted in moved.items()
        for s in regimes.splits(data, regime, shifted=shifted)
    ]


def random_encoder(width: int, d_sae: int, l0: float) -> checkpoints.JumpReluSae:
    """bfloat16 weights, made in place a block at a time, and the threshold that gives this L0."""
    write = jax.jit(
        lambda w_DS, key, start, size: jax.lax.dynamic_update_slice_in_dim(
            w_DS, jax.random.normal(key, (width, size), jax.numpy.bfloat16), start, axis=1
        ),
        donate_argnums=0,
        static_argnums=3,
    )
    w_DS = jax.numpy.zeros((width, d_sae), jax.numpy.bfloat16)
    for start in range(0, d_sae, 4096):
        key = jax.random.fold_in(jax.random.key(0), start)
        w_DS = jax.block_until_ready(write(w_DS, key, start, min(4096, d_sae - start)))
    rare = statistics.NormalDist(sigma=width**0.5).inv_cdf(1 - min(max(l0 / d_sae, 1e-9), 0.5))
    return checkpoints.JumpReluSae(
        W_enc_DS=w_DS,
        b_enc_S=jax.numpy.zeros(d_sae),
        W_dec_SD=jax.numpy.zeros((d_sae, 0)),  # selection reads no decoder
        b_dec_D=jax.numpy.zeros(0),
        threshold_S=jax.numpy.full(d_sae, rare, jax.numpy.float32),
    )


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
        kept = encode.read(encode.latents_path(workdir, sae.id, name), identity)
        z_NK = kept.rows.dense(kept.top_PK[0])
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
