"""The paper's published files: the whole table of the protocol, gaps, odd layouts, damaged files."""

import collections
import csv
import html
import json
import math
import pathlib
import zlib

import numpy as np
import pytest

from jaxprobe import published, results
from jaxprobe.place import Place
from jaxprobe.stages import report
from jaxprobe.stages.report_published import report_published

PUBLISHED = pathlib.Path(__file__).parents[2] / "shared/reference/published"
needs_files = pytest.mark.skipif(
    not PUBLISHED.is_dir(), reason="the paper's published result files are absent"
)

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
MEANS = {
    ("standard", "logistic", 0): (0.941396, 113),
    ("standard", "pca", 0): (0.926899, 113),
    ("standard", "knn", 0): (0.887244, 113),
    ("standard", "xgboost", 0): (0.932871, 113),
    ("standard", "mlp", 0): (0.936606, 113),
    ("label_noise", "logistic", 0): (0.828296, 1243),
    ("label_noise", "layer_20/width_16k/average_l0_408", 128): (0.802554, 1243),
    ("covariate_shift", "logistic", 0): (0.826480, 8),
    ("covariate_shift", "layer_20/width_131k/average_l0_276", 128): (0.723051, 8),
}


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    """The report of the published files of gemma-2-9b."""
    root = tmp_path_factory.mktemp("gemma")
    text = report_published(report.ReportConfig(), PUBLISHED, "gemma-2-9b", root)
    return root, text


def _csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@needs_files
def test_published_files_give_the_published_table(gemma):
    lines = {(row["regime"], row["tie_rule"]): row for row in _csv(gemma[0] / "quiver.csv")}
    for key, wanted in EXPECTED.items():
        got = [round(float(x), 6) for x in list(lines[key].values())[2:]]
        assert got == list(wanted), key


@needs_files
def test_published_files_give_the_published_means(gemma):
    rows = {
        (
            row["regime"],
            row["method"] if row["features"] == "activations" else row["features"],
            int(row["num_latents"]),
        ): row
        for row in _csv(gemma[0] / "report/probes.csv")
    }
    for key, (mean, count) in MEANS.items():
        assert round(float(rows[key]["test_auroc"]), 6) == mean, key
        assert int(rows[key]["num_cases"]) == count, key


@needs_files
def test_published_results_are_written_whole(gemma):
    root, text = gemma
    flat = " ".join(text.split())
    rows = results.read_rows(Place.parse(root / "results.parquet"))
    count = collections.Counter((row.site, row.regime) for row in rows)
    assert count["blocks.20.resid_post", "scarcity"] == 11235 + 13482
    assert count["embed", "standard"] == 565
    for wanted in ("0.941396", "0.828296", "1967", "757/293/1197", "0.723051", "as published"):
        assert wanted in flat
    assert max(map(len, text.splitlines())) <= 100
    page = (root / "report/index.html").read_text()
    page = html.unescape(page)
    assert (
        "SAE probes added to the baselines: they lower the mean test AUROC in standard, imbalance and label"
        " noise; no difference can be told apart from chance in scarcity. This is the paper split with ties"
        " to the baselines; in scarcity it depends on the tie rule."
    ) in page
    assert "SAE probes alone: they lower the mean test AUROC in standard, " in page
    for words in ("formatting error", "do not say which fits converged", "--source=pypi"):
        assert words in page
    assert "fits did not converge" not in page
    record = json.loads((root / "run.json").read_text())
    assert len(record["published_facts"]) == 2 + 12


# --- numbers as pandas before 3.0 reads them


def _slow_number(text):
    """At most 17 digits, one by one, then one division."""
    whole, _, decimals = text.partition(".")
    digits = (whole + decimals)[:17]
    number = 0.0
    for digit in digits:
        number = number * 10.0 + int(digit)
    return number / 10.0 ** (len(digits) - len(whole))


def test_numbers_are_read_digit_by_digit():
    rng = np.random.default_rng(0)
    texts = [repr(x) for x in rng.uniform(0.1, 1, 5000).tolist()] + [
        "1.0",
        "0.0",
        "0.5",
        "12",
        "7.",
    ]
    assert [published.number(text) for text in texts] == [_slow_number(text) for text in texts]
    assert sum(published.number(text) != float(text) for text in texts) > 100


@pytest.mark.parametrize(
    ("text", "value"),
    [  # from pandas 2.3.3, read_csv
        ("1.9985010855351004e-07", "0x1.ad2cc2534ad61p-23"),
        ("123456789012345678901234567890", "0x1.8ee90ff6c373ep+96"),
        ("0.9995998399359744", "0x1.ffcb8cdb3943cp-1"),
        ("-0.5", "-0x1.0000000000000p-1"),
        ("1e-5", "0x1.4f8b588e368f1p-17"),
    ],
)
def test_numbers_as_pandas_reads_them(text, value):
    assert published.number(text) == float.fromhex(value)


