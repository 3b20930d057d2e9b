"""Findings: numbers against plain Python, arrows of every kind, rows that are refused."""

import dataclasses

import numpy as np
import pytest

from jaxprobe import quiver
from jaxprobe.base import Arrow
from jaxprobe.experiments.probing.report import findings, probe_means, sensitivity
from jaxprobe.experiments.probing.report.inputs import ChosenLatent, Record, Results
from tests import fake_results
from tests.fake_results import ALL_REGIMES


def find(rows, **selection):
    """The findings of the first setting."""
    return findings.find(Results(rows=rows), findings.Selection(**selection))[0]


def test_controls_are_never_chosen():
    def tempting(row):
        if row.control:
            return dataclasses.replace(row, valid_auroc=1.0, test_auroc=0.123)
        return row

    rows = fake_results.rows()
    plain, tempted = find(rows), find([tempting(row) for row in rows])
    for one, other in zip(plain.parts, tempted.parts, strict=True):
        assert one.effects == other.effects
        assert one.alone_effect == other.alone_effect
    assert all(control.auroc.mean == 0.123 for part in tempted.parts for control in part.controls)


def test_lines_and_curve_agree_with_plain_python():
    rows = fake_results.rows()
    found = find(rows)
    for part in found.parts:
        for place, dataset in enumerate(fake_results.DATASETS):
            mine = [row for row in rows if (row.dataset, row.protocol) == (dataset, part.protocol)]
            saes = [r for r in mine if (r.features, r.method) == (fake_results.SAE, "logistic_l1")]
            best = max(saes, key=lambda row: (row.valid_auroc, -row.num_latents))
            line = part.lines[place]
            assert line.dataset == dataset
            assert (line.probe.auroc, line.probe.arrow) == (best.test_auroc, best.arrow)
            by_k = {row.num_latents: row.test_auroc for row in saes}
            np.testing.assert_array_equal(
                part.curve.auroc_GK[fake_results.SAE][place],
                [by_k[k] for k in part.curve.num_latents],
            )


def test_levels_are_paired_and_averaged():
    rows = fake_results.rows(regimes=ALL_REGIMES)
    found = find(rows)
    assert found.regimes == tuple(ALL_REGIMES)
    assert len(found.parts) == 10
    scarcity = found.of_regime("scarcity")[0]
    assert scarcity.comparisons["saes_first"].base_G.shape == (30,)
    assert scarcity.effects["saes_first"].num_datasets == 10
    assert [level.level for level in scarcity.levels] == [2, 14, 103]
    name = fake_results.DATASETS[3]
    mine = [
        row.test_auroc
        for row in rows
        if (row.dataset, row.regime, row.protocol) == (name, "scarcity", "paper")
        and (row.features, row.method) == ("activations", "logistic")
    ]
    assert len(mine) == 3
    np.testing.assert_allclose(scarcity.lines[3].baseline.auroc, np.mean(mine))


def _tempting(row):
    """SAE probes of k = 128 that are chosen everywhere, and the random SAE's too."""
    if row.method == "logistic_l1" and row.num_latents == 128:
        return dataclasses.replace(row, valid_auroc=1.0)
    return row


@pytest.mark.parametrize(
    "effect_of",
    [
        lambda part: part.alone_effect,
        lambda part: part.effects["baselines_first"],
        lambda part: part.effects["saes_first"],
        lambda part: part.beside[0].effect,
    ],
)
def test_p_values_are_corrected_over_regimes(effect_of):
    rows = [_tempting(row) for row in fake_results.rows(regimes=ALL_REGIMES, protocols=("paper",))]
    together = {part.regime: effect_of(part) for part in find(rows).parts}
    lonely = {
        regime: effect_of(find([r for r in rows if r.regime == regime]).parts[0])
        for regime in ALL_REGIMES
    }
    # Holm by hand: the smallest times 5, the next times 4 ..., each at least the one before.
    floor = 0.0
    for rank, regime in enumerate(sorted(lonely, key=lambda regime: lonely[regime].p_value)):
        floor = max(floor, min(1.0, (5 - rank) * lonely[regime].p_value))
        np.testing.assert_allclose(together[regime].p_value, floor)
        assert together[regime].low == lonely[regime].low
    assert any(together[regime].p_value > lonely[regime].p_value for regime in ALL_REGIMES)


def test_other_k_are_said():
    rows = [row for row in fake_results.rows() if row.num_latents in (0, 1, 4, 8)]
    found = find(rows)
    assert [arrow.k for arrow in found.parts[0].choice.saes] == [8, 4]
    assert any("its quiver arrows are k = 8, 4" in note for note in found.notes)


