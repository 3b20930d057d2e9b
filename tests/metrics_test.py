"""Metrics against scikit-learn, on tied, tiny, weighted and one-class inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprobe import metrics

sk = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the reference")

ON_SCORES = {
    "auroc": (metrics.auroc, sk.roc_auc_score),
    "average_precision": (metrics.average_precision, sk.average_precision_score),
}
ON_LABELS = {
    "accuracy": (metrics.accuracy, sk.accuracy_score),
    "f1": (
        metrics.f1,
        lambda y, p, sample_weight: sk.f1_score(
            y, p, average="weighted", sample_weight=sample_weight, zero_division=0
        ),
    ),
}


def cases():
    rng = np.random.default_rng(0)
    for size in (2, 3, 10, 200, 3000):
        for levels in (2, 5, 10**6):
            y_N = rng.integers(0, 2, size)
            y_N[:2] = (0, 1)
            score_N = (rng.integers(0, levels, size) + y_N) / (levels + 1)
            for weight_N in (np.ones(size), rng.integers(0, 3, size), rng.random(size)):
                if len(np.unique(y_N[weight_N > 0])) == 2:
                    yield score_N.astype(np.float32), y_N, weight_N.astype(np.float32)


@pytest.mark.parametrize("name", ON_SCORES)
def test_score_metrics_agree_with_scikit_learn(name):
    ours, reference = ON_SCORES[name]
    for score_N, y_N, weight_N in cases():
        wanted = reference(y_N, score_N, sample_weight=weight_N)
        np.testing.assert_allclose(ours(y_N, score_N, weight_N), wanted, atol=2e-6)


@pytest.mark.parametrize("name", ON_LABELS)
def test_label_metrics_agree_with_scikit_learn(name):
    ours, reference = ON_LABELS[name]
    for score_N, y_N, weight_N in cases():
        wanted = reference(y_N, score_N > 0.5, sample_weight=weight_N)
        np.testing.assert_allclose(ours(y_N, score_N, weight_N), wanted, atol=2e-6)


def test_log_loss_agrees_with_scikit_learn():
    for score_N, y_N, weight_N in cases():
        logit_N = 10 * score_N - 5
        wanted = sk.log_loss(y_N, 1 / (1 + np.exp(-logit_N)), sample_weight=weight_N)
        np.testing.assert_allclose(metrics.log_loss(y_N, logit_N, weight_N), wanted, rtol=1e-5)


def test_calibration_error_by_hand():
    # Bin [0, .1): confidence .05, frequency 1/2. Bin [.9, 1]: confidence .95, frequency 1.
    p_N, y_N = np.float32([0.05, 0.05, 0.95, 0.95]), np.array([0, 1, 1, 1])
    np.testing.assert_allclose(
        metrics.expected_calibration_error(y_N, p_N), (0.45 + 0.05) / 2, atol=1e-6
    )


def test_a_class_without_weight_gives_nan_not_a_number():
    score_N = np.float32([0.1, 0.2, 0.3])
    assert np.isnan(metrics.auroc(np.array([1, 1, 1]), score_N))
    assert np.isnan(metrics.auroc(np.array([0, 1, 1]), score_N, np.float32([0, 1, 1])))
    assert np.isnan(metrics.average_precision(np.zeros(3, int), score_N))


def test_a_nan_score_is_not_hidden():
    score_N = np.float32([0.1, np.nan, 0.3, 0.2])
    y_N = np.array([0, 1, 1, 0])
    for metric in (metrics.auroc, metrics.average_precision):
        assert np.isnan(metric(y_N, score_N))
    assert metrics.auroc(y_N, score_N, np.float32([1, 0, 1, 1])) == 1


def test_vmapped_and_jitted_equals_one_by_one():
    rng = np.random.default_rng(1)
    score_PN = rng.integers(0, 4, (7, 50)).astype(np.float32) / 4
    y_PN, weight_PN = rng.integers(0, 2, (7, 50)), rng.random((7, 50)).astype(np.float32)
    for metric in (metrics.auroc, metrics.f1, metrics.average_precision):
        together = jax.jit(jax.vmap(metric))(y_PN, score_PN, weight_PN)
        alone = jnp.stack([metric(*row) for row in zip(y_PN, score_PN, weight_PN, strict=True)])
        np.testing.assert_allclose(together, alone, atol=1e-6)


def test_wrong_shapes_are_refused_by_name():
    with pytest.raises(ValueError, match=r"`y_N` must have shape \(3\), got \(4,\)"):
        metrics.auroc(np.zeros(4, int), np.zeros(3, np.float32))


# Scores that float32, or a processor that takes denormal numbers for zero, would tie or untie.
HARD = {
    "close": [1.0, 1.0 + 1e-12, 1.0, 1.0 - 1e-12],
    "infinite": [-np.inf, np.inf, np.inf, 0.0],
    "all infinite": [np.inf] * 4,
    "signed zeros": [-0.0, 0.0, 0.0, -0.0],
    "denormal": [1e-42, 0.0, 2e-42, 0.0],
    "denormal in float64": [1e-310, 0.0, 2e-310, 0.0],
    "beyond float32": [1e300, 1e200, -1e300, -1e200],
    "large whole numbers": [2**53, 2**53 + 1, 2**53 + 2, 2**53],
    "booleans": [True, False, True, False],
}


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("wide", [False, True])
def test_hard_scores_are_ranked_as_scikit_learn_ranks_them(name, wide):
    score_N, weight_N = np.array(HARD[name]), np.array([0.5, 2.0, 1.0, 0.25])
    # Ranks, for scikit-learn refuses infinite scores.
    rank_N = np.unique(score_N, return_inverse=True)[1]
    with jax.enable_x64(wide):
        for y_N in ([0, 1, 0, 1], [1, 0, 0, 1], [1, 1, 1, 0]):
            for ours, reference in ON_SCORES.values():
                for weights in (None, weight_N):
                    wanted = reference(y_N, rank_N, sample_weight=weights)
                    np.testing.assert_allclose(ours(y_N, score_N, weights), wanted, rtol=1e-6)


def test_float64_scores_keep_their_order_beside_traced_arguments():
    y_N, score_N = np.array([0, 1]), np.array([1.0, 1 + 1e-12])
    for metric in ON_SCORES:
        ours = ON_SCORES[metric][0]
        assert jax.jit(lambda y_N, ours=ours: ours(y_N, score_N))(y_N) == 1
        assert jax.jit(lambda w_N, ours=ours: ours(y_N, score_N, w_N))(np.ones(2)) == 1
        assert np.isnan(jax.jit(lambda y_N, ours=ours: ours(y_N, score_N * np.nan))(y_N))


def test_swapped_arguments_are_caught():
    y_N, score_N = np.array([0, 1, 1]), np.array([0.3, 0.2, 0.9])
    for metric in (*[ours for ours, _ in (ON_SCORES | ON_LABELS).values()], metrics.log_loss):
        with pytest.raises(ValueError, match=r"the order is \(y_true, y_score\)"):
            metric(score_N, y_N)
        with pytest.raises(ValueError, match=r"got 3: 0, 1, 2; the order is"):
            metric(np.arange(3), score_N)


def test_labels_of_every_kind_score_the_same():
    y_N, p_N = np.array([0, 1, 1, 0]), np.array([0.3, 0.2, 0.9, 0.6])
    kinds = (
        y_N.astype(bool),
        2 * y_N - 1,
        np.where(y_N, "yes", "no"),
        y_N.tolist(),
        jnp.array(y_N),
    )
    for metric in (metrics.auroc, metrics.f1, metrics.log_loss, metrics.expected_calibration_error):
        assert {float(metric(kind, p_N)) for kind in kinds} == {float(metric(y_N, p_N))}


def test_probabilities_and_weights_out_of_range_are_refused():
    y_N = np.array([0, 1])
    for metric in (metrics.accuracy, metrics.f1, metrics.expected_calibration_error):
        with pytest.raises(ValueError, match=r"between 0 and 1, got 2\.5; turn log-odds"):
            metric(y_N, [0.5, 2.5])
        assert np.isnan(metric(y_N, [0.5, np.nan]))
        assert not np.isnan(metric(y_N, [0.5, np.nan], [1, 0]))
    for bad in ([1, -1], [1, np.nan]):
        with pytest.raises(ValueError, match="`weight_N` must be finite and not negative"):
            metrics.auroc(y_N, [0.1, 0.2], bad)
    with pytest.raises(ValueError, match="`score_N` must hold real numbers, got text"):
        metrics.auroc(y_N, ["a", "b"])
    with pytest.raises(ValueError, match=r"`score_N` must have shape \(\*\), got \(2, 1\)"):
        metrics.auroc(y_N, [[0.1], [0.2]])


def test_only_the_ratios_of_weights_count():
    rng = np.random.default_rng(0)
    y_N, score_N, weight_N = rng.integers(0, 2, 40), rng.random(40), rng.integers(0, 9, 40)
    for metric in (metrics.auroc, metrics.average_precision, metrics.accuracy, metrics.f1):
        wanted = float(metric(y_N, score_N, weight_N))
        assert 0 < wanted < 1
        for power in (-1070, -600, 600, 1020):
            assert float(metric(y_N, score_N, np.ldexp(1.0 * weight_N, power))) == wanted, power
    assert np.isnan(metrics.auroc(y_N, score_N, np.zeros(40)))


def test_probabilities_may_miss_their_ends_by_a_rounding():
    y_N = np.array([0, 1])
    for metric in (metrics.accuracy, metrics.f1, metrics.expected_calibration_error):
        p_N = np.array([-1e-7, 1 + 1e-7], np.float32)
        assert metric(y_N, p_N) == metric(y_N, [0.0, 1.0])
        with pytest.raises(ValueError, match=r"between 0 and 1, got 1\.00001"):
            metric(y_N, [0.5, 1.00001])


def test_infinite_log_odds_cost_what_they_should():
    assert metrics.log_loss([0, 1], [-np.inf, np.inf]) == 0
    assert metrics.log_loss([1, 1], [-np.inf, np.inf]) == np.inf
    assert metrics.log_loss([1, 1], [-np.inf, 0.0], [0, 1]) == np.float32(np.log(2))


@pytest.mark.parametrize("traced", [False, True])
def test_calibration_bins_are_closed_below(traced):
    # A product rounds .58 * 100 and .29 * 100 below whole numbers, where they would fall one bin short.
    p_N = np.arange(101) / 100
    for score_N in (p_N, p_N.astype(np.float32)):
        metric = metrics.expected_calibration_error
        y_N = np.ones(101, int)
        y_N[29] = y_N[58] = 0
        ours = jax.jit(metric, static_argnames="num_bins") if traced else metric
        gap_B = [abs(np.sum((p_N - y_N)[b : b + 1 + (b == 99)])) for b in range(100)]
        np.testing.assert_allclose(ours(y_N, score_N, num_bins=100), sum(gap_B) / 101, rtol=1e-5)


def test_pair_counts_are_whole():
    y_N, score_N = np.array([0, 1, 1, 0]), np.float32([0.5, 0.5, 0.9, 0.1])
    won, pairs = metrics.pair_counts(jnp.array(y_N, jnp.float32), jnp.array(score_N), jnp.ones(4))
    assert (won, pairs) == (7, 4)
