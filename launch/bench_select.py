"""The suite `select` of bench.py: all latents of a random bfloat16 encoder ranked for all splits."""

import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from jaxprobe import base, checkpoints, regimes, selection
from jaxprobe.stages import encode, latents

_LATENTS = flags.DEFINE_integer("select_latents", 1 << 20, "select: latents of the encoder.", 1)
_ROWS = flags.DEFINE_integer("select_rows", 5000, "select: rows of the dataset.", 200)
_WIDTH = flags.DEFINE_integer("select_width", 3584, "select: width of the activations.", 1)
_L0 = flags.DEFINE_float("select_l0", 200, "select: mean number of active latents per row.", 0)
_RANKING = flags.DEFINE_enum("select_ranking", "normalised", selection.RANKINGS, "select: ranking.")


def select_suite() -> None:
    """Ranking for all splits, and encoding what they keep, against the encoder's product alone."""
    num_rows, width, d_sae = _ROWS.value, _WIDTH.value, _LATENTS.value
    x_ND = np.random.default_rng(0).normal(size=(num_rows, width)).astype(np.float32)
    sae = random_encoder(width, d_sae, _L0.value)
    splits = random_splits(num_rows)
    weights = selection.class_weights(num_rows, [(s.train_N, s.y_train_N) for s in splits])
    block = min(selection.block_size(num_rows), d_sae)
    product = jax.jit(block_product, static_argnames="size")
    x_device = jnp.asarray(x_ND)
    samples = range(0, d_sae - block + 1, block * max(1, d_sae // block // 16))
    jax.block_until_ready(product(x_device, sae.W_enc_DS, 0, size=block))
    seconds = [
        _seconds(lambda s=s: product(x_device, sae.W_enc_DS, s, size=block)) for s in samples
    ]
    alone = statistics.mean(seconds) * d_sae / block
    start = time.perf_counter()
    encoder = encode.prepare(sae, x_ND)
    top = selection.top_latents(encoder, d_sae, weights, 512, _RANKING.value)
    ranked = time.perf_counter() - start
    latent_U = np.unique(top.index_PK)
    kept = latents.Columns.of(encode.kept_columns(encoder, num_rows, latent_U), num_rows)
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
    return x_ND @ w_DB.astype(jnp.float32)


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
            w_DS, jax.random.normal(key, (width, size), jnp.bfloat16), start, axis=1
        ),
        donate_argnums=0,
        static_argnums=3,
    )
    w_DS = jnp.zeros((width, d_sae), jnp.bfloat16)
    for start in range(0, d_sae, 4096):
        key = jax.random.fold_in(jax.random.key(0), start)
        w_DS = jax.block_until_ready(write(w_DS, key, start, min(4096, d_sae - start)))
    rare = statistics.NormalDist(sigma=width**0.5).inv_cdf(1 - min(max(l0 / d_sae, 1e-9), 0.5))
    return checkpoints.JumpReluSae(
        W_enc_DS=w_DS,
        b_enc_S=jnp.zeros(d_sae),
        W_dec_SD=jnp.zeros((d_sae, 0)),  # selection reads no decoder
        b_dec_D=jnp.zeros(0),
        threshold_S=jnp.full(d_sae, rare, jnp.float32),
    )


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start
