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
