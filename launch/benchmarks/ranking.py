"""The suite `select` of bench.py: all latents of a random bfloat16 encoder ranked for all splits."""

import resource
import statistics
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from jaxprobe import base, regimes, saes, selection
from jaxprobe.features import kept
from jaxprobe.features.ranked import kept_columns

_LATENTS = flags.DEFINE_integer("select_latents", 1 << 20, "select: latents of the encoder.", 1)
_ROWS = flags.DEFINE_integer("select_rows", 5000, "select: rows of the dataset.", 200)
_WIDTH = flags.DEFINE_integer("select_width", 3584, "select: width of the activations.", 1)
_L0 = flags.DEFINE_float("select_l0", 200, "select: mean number of active latents per row.", 0)
_RANKING = flags.DEFINE_enum("select_ranking", "normalised", selection.RANKINGS, "select: ranking.")


def select_suite() -> None:
    """Ranking for all splits and encoding the kept latents, against the encoder's matrix product alone."""
    num_rows, width, d_sae = _ROWS.value, _WIDTH.value, _LATENTS.value
    x_ND = np.random.default_rng(0).normal(size=(num_rows, width)).astype(np.float32)
    sae = random_encoder(width, d_sae, _L0.value)
    splits = random_splits(num_rows)
    weights = selection.class_weights(num_rows, [(s.train_N, s.y_train_N) for s in splits])
    block = min(selection.block_size(num_rows), d_sae)
    alone, num_sampled = _product_alone(x_ND, sae.W_enc_DS, block)
    print(f"  product alone {alone}, from {num_sampled} of {d_sae // block} blocks", flush=True)
    encoder, clock = saes.prepare(sae, x_ND), _Clock()
    top = selection.top_latents(encoder, d_sae, weights, 512, _RANKING.value)
    ranked = clock.read()
    latent_U = np.unique(top.index_PK)
    columns = kept.Columns.of(kept_columns(encoder, num_rows, latent_U), num_rows)
    both = clock.read()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    encode_flops = 2 * num_rows * width * d_sae
    rank_flops = 2 * (len(weights.pos_PN) + 2 * len(weights.train_TN)) * num_rows * d_sae
    print(
        f"  {d_sae:,} latents, {num_rows:,} rows of {width:,}, {len(splits)} splits on"
        f" {len(weights.train_TN)} sets of rows, ranking {_RANKING.value},"
        f" {top.fires_TS.mean():.1%} of latents fire on a set\n"
        f"  floor: {encode_flops / 1e12:.2f} TFLOP to encode, {rank_flops / 1e12:.2f} to rank,"
        f" {sae.W_enc_DS.nbytes / 2**30:.2f} GiB of weights\n"
        f"  selection {ranked}, {encode_flops / ranked.wall / 1e9:.0f} GFLOP/s; ratio {ranked.wall / alone.wall:.2f} ({ranked.cpu / alone.cpu:.2f})\n"
        f"  with {len(latent_U):,} kept columns ({len(columns.value_E):,} entries) {both}, ratio"
        f" {both.wall / alone.wall:.2f} ({both.cpu / alone.cpu:.2f})\n"
        f"  peak memory {peak / 2**30:.2f} GiB, {(peak - sae.W_enc_DS.nbytes) / 2**30:.2f} beyond the weights"
    )


class _Time(NamedTuple):
    wall: float
    cpu: float  # of all threads, which a busy machine disturbs least

    def __str__(self) -> str:
        return f"{self.wall:.1f} s ({self.cpu:.1f} s of CPU)"


class _Clock:
    def __init__(self):
        self.start = time.perf_counter(), time.process_time()

    def read(self) -> _Time:
        return _Time(time.perf_counter() - self.start[0], time.process_time() - self.start[1])


def _product_alone(x_ND, w_DS, block: int) -> tuple[_Time, int]:
    """Time of the product over all latents, estimated from at most eight blocks, and their number."""
    product = jax.jit(block_product, static_argnames="size")
    x_ND = jnp.asarray(x_ND)
    num_blocks = w_DS.shape[1] // block
    starts = [block * number for number in range(0, num_blocks, max(1, num_blocks // 8))]
    jax.block_until_ready(product(x_ND, w_DS, 0, size=block))
    clock = _Clock()
    for start in starts:
        jax.block_until_ready(product(x_ND, w_DS, start, size=block))
    scale = w_DS.shape[1] / block / len(starts)
    return _Time(*(scale * seconds for seconds in clock.read())), len(starts)


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


def random_encoder(width: int, d_sae: int, l0: float) -> saes.JumpReluSae:
    """bfloat16 weights, and the threshold that gives this L0."""
    rng, normal = np.random.default_rng(0), statistics.NormalDist()
    # Random bytes choose among 256 equally likely values: takes seconds, normal draws take minutes.
    values = np.array([normal.inv_cdf((i + 0.5) / 256) for i in range(256)]).astype(jnp.bfloat16)
    # Aligned, so that a CPU device takes the memory as it is.
    raw = np.empty(width * d_sae * 2 + 64, np.uint8)
    start = -raw.ctypes.data % 64
    w_DS = raw[start : start + width * d_sae * 2].view(values.dtype).reshape(width, d_sae)
    for w_S in w_DS:
        np.take(values, np.frombuffer(rng.bytes(d_sae), np.uint8), out=w_S)
    rare = normal.inv_cdf(1 - min(max(l0 / d_sae, 1e-9), 0.5)) * width**0.5
    return saes.JumpReluSae(
        W_enc_DS=jax.device_put(w_DS, may_alias=True),
        b_enc_S=jnp.zeros(d_sae),
        W_dec_SD=jnp.zeros((d_sae, 1)),  # selection reads no decoder
        b_dec_D=jnp.zeros(1),
        threshold_S=jnp.full(d_sae, rare, jnp.float32),
    )
