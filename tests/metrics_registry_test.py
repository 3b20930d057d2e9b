"""The registry of metrics against scikit-learn and plain loops, padded, traced and vmapped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprobe import metrics

sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the reference")

NUM, PADDED = 90, 128


def drawn(seed: int = 0):
    """Labels, log-odds with ties, weights, groups of which one is no group."""
    rng = np.random.default_rng(seed)
    y_N = rng.integers(0, 2, NUM)
    score_N = np.round(2 * rng.normal(size=NUM) + y_N, 1)
    return y_N, score_N, rng.uniform(0.2, 2, NUM), rng.integers(-1, 3, NUM)


def threshold(y_N, score_N, weight_N, rate: float) -> float:
    """The lowest score of a negative that few enough negatives exceed, tried one after the other."""
    neg_N = y_N == 0
    allowed = rate * weight_N[neg_N].sum() * (1 + 1e-9)
    kept = [t for t in score_N[neg_N] if weight_N[neg_N & (score_N > t)].sum() <= allowed]
    return min(kept)


def wanted(y_N, score_N, weight_N, group_N, held_out) -> dict[str, float]:
    guess_N, p_N = score_N > 0, 1 / (1 + np.exp(-score_N))
    given = {"sample_weight": weight_N}
    right_N = guess_N == (y_N == 1)
    of_group = [group_N == g for g in range(3)]
    found = {
        "auroc": sklearn.roc_auc_score(y_N, score_N, **given),
        "f1": sklearn.f1_score(y_N, guess_N, average="weighted", **given),
        "accuracy": sklearn.accuracy_score(y_N, guess_N, **given),
        "average_precision": sklearn.average_precision_score(y_N, score_N, **given),
        "log_loss": sklearn.log_loss(y_N, p_N, **given),
        "worst_group_accuracy": min(np.average(right_N[g], weights=weight_N[g]) for g in of_group),
    }
    for name, rate in (("01", 0.01), ("05", 0.05), ("10", 0.1)):
        caught_N = score_N > threshold(*held_out, rate)
        found[f"recall_at_fpr_{name}"] = sklearn.recall_score(y_N, caught_N, **given)
    return found


@pytest.mark.parametrize("traced", [False, True])
def test_every_metric_is_what_another_formula_gives(traced):
    names = tuple(metrics.METRICS)
    given, held_out = drawn(), drawn(1)[:3]

    def evaluate(y_N, score_N, weight_N, group_N, y_V, score_V, weight_V):
        seen = metrics.HeldOut(y_V, score_V, weight_V)
        return metrics.evaluate(metrics.chosen(names), y_N, score_N, weight_N, group_N, seen)

    if traced:
        with jax.enable_x64(True):
            padded = [np.pad(part, (0, PADDED - NUM)) for part in (*given, *held_out)]
            real = [part.astype(float) if part is not padded[3] else part for part in padded]
            together = jax.jit(jax.vmap(evaluate))(*(jnp.stack([part, part]) for part in real))
        got = {name: float(value[1]) for name, value in together.items()}
    else:
        got = evaluate(*given, *held_out)
    for name, value in wanted(*given, held_out).items():
        np.testing.assert_allclose(got[name], value, atol=1e-9, err_msg=name)
    # Calibration has no counterpart there: ten bins by hand.
    y_N, score_N, weight_N, _ = given
    p_N = 1 / (1 + np.exp(-score_N))
    bin_N = np.minimum((10 * p_N).astype(int), 9)
    off = [abs(np.sum((weight_N * (p_N - y_N))[bin_N == b])) for b in range(10)]
    np.testing.assert_allclose(got["calibration_error"], sum(off) / weight_N.sum(), atol=1e-9)


def test_a_threshold_lets_through_as_many_negatives_as_are_allowed():
    y_N, score_N = np.zeros(100, int), np.arange(100.0)
    for rate, most in ((0.0, 0), (0.05, 5), (0.29, 29), (0.999, 99)):
        found = float(metrics.threshold_at_fpr(y_N, score_N, rate=rate))
        assert np.sum(score_N > found) == most
    with pytest.raises(ValueError, match="`rate` must be at least 0 and below 1, got 1"):
        metrics.threshold_at_fpr(y_N, score_N, rate=1)


def test_what_cannot_be_known_is_nan():
    y_N, score_N = np.array([0, 1, 1]), np.array([-1.0, 2.0, 0.5])
    nothing = metrics.HeldOut(np.zeros(0, int), np.zeros(0), np.zeros(0))
    names = ("recall_at_fpr_05", "worst_group_accuracy")
    chosen = metrics.chosen(names)
    found = metrics.evaluate(chosen, y_N, score_N, np.ones(3), None, nothing)
    assert all(np.isnan(found[name]) for name in names)
    positives = metrics.HeldOut(np.ones(2, int), np.zeros(2), np.ones(2))
    assert np.isnan(
        metrics.evaluate(chosen, y_N, score_N, np.ones(3), None, positives)["recall_at_fpr_05"]
    )
    assert np.isnan(metrics.worst_group_accuracy(y_N, score_N, group_N=[-1, -1, -1]))
    assert np.isnan(metrics.worst_group_accuracy(y_N, [np.nan, 1.0, 1.0], group_N=[0, 0, 1]))
    assert np.isnan(metrics.recall([0, 0], [1.0, 2.0]))
    with pytest.raises(ValueError, match="sets its threshold on validation rows"):
        metrics.evaluate(chosen, y_N, score_N, np.ones(3))


def test_groups_are_any_whole_numbers():
    y_N, score_N = np.array([1, 1, 0, 0]), np.array([2.0, -1.0, -1.0, -3.0])
    for group_N in ([7, 1000, 7, -5], [-1, 2**40, 3, 3]):
        assert float(metrics.worst_group_accuracy(y_N, score_N, group_N=group_N)) == 0
    assert metrics.group_codes([9, -2, 5, 9, -1]).tolist() == [1, -1, 0, 1, -1]
    with pytest.raises(ValueError, match="`group_N` must hold one whole number per example"):
        metrics.worst_group_accuracy(y_N, score_N, group_N=[0.5] * 4)
    with pytest.raises(ValueError, match="one group per example"):
        metrics.worst_group_accuracy(y_N, score_N, group_N=[0])
