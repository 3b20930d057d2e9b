"""The quiver against hand-computed cases and SciPy's statistics."""

import dataclasses
import math

import numpy as np
import pytest

from jaxprobe import base, quiver


def _arrow(method):
    return base.Arrow(features="activations", method=method)


def _arrows(valid_GA, test_GA, num_baselines, datasets=None):
    cases, arrows = np.shape(valid_GA)
    return quiver.Arrows(
        arrows=tuple(_arrow(f"arrow{i}") for i in range(arrows)),
        is_sae_A=np.arange(arrows) >= num_baselines,
        datasets=tuple(datasets or (f"set{i}" for i in range(cases))),
        level_G=np.full(cases, math.nan),
        valid_GA=np.array(valid_GA, float),
        test_GA=np.array(test_GA, float),
    )


def test_tie_rules_and_stable_order():
    # Four arrows tie on the first case; only the SAE block ties with itself on the second.
    arrows = _arrows(
        valid_GA=[[1, 1, 1, 1], [0.5, 0.4, 0.9, 0.9]],
        test_GA=[[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]],
        num_baselines=2,
    )
    baselines_first = quiver.compare(arrows, "baselines_first")
    saes_first = quiver.compare(arrows, "saes_first")
    assert baselines_first.arrow_G.tolist() == [0, 2]
    assert saes_first.arrow_G.tolist() == [2, 2]
    assert baselines_first.base_arrow_G.tolist() == saes_first.base_arrow_G.tolist() == [0, 0]
    assert quiver.summarise(baselines_first)[5:] == (1, 1, 1, 0)
    assert quiver.summarise(saes_first)[5:] == (2, 2, 0, 0)
    with pytest.raises(ValueError, match="unknown tie rule 'saes'; known: saes_first"):
        quiver.compare(arrows, "saes")


def test_missing_arrows_are_left_out_and_counted():
    nan = math.nan
    arrows = _arrows(
        valid_GA=[[nan, 0.7, 0.6], [nan, nan, 0.9], [0.8, 0.7, nan]],
        test_GA=[[nan, 0.7, 0.6], [nan, nan, 0.9], [0.8, 0.7, nan]],
        num_baselines=2,
    )
    comparison = quiver.compare(arrows, "baselines_first")
    assert comparison.datasets == ("set0",)
    assert comparison.num_skipped == 2
    assert comparison.base_arrow_G.tolist() == [1]
    no_sae = _arrows(valid_GA=[[0.5]], test_GA=[[0.5]], num_baselines=1)
    assert quiver.summarise(quiver.compare(no_sae, "saes_first")).n == 0


def test_summary_by_hand():
    arrows = _arrows([[0.5, 0.9], [0.5, 0.9], [0.9, 0.5]], [[0.6, 0.7], [0.8, 0.6], [1, 0]], 1)
    summary = quiver.summarise(quiver.compare(arrows, "baselines_first"))
    np.testing.assert_allclose(summary.delta, (0.1 - 0.2 + 0) / 3)
    np.testing.assert_allclose(summary.se, np.std([0.1, -0.2, 0]) / np.sqrt(3))
    alone = quiver.summarise(quiver.compare_alone(arrows))
    np.testing.assert_allclose(alone.delta, (0.1 - 0.2 - 1) / 3)
    assert (summary.wins, summary.ties, summary.losses) == (1, 1, 1)


def test_gather_keeps_levels_apart_and_refuses_doubles():
    logistic, sae, another = map(_arrow, ("logistic", "sae", "another"))
    score = quiver.Score("a", 0.15, 42, logistic, 0.9, 0.8)
    scores = [
        score,
        score._replace(level=0.15000000000000002, arrow=sae),
        score._replace(level=0.2, seed=1, arrow=sae),
        score._replace(arrow=another),
        score._replace(level=0.2, seed=1, arrow=sae, test_set="shifted"),
    ]
    arrows = quiver.gather(scores, [logistic], [sae])
    np.testing.assert_array_equal(arrows.valid_GA, [[0.9, 0.9], [np.nan, 0.9], [np.nan, 0.9]])
    with pytest.raises(ValueError, match=r"'logistic' twice for dataset 'a', level 0\.15"):
        quiver.gather([score, score], [logistic], [sae])