def test_rows_of_two_runs_are_refused():
    rows = fake_results.rows(datasets=("a",))
    other = [dataclasses.replace(row, fingerprint="another") for row in rows]
    with pytest.raises(
        ValueError, match=r"dataset 'a'.* two fingerprints, 0f3a and another: two diff"
    ):
        find([*rows, *other])
    # Also where no probe is there twice.
    apart = [row for row in rows if row.level != 2.0 and row.num_latents != 128]
    apart += [row for row in other if row.num_latents == 128]
    with pytest.raises(ValueError, match="report them from separate work directories, or delete"):
        find(apart)


def test_each_site_is_a_comparison_of_its_own():
    rows = fake_results.rows(datasets=("a", "b"))
    deeper = [dataclasses.replace(row, site="blocks.17.resid_post") for row in rows]
    both = findings.find(Results(rows=[*deeper, *rows]))
    assert [one.site for one in both] == ["blocks.17.resid_post", fake_results.SITE]
    wanted = [part.means for part in find(rows).parts]
    assert all([part.means for part in one.parts] == wanted for one in both)
    deep = findings.find(
        Results(rows=[*rows, *deeper]), findings.Selection(site="blocks.17.resid_post")
    )
    assert [one.site for one in deep] == ["blocks.17.resid_post"]
    assert "also holds results of" in deep[0].notes[0]
    with pytest.raises(ValueError, match="got no rows at all"):
        find([])


def test_a_setting_is_told_of_by_the_records_of_its_own_jobs():
    rows = fake_results.rows(datasets=("a", "b"))
    deeper = [dataclasses.replace(row, site="blocks.17.resid_post") for row in rows]
    records = [
        Record(sites=(fake_results.SITE,), solver="newton"),
        Record(sites=("blocks.17.resid_post",), solver="saga", published=True),
    ]
    first, second = findings.find(Results(rows=[*rows, *deeper], records=records))
    assert (first.solver, first.published, first.flagged is None) == ("newton", False, False)
    assert (second.solver, second.published, second.flagged) == ("saga", True, None)


def test_runs_stand_beside_each_other_by_name():
    rows = fake_results.rows(datasets=("a", "b"))
    other = [dataclasses.replace(row, fingerprint="another") for row in rows]
    runs = [Results(rows=rows, name="A"), Results(rows=other, name="B")]
    found = findings.find(runs)
    assert [str(one.setting) for one in found] == [
        f"{fake_results.MODEL} at {fake_results.SITE} ({name})" for name in "AB"
    ]
    with pytest.raises(ValueError, match="distinct names, got 'A', 'A'"):
        findings.find([runs[0], dataclasses.replace(runs[1], name="A")])


def test_features_of_another_kind_enter_neither_side():
    rows = fake_results.rows()
    asked = [
        dataclasses.replace(row, features="prompt", method="lm", kind="other", valid_auroc=1.0)
        for row in rows
        if (row.features, row.method) == ("activations", "logistic")
    ]
    plain, more = find(rows).parts[0], find([*rows, *asked]).parts[0]
    assert more.effects == plain.effects and more.alone_effect == plain.alone_effect
    assert more.choice == plain.choice
    kinds = {mean.arrow.features: mean.kind for mean in more.means}
    assert kinds["prompt"] == "other probe"


def test_the_cost_of_choosing_by_validation():
    rows = fake_results.rows(full=True)
    part = find(rows).parts[0]
    cost = part.choosing[0]
    mine = [r for r in rows if r.protocol == "paper" and r.features == "activations"]
    of = {name: {r.dataset: r for r in mine if r.method == name} for name in fake_results.BASELINES}
    means = {name: np.mean([r.test_auroc for r in by.values()]) for name, by in of.items()}
    best = max(means, key=means.get)
    assert cost.single == Arrow(features="activations", method=best)
    np.testing.assert_allclose(cost.single_mean, means[best])
    chosen = [
        max((of[name][d] for name in of), key=lambda r: r.valid_auroc).test_auroc
        for d in fake_results.DATASETS
    ]
    np.testing.assert_allclose(cost.chosen, np.mean(chosen))
    np.testing.assert_allclose(cost.effect.mean, np.mean(chosen) - means[best])


def _quality(**known):
    return Record(sae_quality={fake_results.SAE: {"all_tokens": known}})


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (_quality(dead=0.95, variance_explained=0.8), ["95 % of its latents are dead"]),
        (_quality(dead=0.1, variance_explained=0.12), ["explains only 12 % of the activations'"]),
        (_quality(dead=0.1, variance_explained=0.8), []),
        (Record(), []),
    ],
)
def test_a_broken_sae_is_named(record, said):
    found = findings.find(Results(rows=fake_results.rows(), records=[record]))[0]
    (health,) = found.health
    assert len(health.faults()) == len(said)
    for wanted in said:
        assert wanted in health.warning()


