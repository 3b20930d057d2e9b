"""The quiver against hand-computed cases, the paper's published files and SciPy's statistics."""

import csv
import dataclasses
import math
import pathlib

import numpy as np
import pytest

from jaxprobe import quiver

PUBLISHED = pathlib.Path(__file__).parents[2] / "shared/reference/published/results"

# PROTOCOL.md section 7, gemma-2-9b layer 20: n, base, with SAE, delta, se, SAE chosen, wins, ties, losses
EXPECTED = {
    ("standard", "baselines_first"): (113, 0.939976, 0.936656, -0.003321, 0.001249, 16, 1, 97, 15),
    ("standard", "saes_first"): (113, 0.939976, 0.936332, -0.003644, 0.001247, 50, 7, 69, 37),
    ("scarcity", "baselines_first"): (
        *(2247, 0.826287, 0.826398, 0.000111, 0.000880, 950),
        *(416, 1297, 534),
    ),
    ("scarcity", "saes_first"): (
        *(2247, 0.826287, 0.815904, -0.010383, 0.001528, 1967),
        *(757, 293, 1197),
    ),
    ("imbalance", "baselines_first"): (
        *(2147, 0.921525, 0.917062, -0.004463, 0.000679, 583),
        *(188, 1571, 388),
    ),
    ("imbalance", "saes_first"): (
        *(2147, 0.921525, 0.916378, -0.005147, 0.000692, 1321),
        *(303, 1036, 808),
    ),
}


def _arrows(valid_GA, test_GA, num_baselines, datasets=None):
    cases, arrows = np.shape(valid_GA)
    return quiver.Arrows(
        names=tuple(f"arrow{i}" for i in range(arrows)),
        is_sae_A=np.arange(arrows) >= num_baselines,
        datasets=tuple(datasets or (f"set{i}" for i in range(cases))),
        level_G=np.full(cases, math.nan),
        valid_GA=np.array(valid_GA, float),
        test_GA=np.array(test_GA, float),
    )


def _pandas_2_float(text):
    """Reads a decimal number as pandas before 3.0 does: at most 17 digits, then one division.

    The expected table was made through that parser, and the last digit of valid AUROC decides
    ties: read exactly, SAEs are chosen 49 times, not 50, in the standard regime with `saes_first`.
    """
    whole, _, decimals = text.partition(".")
    digits = (whole + decimals)[:17]
    number = 0.0
    for digit in digits:
        number = number * 10.0 + int(digit)
    return number / 10.0 ** (len(digits) - len(whole))


def _read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def _published(regime):
    """The arrows of a regime in the published files, read with nothing but the csv module."""
    baseline_file, baseline_level, sae_setting, sae_level, ticks = {
        "standard": ("normal_settings/layer20_results", None, "label_noise", "corrupt_frac", 20),
        "scarcity": ("scarcity/summary/all_results", "num_train", "scarcity", "num_train", 1),
        "imbalance": ("imbalance/all_results", "ratio", "class_imbalance", "frac", 20),
    }[regime]

    def score(row, arrow, level_name):
        # Baseline ratios are rounded to 1/20, SAE fractions are not.
        level = round(float(row[level_name]) * ticks) / ticks if level_name else math.nan
        pair = (_pandas_2_float(row["val_auc"]), _pandas_2_float(row["test_auc"]))
        return quiver.Score(row["dataset"], level, 42, arrow, *pair)

    rows = _read(PUBLISHED / f"baseline_probes_gemma-2-9b/{baseline_file}.csv")
    scores = [score(row, row["method"], baseline_level) for row in rows]
    rows = _read(PUBLISHED / f"sae_probes_gemma-2-9b/{sae_setting}_setting/all_metrics.csv")
    if regime == "standard":  # never published whole: these are the label-noise rows without noise
        rows, sae_level = [row for row in rows if float(row["corrupt_frac"]) == 0], None
    scores += [score(row, f"{row['sae_id']} k={row['k']}", sae_level) for row in rows]
    widths = ("16k/average_l0_408", "131k/average_l0_276", "1m/average_l0_193")
    saes = [f"layer_20/width_{width} k={k}" for width in widths for k in (128, 16)]
    return quiver.gather(scores, ("logreg", "pca", "knn", "xgboost", "mlp"), saes)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the paper's published result files are absent")
@pytest.mark.parametrize("regime", ["standard", "scarcity", "imbalance"])
def test_published_files_give_the_published_table(regime):
    arrows = _published(regime)
    for tie_rule in quiver.TIE_RULES:
        summary = quiver.summarise(quiver.compare(arrows, tie_rule))
        rounded = [round(x, 6) for x in summary]
        assert rounded == list(EXPECTED[regime, tie_rule])


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
    score = quiver.Score("a", 0.15, 42, "logistic", 0.9, 0.8)
    scores = [
        score,
        score._replace(level=0.15000000000000002, arrow="sae"),
        score._replace(level=0.2, seed=1, arrow="sae"),
        score._replace(arrow="another"),
    ]
    arrows = quiver.gather(scores, ["logistic"], ["sae"])
    np.testing.assert_array_equal(arrows.valid_GA, [[0.9, 0.9], [np.nan, 0.9]])
    with pytest.raises(ValueError, match=r"'logistic' twice for dataset 'a', level 0\.15"):
        quiver.gather([score, score], ["logistic"], ["sae"])


@pytest.mark.parametrize("num_datasets", [8, 40])
def test_interval_and_p_value_agree_with_scipy(num_datasets):
    scipy_stats = pytest.importorskip("scipy.stats", reason="scipy comes with scikit-learn")
    delta_G = np.random.default_rng(num_datasets).normal(0.01, 0.03, num_datasets)
    effect = quiver.estimate(delta_G, [f"set{i}" for i in range(num_datasets)])
    peer = scipy_stats.bootstrap(
        (delta_G,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(5)
    )
    np.testing.assert_allclose(
        (effect.low, effect.high), peer.confidence_interval, atol=0.05 * delta_G.std()
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


def test_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    names = [f"set{i}" for i in range(40)]
    effects = [quiver.estimate(rng.normal(0.01, 0.03, 40), names) for _ in range(200)]
    covered = np.mean([effect.low <= 0.01 <= effect.high for effect in effects])
    assert 0.88 <= covered <= 0.99


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
        (_effect(0.3, math.nan, math.nan, math.nan, 1), "one dataset has no interval", 0),
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