def test_only_some_arrows_leave_out_cases_without_them():
    one, two, three = map(_arrow, ("one", "two", "three"))
    scores = [quiver.Score(d, math.nan, 0, a, 0.9, 0.8) for d, a in (("x", one), ("y", three))]
    scores.append(quiver.Score("x", math.nan, 0, two, 0.7, 0.6))
    few = quiver.gather(scores, [one, two, three]).only([two], [one])
    again = quiver.gather(scores, [two], [one])
    assert few.datasets == again.datasets == ("x",) and few.names == ("two", "one")
    for field in ("is_sae_A", "level_G", "valid_GA", "test_GA"):
        np.testing.assert_array_equal(getattr(few, field), getattr(again, field))


@pytest.mark.parametrize("num_datasets", [8, 40])
def test_interval_and_p_value_agree_with_scipy(num_datasets):
    scipy_stats = pytest.importorskip("scipy.stats", reason="scipy comes with scikit-learn")
    delta_G = np.random.default_rng(num_datasets).normal(0.01, 0.03, num_datasets)
    effect = quiver.estimate(delta_G, [f"set{i}" for i in range(num_datasets)])
    # Ends further out than 2.5 %: sqrt(n / (n - 1)) times Student's quantile, as a normal percentile.
    student = scipy_stats.t.ppf(0.975, num_datasets - 1)
    inside = 1 - 2 * scipy_stats.norm.sf(student * np.sqrt(num_datasets / (num_datasets - 1)))
    peer = scipy_stats.bootstrap(
        (delta_G,),
        np.mean,
        n_resamples=20_000,
        confidence_level=inside,
        method="percentile",
        rng=np.random.default_rng(5),
    )
    np.testing.assert_allclose(
        (effect.low, effect.high), peer.confidence_interval, atol=0.06 * delta_G.std()
    )
    test = scipy_stats.permutation_test(
        (delta_G,), np.mean, permutation_type="samples", n_resamples=10_000, rng=1
    )
    assert abs(effect.p_value - test.pvalue) < 0.015
    assert effect == quiver.estimate(delta_G, [f"set{i}" for i in range(num_datasets)])


def test_levels_of_a_dataset_count_as_one_unit():
    once = np.array([0.01, -0.02, 0.03, 0.005, 0.012, -0.001])
    names = [f"set{i}" for i in range(6)]
    single, repeated = quiver.estimate(once, names), quiver.estimate(np.tile(once, 9), names * 9)
    assert repeated.num_datasets == 6 and repeated.num_cases == 54
    for field in ("mean", "low", "high", "p_value"):
        np.testing.assert_allclose(getattr(repeated, field), getattr(single, field), rtol=1e-12)
    uneven = quiver.estimate(np.array([0.1, 0.1, 0.1, 0.4]), ["a", "a", "a", "b"])
    np.testing.assert_allclose(uneven.mean, 0.175)  # over cases, as in the table
    np.testing.assert_allclose((uneven.low, uneven.high), (0.1, 0.4))


@pytest.mark.parametrize("num_datasets", [8, 40])
def test_interval_covers_the_truth(num_datasets):
    # Plain 2.5 % percentiles would cover 89 times in 100 with 8 datasets.
    rng = np.random.default_rng(0)
    names = [f"set{i}" for i in range(num_datasets)]
    effects = [quiver.estimate(rng.normal(0.01, 0.03, num_datasets), names) for _ in range(400)]
    covered = np.mean([effect.low <= 0.01 <= effect.high for effect in effects])
    assert 0.915 <= covered <= 0.975


def test_interval_covers_the_truth_where_levels_move_together():
    # 15 datasets with 12 levels each: most of the spread is the dataset's own.
    rng = np.random.default_rng(1)
    names = np.repeat([f"set{i}" for i in range(15)], 12)
    clustered, naive, rejected = [], [], []
    for _ in range(300):
        own_U = rng.normal(0, 0.03, 15)
        delta_G = np.repeat(own_U, 12) + rng.normal(0, 0.01, 180)
        effect = quiver.estimate(delta_G, names)
        single = quiver.estimate(delta_G, [f"case{i}" for i in range(180)])
        clustered.append(effect.low <= 0 <= effect.high)
        naive.append(single.low <= 0 <= single.high)
        rejected.append(effect.p_value < 0.05)
    assert 0.90 <= np.mean(clustered) <= 0.98
    assert np.mean(naive) < 0.6  # what counting each case as a unit would claim
    assert 0.02 <= np.mean(rejected) <= 0.08  # the test's level is its nominal one


