"""Every architecture against its formula in float64, through jit, vmap and grad, and in blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core as jex_core

from jaxprobe import saes, selection
from jaxprobe.saes import groupmax, topk

D, S, N = 12, 48, 30


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape), jnp.float32)


X_ND = np.asarray(draw(N, D, seed=9)) * 2 + 1
LINEAR = {"W_enc_DS": draw(D, S), "W_dec_SD": draw(S, D), "b_dec_D": draw(D)}
BIASED = {**LINEAR, "b_enc_S": draw(S)}
THRESHOLD = np.abs(draw(S)) * 3
SAES = {
    "relu": saes.ReluSae(**BIASED),
    "jump_relu": saes.JumpReluSae(**BIASED, threshold_S=THRESHOLD),
    "topk": saes.TopKSae(**BIASED, k=5),
    "signed": saes.TopKSae(**BIASED, k=5, signed=True),
    "batch_topk": saes.BatchTopKSae(**BIASED, threshold=jnp.float32(1.5)),
    "gated": saes.GatedSae(
        **LINEAR, b_gate_S=draw(S), b_mag_S=draw(S, seed=1), r_mag_S=draw(S, seed=2)
    ),
    "matryoshka": saes.MatryoshkaSae(
        **BIASED,
        threshold_S=THRESHOLD,
        group_S=saes.matryoshka.groups((8, 16, 24)),
        active_groups=2,
    ),
    "groupmax": saes.GroupMaxSae(**BIASED, k=6),
}
SAES["framed"] = saes.frame(
    SAES["topk"], shift_D=draw(D, seed=3), W_skip_DE=draw(D, D), normalisation="layer_norm"
)


def formula(name):
    """Latents in float64."""
    sae = SAES[name]
    x_ND = X_ND.astype(np.float64)
    if name == "framed":
        centred_ND = x_ND - x_ND.mean(1, keepdims=True)
        deviation_N1 = np.sqrt((centred_ND**2).sum(1, keepdims=True) / (D - 1))
        x_ND = centred_ND / (deviation_N1 + 1e-5) - np.asarray(sae.shift_D, np.float64)
    w = {k: np.asarray(v, np.float64) for k, v in vars(saes.core_of(sae)).items()}
    xw_NS = x_ND @ w["W_enc_DS"]
    if name == "gated":
        magnitude_NS = np.exp(w["r_mag_S"]) * xw_NS + w["b_mag_S"]
        return (xw_NS + w["b_gate_S"] > 0) * np.maximum(magnitude_NS, 0)
    pre_NS = xw_NS + w["b_enc_S"]
    if name in ("topk", "signed", "framed"):
        size_NS = np.abs(pre_NS) if name == "signed" else pre_NS
        cut_N1 = np.sort(size_NS, axis=1)[:, -5][:, None]
        kept_NS = np.where(size_NS >= cut_N1, pre_NS, 0)
        return kept_NS if name == "signed" else np.maximum(kept_NS, 0)
    if name == "groupmax":
        grouped = pre_NS.reshape(N, 6, 8)
        kept = np.where(grouped == grouped.max(2, keepdims=True), grouped, 0)
        return np.maximum(kept.reshape(N, S), 0)
    if name == "relu":
        return np.maximum(pre_NS, 0)
    z_NS = np.maximum(pre_NS, 0) * (pre_NS > w.get("threshold_S", w.get("threshold")))
    if name == "matryoshka":
        z_NS[:, 24:] = 0
    return z_NS


@pytest.mark.parametrize("name", SAES)
def test_encode_and_decode_agree_with_the_formula(name):
    sae, z_NS = SAES[name], formula(name)
    got_NS = np.asarray(saes.encode(sae, X_ND))
    np.testing.assert_array_equal(got_NS != 0, z_NS != 0)
    np.testing.assert_allclose(got_NS, z_NS, rtol=1e-5, atol=1e-5)
    core = saes.core_of(sae)
    y_ND = z_NS @ np.asarray(core.W_dec_SD, np.float64) + np.asarray(core.b_dec_D)
    if name == "framed":
        y_ND = y_ND * X_ND.std(1, keepdims=True, ddof=1) + X_ND.mean(1, keepdims=True)
        y_ND = y_ND + X_ND @ np.asarray(sae.W_skip_DE, np.float64)
    np.testing.assert_allclose(saes.decode(sae, got_NS, X_ND), y_ND, rtol=1e-4, atol=1e-4)
    saes.check_sae(sae)


@pytest.mark.parametrize("name", SAES)
def test_traceable_under_jit_vmap_and_grad(name):
    sae, z_NS = SAES[name], formula(name)
    close = {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(jax.jit(saes.encode)(sae, X_ND), z_NS, **close)
    by_row = jax.jit(jax.vmap(saes.encode, (None, 0)))(sae, jnp.asarray(X_ND))
    np.testing.assert_allclose(by_row, z_NS, **close)
    stacked = jax.tree.map(lambda a: jnp.stack([a, a]), sae)
    both = jax.vmap(saes.encode, (0, None))(stacked, jnp.asarray(X_ND))
    np.testing.assert_allclose(both[1], z_NS, **close)
    deep = saes.encode(sae, jnp.asarray(X_ND).reshape(2, N // 2, D))
    np.testing.assert_allclose(deep.reshape(N, S), z_NS, **close)
    # The gradient is what moving along a direction does, where no latent comes or goes.
    x_D, step_D = jnp.asarray(X_ND[0]), draw(D, seed=7) * 1e-3
    sum_of = lambda x_D: (saes.encode(sae, x_D) * jnp.arange(S, dtype=jnp.float32)).sum()
    slope = jax.grad(sum_of)(x_D) @ step_D
    # Summed in float64: two large float32 sums differ by little more than their last bits.
    ahead_S, behind_S = (np.float64(saes.encode(sae, x_D + way * step_D)) for way in (1, -1))
    change = (ahead_S - behind_S) @ np.arange(S) / 2
    np.testing.assert_allclose(slope, change, rtol=2e-2)


@pytest.mark.parametrize("block", [7, 16, 48, 100])
@pytest.mark.parametrize("name", SAES)
def test_blocks_and_columns_are_those_of_the_whole(monkeypatch, name, block):
    monkeypatch.setattr(topk.keep, "__defaults__", (block,))
    monkeypatch.setattr(groupmax.keep, "__defaults__", (block,))
    sae = SAES[name]
    whole_NS = np.asarray(saes.encode(sae, X_ND))
    encoder = saes.prepare(sae, X_ND)
    parts = [np.asarray(encoder(start, start + block)) for start in range(0, S, block)]
    np.testing.assert_allclose(np.concatenate(parts, 1), whole_NS, rtol=1e-5, atol=1e-5)
    columns = np.array([40, 3, 3, 0, 47, 40])
    np.testing.assert_allclose(encoder.columns(columns), whole_NS[:, columns], rtol=1e-5, atol=1e-5)
    one = saes.encode_block(sae, X_ND, 5, 9)
    np.testing.assert_allclose(one, whole_NS[:, 5:9], rtol=1e-5, atol=1e-5)


def test_ties_are_broken_alike_whole_and_in_blocks():
    # Many equal pre-activations, within blocks and across them, above and below the k-th; more
    # rows than are kept at once, and some left over.
    num_rows = 2 * topk.ROWS + 100
    rng = np.random.default_rng(0)
    W_enc_DS = jnp.asarray(rng.integers(-1, 2, (D, S)), jnp.float32)
    x_ND = rng.integers(-1, 2, (num_rows, D)).astype(np.float32)
    for signed in (False, True):
        sae = saes.TopKSae(
            **{**BIASED, "W_enc_DS": W_enc_DS, "b_enc_S": jnp.zeros(S)}, k=6, signed=signed
        )
        pre_NS = x_ND @ np.asarray(W_enc_DS)
        order = np.argsort(-(np.abs(pre_NS) if signed else pre_NS), axis=1, kind="stable")[:, :6]
        expected_NS = np.zeros_like(pre_NS)
        kept_NK = np.take_along_axis(pre_NS, order, 1)
        np.put_along_axis(expected_NS, order, kept_NK if signed else np.maximum(kept_NK, 0), 1)
        np.testing.assert_array_equal(saes.encode(sae, x_ND), expected_NS)
        for block in (5, 16, 31, S):
            kept = topk.keep(sae, jnp.asarray(x_ND), block)
            z_NS = np.zeros((num_rows, S), np.float32)
            np.put_along_axis(z_NS, np.asarray(kept.index_NK), np.asarray(kept.value_NK), 1)
            np.testing.assert_array_equal(z_NS, expected_NS)


@pytest.mark.parametrize("name", ["topk", "groupmax"])
def test_keeping_needs_no_array_of_all_latents(name):
    """Every array in the traced program is far smaller than [N, d_sae]."""
    num_rows, d_sae, block = 64, 4096, 128
    sae = type(SAES[name])(
        W_enc_DS=draw(D, d_sae), b_enc_S=draw(d_sae), W_dec_SD=draw(d_sae, D), b_dec_D=draw(D), k=8
    )
    module = topk if name == "topk" else groupmax
    jaxpr = jax.make_jaxpr(lambda x_ND: module.keep(sae, x_ND, block))(draw(num_rows, D))

    def sizes(jaxpr):
        for equation in jaxpr.eqns:
            yield from (var.aval.size for var in equation.outvars if var.aval.shape[:1] == (64,))
            for inner in jex_core.jaxprs_in_params(equation.params):
                yield from sizes(inner)

    step = block if name == "topk" else 512
    assert 0 < max(sizes(jaxpr.jaxpr)) <= num_rows * 2 * step < num_rows * d_sae


@pytest.mark.parametrize("name", SAES)
def test_ranking_by_blocks_is_that_of_all_latents(name):
    y_N = np.arange(N) % 2
    weights = selection.class_weights(N, [(np.arange(N), y_N)])
    top = selection.top_latents(saes.prepare(SAES[name], X_ND), S, weights, 10, "raw", block=13)
    z_NS = formula(name)
    score_S = np.abs(z_NS[y_N == 1].mean(0) - z_NS[y_N == 0].mean(0))
    np.testing.assert_allclose(
        score_S[np.asarray(top.index_PK)[0]], np.sort(score_S)[::-1][:10], rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("name", SAES)
def test_the_random_control_fires_as_often(name):
    control = saes.random_like(SAES[name], X_ND, jax.random.key(0))
    often_S = (formula(name) != 0).sum(0)
    np.testing.assert_array_equal((np.asarray(saes.encode(control, X_ND)) != 0).sum(0), often_S)


def test_decoding_asks_for_the_inputs_it_needs():
    z_NS = saes.encode(SAES["framed"], X_ND)
    with pytest.raises(ValueError, match=r"as `x_ND`, for its skip connection; got none"):
        saes.decode(SAES["framed"], z_NS)
    shifted = saes.frame(SAES["relu"], shift_D=draw(D))
    saes.decode(shifted, z_NS)  # a shift alone needs nothing


def test_refusals():
    with pytest.raises(
        ValueError, match=r"must have d_model = 12 as its last axis, got .*\(30, 9\)"
    ):
        saes.encode(SAES["topk"], X_ND[:, :9])
    with pytest.raises(TypeError, match=r"an SAE must be one of JumpReluSae, .*got dict"):
        saes.encode({}, X_ND)
    with pytest.raises(ValueError, match="unknown normalisation 'layernorm'; known: layer_norm"):
        saes.frame(SAES["relu"], normalisation="layernorm")
    with pytest.raises(ValueError, match=r"`W_skip_DE` must have shape \(12, 12\)"):
        saes.frame(SAES["relu"], W_skip_DE=draw(D, 5))
    for bad, message in (
        (saes.TopKSae(**BIASED, k=49), "`k` must lie between 1 and d_sae = 48, got 49"),
        (saes.GroupMaxSae(**BIASED, k=7), "`k` must divide d_sae = 48, got 7"),
        (saes.ReluSae(**{**BIASED, "b_enc_S": draw(9)}), r"`b_enc_S` must have shape \(48\)"),
        (saes.ReluSae(**{**BIASED, "b_dec_D": np.zeros(D)}), "`b_dec_D` must be float32"),
    ):
        with pytest.raises(ValueError, match=message):
            saes.check_sae(bad)


def test_rows_of_other_number_formats_are_read_as_float32():
    for dtype in (jnp.bfloat16, np.float64, np.float16):
        x_ND = np.asarray(jnp.asarray(X_ND).astype(jnp.bfloat16)).astype(dtype)
        z_NS = saes.encode(SAES["jump_relu"], x_ND)
        assert z_NS.dtype == jnp.float32
        np.testing.assert_array_equal(z_NS, saes.encode(SAES["jump_relu"], x_ND.astype(np.float32)))