def test_words_are_no_numbers():
    assert math.isnan(published.number("nan"))
    with pytest.raises(ValueError, match="could not convert"):
        published.number("high")


# --- made-up files in the published layout

SCORES = ("test_f1", "test_acc", "test_auc", "val_auc")


def _write(path, columns, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def _scores(*address):
    rng = np.random.default_rng(zlib.crc32(repr(address).encode()))
    return [f"{x:.16f}" for x in rng.uniform(0.5, 1, 4)]


def _baselines(root, name, file, levels, methods, datasets=("a", "b"), level_column="ratio"):
    columns = ["dataset", "method", *([level_column] if level_column else [])]
    with_size = level_column == "ratio"
    rows = [
        [
            d,
            m,
            *([level] if level_column else []),
            *([64] if with_size else []),
            *_scores(d, m, level),
        ]
        for d in datasets
        for level in levels
        for m in methods
    ]
    columns += ["num_train"] if with_size else []
    _write(root / name / file, [*columns, *SCORES], rows)


def _saes(
    root, setting, levels, level_column, saes=("s/width_1m", "s/width_16k"), more=(), ks=(16,)
):
    columns = [*SCORES, "k", "dataset", "layer", "sae_id", "reg_type"]
    rows = [
        [*_scores(d, s, level, k), k, d, 7, s, "l1", *([level] if level_column else []), *more[1:]]
        for d in ("a", "b")
        for level in levels
        for s in saes
        for k in ks
    ]
    columns += ([level_column] if level_column else []) + list(more[:1])
    _write(root / setting / "all_metrics.csv", columns, rows)


@pytest.fixture
def made(tmp_path):
    """A little model with gaps, in a layout of its own."""
    results = tmp_path / "copy" / "results"
    base, saes = results / "baseline_probes_tiny-1b", results / "sae_probes_tiny-1b"
    _baselines(
        base, "normal_settings", "layer7_results.csv", [""], ("logreg", "knn"), level_column=""
    )
    _baselines(
        base, "scarcity", "deep/summary/all_results.csv", (2, 10), ("logreg",), ("a",), "num_train"
    )
    _baselines(base, "imbalance", "all_results.csv", (0.05, 0.5), ("logreg", "xgboost"))
    _saes(saes, "class_imbalance_setting", (0.05, 0.49999999999999994), "frac")
    _saes(saes, "normal_setting", [""], "", ks=(1, 4, 16))
    return results


def test_gaps_are_missing_arrows(made, tmp_path):
    read = published.read(made.parent, "tiny-1b")
    assert read.site == "blocks.7.resid_post"
    assert {row.site for row in read.rows} == {read.site}
    assert list(dict.fromkeys(row.features for row in read.rows)) == (
        ["activations", "s/width_16k", "s/width_1m"]
    )
    levels = {(r.features, r.level) for r in read.rows if r.regime == "imbalance"}
    assert {level for _, level in levels} == {0.05, 0.5}
    text = report_published(report.ReportConfig(), made, "tiny-1b", tmp_path / "out")
    lines = {(x["regime"], x["tie_rule"]): x for x in _csv(tmp_path / "out/quiver.csv")}
    assert lines["imbalance", "saes_first"]["n"] == "4"
    assert lines["standard", "saes_first"]["n"] == "2"
    assert lines["scarcity", "saes_first"]["n"] == "0"  # no SAE was probed there
    assert "Model: tiny-1b; Site: blocks.7.resid_post" in text


def test_only_baselines_or_only_saes(made, tmp_path):
    for kind in ("baseline", "sae"):
        root = tmp_path / kind
        root.mkdir()
        name = f"{kind}_probes_tiny-1b"
        (root / name).symlink_to(made / name)
        text = report_published(report.ReportConfig(), root, "tiny-1b", root / "out")
        assert "nothing to compare" in " ".join(text.split())


def test_saes_that_share_an_id_are_told_apart(tmp_path):
    root = tmp_path / "sae_probes_m"
    for l0 in (20, 40):
        _saes(root / str(l0), "ood_setting", [""], "", saes=("topk",), more=("sae_l0", l0))
    both = [_csv(root / f"{l0}/ood_setting/all_metrics.csv") for l0 in (20, 40)]
    _write(
        root / "ood_setting/all_metrics.csv",
        list(both[0][0]),
        [r.values() for x in both for r in x],
    )
    found = {row.features for row in published.read(tmp_path, "m").rows}
    assert found == {"topk/l0_20", "topk/l0_40"}


def test_noise_free_rows_stand_in_for_a_missing_standard_file(tmp_path):
    _saes(tmp_path / "sae_probes_m", "label_noise_setting", (0, 0.1), "corrupt_frac")
    read = published.read(tmp_path, "m")
    count = collections.Counter(row.regime for row in read.rows)
    assert count == {"label_noise": 8, "standard": 4}
    assert "no file of SAE probes in the standard regime" in read.notes[0]


def test_covariate_shift_without_and_with_an_sae_column(tmp_path):
    path = tmp_path / "baseline_probes_m/ood/all_results.csv"
    _write(path, ["dataset", "test_auc_baseline"], [["a", 0.8], ["b", 0.7]])
    assert [row.test_auroc for row in published.read(tmp_path, "m").rows] == [0.8, 0.7]
    _write(
        path, ["dataset", "test_auc_baseline", "test_auc_sae"], [["a", 0.8, 0.6], ["b", 0.7, ""]]
    )
    _saes(tmp_path / "sae_probes_m", "OOD_setting", [""], "")
    rows = published.read(tmp_path, "m").rows
    # The setting's own file is of another test set, so the column wins.
    assert [row.test_auroc for row in rows if row.features != "activations"] == [0.6]
    assert "1 rows of the files have no test AUROC" in " ".join(published.read(tmp_path, "m").notes)


def test_a_missing_column_is_named(made):
    path = made / "baseline_probes_tiny-1b/imbalance/all_results.csv"
    for column in ("dataset", "method", "ratio", "num_train", *SCORES):
        whole = path.read_text()
        rows = _csv(path)
        kept = [name for name in rows[0] if name != column]
        _write(path, kept, [[row[name] for name in kept] for row in rows])
        with pytest.raises(
            ValueError, match=rf"imbalance/all_results.csv lacks the column `{column}`"
        ):
            published.read(made, "tiny-1b")
        path.write_text(whole)
    path = made / "sae_probes_tiny-1b/class_imbalance_setting/all_metrics.csv"
    path.write_text(path.read_text().replace("sae_id", "sae").replace("frac", "ratio"))
    with pytest.raises(
        ValueError, match=r"lacks the columns `sae_id`, `frac`; wanted .*, got .*ratio"
    ):
        published.read(made, "tiny-1b")


def test_damaged_cells_are_named(made):
    path = made / "baseline_probes_tiny-1b/normal_settings/layer7_results.csv"
    whole = path.read_text()
    lines = whole.splitlines()
    path.write_text("\n".join([*lines[:2], lines[2] + "x"]))
    with pytest.raises(
        ValueError, match=r"layer7_results.csv, line 3: column `val_auc` must hold a num"
    ):
        published.read(made, "tiny-1b")
    path.write_text("\n".join([*lines[:2], lines[2] + ",1"]))
    with pytest.raises(ValueError, match="line 3: 7 fields where the header has 6"):
        published.read(made, "tiny-1b")
    path.write_bytes(whole.encode() + b"\xff")
    with pytest.raises(ValueError, match=r"layer7_results.csv is not UTF-8 text"):
        published.read(made, "tiny-1b")
    path.write_text("")
    with pytest.raises(ValueError, match="got an empty file"):
        published.read(made, "tiny-1b")


def test_unknown_models_and_folders(made, tmp_path):
    (made / "sae_probes_gemma-2-9b").mkdir()
    with pytest.raises(
        ValueError, match="unknown published model 'tiny-1'; known: tiny-1b, gemma-2-9b"
    ):
        published.read(made, "tiny-1")
    with pytest.raises(
        FileNotFoundError, match="is not a folder: wanted folders baseline_probes_MODEL"
    ):
        published.read(tmp_path / "nothing", "tiny-1b")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty holds no published results"):
        published.models(tmp_path / "empty")


def test_a_second_report_changes_nothing(made, tmp_path):
    contents = []
    for _ in range(2):
        report_published(report.ReportConfig(), made, "tiny-1b", tmp_path / "out")
        files = [path for path in (tmp_path / "out").rglob("*.*") if path.name != "run.json"]
        contents.append({path: path.read_bytes() for path in files if path.name != "index.html"})
    assert contents[0] == contents[1] and len(contents[0]) >= 5


def test_other_results_are_not_overwritten(made, tmp_path):
    out = tmp_path / "out"
    report_published(report.ReportConfig(), made, "tiny-1b", out)
    before = (out / "results.parquet").read_bytes()
    path = made / "baseline_probes_tiny-1b/normal_settings/layer7_results.csv"
    path.write_text(path.read_text().replace("logreg", "logistic"))
    with pytest.raises(results.TableError, match=r"holds other results .* name another --workdir"):
        report_published(report.ReportConfig(), made, "tiny-1b", out)
    assert (out / "results.parquet").read_bytes() == before


def test_published_rows_are_controls_of_nothing(made):
    rows = published.read(made, "tiny-1b").rows
    assert not any(row.control for row in rows)
    assert {row.fingerprint[:10] for row in rows} == {published.MARK}
    assert not any(row.converged for row in rows)