def test_an_sae_no_better_than_a_random_one_is_named():
    better = {
        (r.dataset, r.num_latents, r.protocol): r.test_auroc + 0.01
        for r in fake_results.rows()
        if (r.features, r.method) == (fake_results.SAE, "logistic_l1")
    }
    rows = [
        dataclasses.replace(r, test_auroc=better[r.dataset, r.num_latents, r.protocol])
        if r.features == "random_sae"
        else r
        for r in fake_results.rows()
    ]
    (health,) = find(rows).health
    assert "are no better than those of a random SAE (-0.010 AUROC" in health.warning()


def test_metrics_and_latents_go_with_their_rows():
    rows = fake_results.rows(datasets=("a", "b"))
    places = np.arange(len(rows), dtype=float)
    latents = [ChosenLatent("a", fake_results.SAE, 7, -0.5, ("one", "two"))]
    results = Results(rows=rows, metrics={"log_loss": places}, latents=latents)
    part = findings.find(results)[0].parts[0]
    wanted = [
        place
        for place, row in enumerate(rows)
        if (row.method, row.protocol, row.features) == ("logistic", "paper", "activations")
    ]
    assert part.means[0].metrics == {"log_loss": np.mean(wanted)}
    with pytest.raises(ValueError, match=r"`metrics\['x'\]` must hold one value per row"):
        Results(rows=rows, metrics={"x": [1.0]})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model": "gemma3"}, "unknown model 'gemma3'; known: gemma3-270m-q4-k-m"),
        ({"site": "blocks.2.resid_post"}, r"unknown site .*; known: blocks\.12\.resid_post"),
        ({"datasets": ("87_glue",)}, "unknown dataset '87_glue'; known: 87_glue_cola, "),
        ({"regimes": ("label noise",)}, "unknown regime 'label noise'; known: label_noise, "),
        ({"baselines": ("logistics",)}, "unknown baseline 'logistics'; known: logistic"),
    ],
)
def test_unknown_names_are_refused_nearest_first(config, message):
    rows = fake_results.rows(regimes=ALL_REGIMES)
    with pytest.raises(ValueError, match=message):
        find(rows, **config)


def test_a_regime_that_does_not_exist_is_refused():
    rows = fake_results.rows(datasets=("a",))
    for field, value in (("regime", "label-noise"), ("protocol", "papr")):
        odd = [*rows, dataclasses.replace(rows[0], **{field: value})]
        with pytest.raises(ValueError, match=f"unknown {field} '{value}'; known: {value[:2]}"):
            find(odd)


def test_extended_baselines_stand_beside():
    rows = fake_results.rows(full=True)
    part = find(rows).parts[0]
    assert [arrow.method for arrow in part.choice.baselines] == list(fake_results.BASELINES)
    assert {arrow.method for arrow in part.choice.extended} == set(fake_results.EXTENDED)
    paper = [row for row in rows if row.method not in fake_results.EXTENDED]
    assert find(paper).parts[0].effects == part.effects
    beside = {one.label: one for one in part.beside}
    assert set(beside) == {
        "random SAE (control)",
        "extended baselines",
        "SAE probes (all baselines)",
    }
    # The best of all baselines, in plain Python.
    best = []
    for dataset in fake_results.DATASETS:
        mine = [
            row
            for row in rows
            if (row.dataset, row.protocol, row.features) == (dataset, "paper", "activations")
            and row.method in (*fake_results.BASELINES, *fake_results.EXTENDED)
        ]
        best.append(max(mine, key=lambda row: row.valid_auroc).test_auroc)
    np.testing.assert_allclose(
        np.mean(beside["extended baselines"].comparison.with_sae_G), np.mean(best)
    )
    np.testing.assert_allclose(
        np.mean(beside["SAE probes (all baselines)"].comparison.base_G), np.mean(best)
    )


def test_without_the_papers_baselines_the_others_take_their_place():
    rows = [
        row
        for row in fake_results.rows(full=True)
        if row.features != "activations" or row.method in ("lda", "ridge")
    ]
    found = find(rows)
    assert [arrow.method for arrow in found.parts[0].choice.baselines] == ["lda", "ridge"]
    assert any("None of the paper's five baselines were run" in note for note in found.notes)
    assert found.parts[0].effects["saes_first"].num_datasets == 10


def test_another_penalty_takes_the_arrows_where_there_is_no_l1():
    rows = [row for row in fake_results.rows(full=True) if row.method != "logistic_l1"]
    found = find(rows)
    assert found.parts[0].choice.sae_method == "logistic_l1_saga"
    first = found.parts[0].choice.saes[0]
    assert (first.k, first.method) == (128, "logistic_l1_saga")
    assert any("the SAE arrows are logistic_l1_saga probes" in note for note in found.notes)
    assert found.parts[0].lines[0].probe.arrow.k in (16, 128)


