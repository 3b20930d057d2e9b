"""Findings: numbers against plain Python, arrows of every kind, rows that are refused."""

import dataclasses

import numpy as np
import pytest

from jaxprobe import quiver
from jaxprobe.stages.reporting import findings, probe_means, sensitivity
from tests import fake_results
from tests.fake_results import ALL_REGIMES


def test_controls_are_never_chosen(tmp_path):
    def tempting(row):
        if quiver.is_control(row.features, row.method):
            return dataclasses.replace(row, valid_auroc=1.0, test_auroc=0.123)
        return row

    rows = fake_results.rows()
    plain, tempted = findings.find(rows), findings.find([tempting(row) for row in rows])
    for one, other in zip(plain.parts, tempted.parts, strict=True):
        assert one.effects == other.effects
        assert one.alone_effect == other.alone_effect
    assert all(control.auroc.mean == 0.123 for part in tempted.parts for control in part.controls)


def test_lines_and_curve_agree_with_plain_python():
    rows = fake_results.rows()
    found = findings.find(rows)
    for part in found.parts:
        for place, dataset in enumerate(fake_results.DATASETS):
            mine = [row for row in rows if (row.dataset, row.protocol) == (dataset, part.protocol)]
            saes = [r for r in mine if (r.features, r.method) == (fake_results.SAE, "logistic_l1")]
            best = max(saes, key=lambda row: (row.valid_auroc, -row.num_latents))
            line = part.lines[place]
            assert line.dataset == dataset
            assert (line.sae, line.num_latents) == (best.test_auroc, best.num_latents)
            by_k = {row.num_latents: row.test_auroc for row in saes}
            np.testing.assert_array_equal(
                part.curve.auroc_GK[fake_results.SAE][place],
                [by_k[k] for k in part.curve.num_latents],
            )