def test_test_has_power():
    rng = np.random.default_rng(2)
    names = [f"set{i}" for i in range(20)]
    effects = [quiver.estimate(rng.normal(0.03, 0.03, 20), names) for _ in range(50)]
    assert np.mean([quiver.direction(effect) == 1 for effect in effects]) > 0.9


def test_a_missing_valid_auroc_chooses_nothing():
    nan = math.nan
    # A baseline without valid AUROC and an SAE arrow with one: compared alone, never in one quiver.
    arrows = _arrows([[nan, 0.9], [0.8, 0.9]], [[0.7, 0.6], [0.5, 0.6]], num_baselines=1)
    assert quiver.compare(arrows, "saes_first").datasets == ("set1",)
    np.testing.assert_allclose(quiver.compare_alone(arrows).delta_G, [-0.1, 0.1])
    # Two baselines and no valid AUROC: nothing says which one is meant.
    several = _arrows([[nan, nan, 0.9]], [[0.7, 0.6, 0.5]], num_baselines=2)
    assert quiver.compare_alone(several).datasets == ()


def _effect(mean, low, high, p_value, num_datasets=8):
    return quiver.Effect(
        mean=mean, low=low, high=high, p_value=p_value, num_datasets=num_datasets, num_cases=8
    )


def test_holm_by_hand():
    # Sorted .01 .02 .03 .04 times 4 3 2 1, then running maximum: .04 .06 .06 .06
    effects = [_effect(0, 0, 0, p) for p in (0.02, 0.04, math.nan, 0.01, 0.03)]
    p_values = [effect.p_value for effect in quiver.holm(effects)]
    np.testing.assert_allclose(p_values, [0.06, 0.06, math.nan, 0.04, 0.06])
    assert quiver.holm([_effect(0, 0, 0, 0.7)] * 2)[0].p_value == 1


@pytest.mark.parametrize(
    ("effect", "words", "direction"),
    [
        (
            _effect(-0.002, -0.006, 0.001, 0.4),
            "-0.002 (95 % interval -0.006 to +0.001): no differ",
            0,
        ),
        (_effect(-0.002, -0.006, -0.001, 0.08), "does not confirm it (p = 0.080), so no differ", 0),
        (_effect(0.002, 0.001, 0.003, 0.01), "raises the mean test AUROC by +0.002", 1),
        (_effect(-0.002, -0.003, -0.001, 0.0002), "lowers the mean test AUROC: -0.002 (95 %", -1),
        (_effect(0, 0, 0, 1), "changes the test AUROC of none of them", 0),
        (_effect(0.3, math.nan, math.nan, math.nan, 1), "one dataset gives no interval", 0),
        (_effect(math.nan, math.nan, math.nan, math.nan, 0), "nothing to compare", 0),
        (_effect(0.0004, 0.00002, 0.001, 0.01), "+0.0004 (95 % interval +0.00002 to +0.001", 1),
    ],
)
def test_verdict_claims_what_the_interval_supports(effect, words, direction):
    sentence = quiver.verdict(effect)
    assert words in sentence
    assert quiver.direction(effect) == direction
    assert ("raises" in sentence) == (direction > 0)
    assert ("lowers" in sentence) == (direction < 0)


def test_five_datasets_can_never_show_a_difference():
    # With five units the smallest possible sign-flip p-value is 2 / 2**5.
    effect = quiver.estimate(np.full(5, 0.1), list("abcde"))
    assert effect.p_value == 2 / 32
    assert quiver.direction(effect) == 0
    assert quiver.direction(dataclasses.replace(effect, p_value=0.01)) == 1


def test_controls_are_named_in_one_place():
    assert quiver.is_control("random_sae", "logistic_l1")
    assert quiver.is_control("activations", "logistic_shuffled_labels")
    assert quiver.is_control("my_sae", "logistic_l1_random_latents")
    assert not quiver.is_control("my_sae", "logistic_l1")
    assert not quiver.is_control("activations", "logistic")