def test_each_probe_by_itself():
    rows = fake_results.rows(full=True, regimes={"scarcity": (2.0, 14.0)})
    part = find(rows).parts[0]
    means = {str(mean.arrow): mean for mean in part.means}
    kinds = [mean.kind for mean in part.means]
    assert sorted(kinds, key=probe_means.KINDS.index) == kinds
    assert {mean.kind for mean in part.means} == {*probe_means.KINDS} - {probe_means.OTHER}
    assert str(part.reference) == "logistic"

    def plain(features, method, k=0):
        return {
            (row.dataset, row.level): row.test_auroc
            for row in rows
            if (row.features, row.method, row.num_latents) == (features, method, k)
            and row.protocol == "paper"
        }

    logistic, lda = plain("activations", "logistic"), plain("activations", "lda")
    saga = plain(fake_results.SAE, "logistic_l1_saga", 16)
    assert len(lda) == 20
    np.testing.assert_allclose(means["lda"].auroc.mean, np.mean(list(lda.values())))
    gap = np.mean([lda[case] - logistic[case] for case in lda])
    np.testing.assert_allclose(means["lda"].gap.mean, gap)
    assert means["lda"].gap.num_datasets == 10
    name = f"{fake_results.SAE} k=16 logistic_l1_saga"
    np.testing.assert_allclose(means[name].auroc.mean, np.mean(list(saga.values())))
    assert means["logistic"].joined is None and means[name].joined is not None
    assert means["logistic (shuffled labels)"].kind == "control"


def test_readings_compare_rules_and_protocols():
    rows = fake_results.rows(seed=3)
    reading = find(rows).readings[0]
    paper, dedup = (
        fake_results.plain_deltas(rows, p, saes_first=False) for p in ("paper", "dedup")
    )
    gap = reading.protocol_gaps["baselines_first"]
    np.testing.assert_allclose(gap.mean, np.mean(np.array(dedup) - np.array(paper)))
    first = fake_results.plain_deltas(rows, "paper", saes_first=True)
    np.testing.assert_allclose(
        reading.rule_gaps["paper"].mean, np.mean(np.array(first) - np.array(paper)), atol=1e-15
    )
    one = find([row for row in rows if row.protocol == "paper"]).readings[0]
    assert one.protocol_gaps == {} and len(one.effects) == 2


@pytest.mark.parametrize(
    ("directions", "sentence"),
    [
        ((0, 0, 0, 0), "All 4 readings: no difference can be told apart from chance."),
        ((-1, -1, -1, -1), "All 4 readings: SAE probes lower the mean test AUROC."),
        ((0, -1, 0, -1), "The answer depends on the tie rule:"),
        ((0, 0, 1, 1), "The answer depends on the protocol:"),
        ((0, -1, 0, 0), "The answer depends on the protocol and the tie rule:"),
    ],
)
def test_a_reading_says_what_the_answer_rests_on(directions, sentence):
    keys = [(p, rule) for p in ("paper", "dedup") for rule in quiver.TIE_RULES]
    effects = {
        key: quiver.Effect(
            mean=0.01 * way,
            low=0.01 * way - 0.005 - 0.02 * (way == 0),
            high=0.01 * way + 0.005,
            p_value=0.01,
            num_datasets=9,
            num_cases=9,
        )
        for key, way in zip(keys, directions, strict=True)
    }
    reading = sensitivity.Reading(
        regime="standard", effects=effects, protocol_gaps={}, rule_gaps={}
    )
    assert reading.sentence().startswith(sentence)


def test_lines_carry_their_controls():
    rows = fake_results.rows()
    part = find(rows).parts[0]
    line = part.lines[2]
    mine = [r for r in rows if (r.dataset, r.protocol) == (line.dataset, "paper")]
    shuffled = max((r for r in mine if r.control == "shuffled_labels"), key=lambda r: r.valid_auroc)
    random = max(
        (r for r in mine if r.features == "random_sae"),
        key=lambda r: (r.valid_auroc, -r.num_latents),
    )
    assert line.controls["shuffled_labels"] == shuffled.test_auroc
    assert line.controls["random_sae"] == random.test_auroc
    assert "random_latents" in line.controls


def test_the_slip_of_161_to_163_is_said():
    assert any("formatting error" in note for note in find(fake_results.rows()).notes)
    rows = fake_results.rows(datasets=("5_hist_fig_ismale", "16_other"))
    assert not any("formatting error" in note for note in find(rows).notes)