def test_levels_are_paired_and_averaged():
    rows = fake_results.rows(regimes=ALL_REGIMES)
    found = findings.find(rows)
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
    np.testing.assert_allclose(scarcity.lines[3].base, np.mean(mine))


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
    together = {part.regime: effect_of(part) for part in findings.find(rows).parts}
    lonely = {
        regime: effect_of(findings.find([r for r in rows if r.regime == regime]).parts[0])
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
    found = findings.find(rows)
    assert found.parts[0].choice.saes == (f"{fake_results.SAE} k=8", f"{fake_results.SAE} k=4")
    assert any("its quiver arrows are k = 8, 4" in note for note in found.notes)


def test_rows_of_two_runs_are_refused():
    rows = fake_results.rows(datasets=("a",))
    other = [dataclasses.replace(row, fingerprint="another") for row in rows]
    with pytest.raises(
        ValueError, match=r"dataset 'a'.* two fingerprints, 0f3a and another: two diff"
    ):
        findings.find([*rows, *other])
    # Also where no probe is there twice.
    apart = [row for row in rows if row.level != 2.0 and row.num_latents != 128]
    apart += [row for row in other if row.num_latents == 128]
    with pytest.raises(ValueError, match="report them from separate work directories, or delete"):
        findings.find(apart)


def test_sites_are_reported_apart():
    rows = fake_results.rows(datasets=("a", "b"))
    deeper = [dataclasses.replace(row, site="blocks.17.resid_post") for row in rows]
    both = [*rows, *deeper]
    assert findings.find(both).num_rows == len(rows)
    assert "also holds results of" in findings.find(both).notes[0]
    deep = findings.find(both, findings.Selection(site="blocks.17.resid_post"))
    assert deep.site == "blocks.17.resid_post"
    with pytest.raises(ValueError, match="got no rows at all"):
        findings.find([])


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
        findings.find(rows, findings.Selection(**config))


def test_a_regime_that_does_not_exist_is_refused():
    rows = fake_results.rows(datasets=("a",))
    for field, value in (("regime", "label-noise"), ("protocol", "papr")):
        odd = [*rows, dataclasses.replace(rows[0], **{field: value})]
        with pytest.raises(ValueError, match=f"unknown {field} '{value}'; known: {value[:2]}"):
            findings.find(odd)


def test_extended_baselines_stand_beside():
    rows = fake_results.rows(full=True)
    part = findings.find(rows).parts[0]
    assert part.choice.baselines == fake_results.BASELINES
    assert set(part.choice.extended) == set(fake_results.EXTENDED)
    paper = [row for row in rows if row.method not in fake_results.EXTENDED]
    assert findings.find(paper).parts[0].effects == part.effects
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
    found = findings.find(rows)
    assert found.parts[0].choice.baselines == ("lda", "ridge")
    assert any("None of the paper's five baselines was run" in note for note in found.notes)
    assert found.parts[0].effects["saes_first"].num_datasets == 10


def test_another_penalty_takes_the_arrows_where_there_is_no_l1():
    rows = [row for row in fake_results.rows(full=True) if row.method != "logistic_l1"]
    found = findings.find(rows)
    assert found.parts[0].choice.sae_method == "logistic_l1_saga"
    assert found.parts[0].choice.saes[0].endswith("k=128 logistic_l1_saga")
    assert any("the SAE arrows are logistic_l1_saga probes" in note for note in found.notes)
    assert found.parts[0].lines[0].num_latents in (16, 128)


def test_each_probe_by_itself():
    rows = fake_results.rows(full=True, regimes={"scarcity": (2.0, 14.0)})
    part = findings.find(rows).parts[0]
    means = {mean.name: mean for mean in part.means}
    kinds = [mean.kind for mean in part.means]
    assert sorted(kinds, key=probe_means.KINDS.index) == kinds
    assert {mean.kind for mean in part.means} == set(probe_means.KINDS)
    assert part.reference == "logistic"

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
    assert means["logistic_shuffled_labels"].kind == "control"


def test_readings_compare_rules_and_protocols():
    rows = fake_results.rows(seed=3)
    reading = findings.find(rows).readings[0]
    paper, dedup = (
        fake_results.plain_deltas(rows, p, saes_first=False) for p in ("paper", "dedup")
    )
    gap = reading.protocol_gaps["baselines_first"]
    np.testing.assert_allclose(gap.mean, np.mean(np.array(dedup) - np.array(paper)))
    first = fake_results.plain_deltas(rows, "paper", saes_first=True)
    np.testing.assert_allclose(
        reading.rule_gaps["paper"].mean, np.mean(np.array(first) - np.array(paper)), atol=1e-15
    )
    one = findings.find([row for row in rows if row.protocol == "paper"]).readings[0]
    assert one.protocol_gaps == {} and len(one.effects) == 2


@pytest.mark.parametrize(
    ("directions", "sentence"),
    [
        ((0, 0, 0, 0), "All 4 readings: no difference can be told apart from chance."),
        ((-1, -1, -1, -1), "All 4 readings: SAE probes lower the mean test AUROC."),
        ((0, -1, 0, -1), "The answer rests on the tie rule:"),
        ((0, 0, 1, 1), "The answer rests on the protocol:"),
        ((0, -1, 0, 0), "The answer rests on the protocol and the tie rule:"),
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
    part = findings.find(rows).parts[0]
    line = part.lines[2]
    mine = [r for r in rows if (r.dataset, r.protocol) == (line.dataset, "paper")]
    shuffled = max(
        (r for r in mine if r.method.endswith("_shuffled_labels")), key=lambda r: r.valid_auroc
    )
    random = max(
        (r for r in mine if r.features == "random_sae"),
        key=lambda r: (r.valid_auroc, -r.num_latents),
    )
    assert line.controls["shuffled labels"] == shuffled.test_auroc
    assert line.controls["random SAE"] == random.test_auroc
    assert "random latents" in line.controls


def test_the_slip_of_161_to_163_is_said():
    assert any("formatting slip" in note for note in findings.find(fake_results.rows()).notes)
    rows = fake_results.rows(datasets=("5_hist_fig_ismale", "16_other"))
    assert not any("formatting slip" in note for note in findings.find(rows).notes)
