"""The report stage: its files against plain Python, the terminal, bad input."""

import csv
import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest

from jaxprobe import results
from jaxprobe.place import Place
from jaxprobe.stages import report, run
from tests import fake_results
from tests.fake_results import ALL_REGIMES


def _report(root, **config):
    return report.report(report.ReportConfig(**config), root)


def _csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A quickstart-like work directory, reported; and the terminal's text."""
    root = fake_results.keep(tmp_path_factory.mktemp("quick"), fake_results.rows())
    return root, _report(root)


def test_quiver_csv_agrees_with_plain_python(quick):
    root, _ = quick
    rows = fake_results.rows()
    for name, protocol in (("quiver.csv", "paper"), ("quiver_dedup.csv", "dedup")):
        lines = _csv(root / name)
        assert list(lines[0]) == (
            [
                "regime",
                "tie_rule",
                "n",
                "base",
                "with_sae",
                "delta",
                "se",
                "sae_chosen",
                "wins",
                "ties",
                "losses",
            ]
        )
        assert [(line["regime"], line["tie_rule"]) for line in lines] == [
            ("standard", "baselines_first"),
            ("standard", "saes_first"),
        ]
        for line in lines:
            got = [float(value) for value in list(line.values())[2:]]
            wanted = fake_results.plain_quiver(rows, protocol, line["tie_rule"] == "saes_first")
            np.testing.assert_allclose(got, wanted, rtol=1e-12)


def test_only_dedup_fills_quiver_csv(tmp_path):
    rows = fake_results.rows(protocols=("dedup",))
    root = fake_results.keep(tmp_path, rows)
    _report(root)
    assert not (root / "quiver_dedup.csv").exists()
    wanted = fake_results.plain_quiver(rows, "dedup", saes_first=False)[1]
    np.testing.assert_allclose(float(_csv(root / "quiver.csv")[0]["base"]), wanted)


def test_what_was_changed_or_is_missing_is_refused_by_name(tmp_path):
    rows = fake_results.rows(datasets=("a", "b"))
    root = fake_results.keep(tmp_path / "own", rows)
    assert "Solver" in _report(root)
    (job,) = (root / "results").iterdir()
    content = job.read_bytes()
    job.write_bytes(content.replace(b"paper", b"dedup", 1))
    with pytest.raises(results.TableError, match=rf"{job} is .*delete it and run the fit stage"):
        _report(root)
    job.unlink()
    with pytest.raises(results.TableError, match=f"1 of 1 jobs have no results .*{job.name}"):
        _report(root)


def test_results_of_jobs_that_cannot_be_compared_need_a_config(tmp_path):
    rows = fake_results.rows(datasets=("a", "b"))
    asked = dataclasses.asdict(fake_results.config())
    fake_results.keep(tmp_path, rows, asked=asked)
    fake_results.keep(tmp_path, rows, fake_results.run_record(seeds={}), asked | {"seed": 43})
    with pytest.raises(results.TableError, match="holds the results of 2 jobs"):
        _report(tmp_path)
    job = run.RunConfig(job=dataclasses.replace(fake_results.config(), seed=43))
    assert "On these 2 datasets" in run.run(job, tmp_path, ("report",))


def test_files_of_an_earlier_report_go(tmp_path):
    root = fake_results.keep(tmp_path, fake_results.rows(datasets=("a", "b"), regimes=ALL_REGIMES))
    _report(root)
    assert (root / "report/levels.csv").exists()
    _report(root, regimes=("standard",))
    assert not (root / "report/levels.csv").exists()
    assert (root / "report/probes.csv").exists()


def test_selected_rows_alone_are_reported(tmp_path):
    rows = fake_results.rows(regimes=ALL_REGIMES, full=True)
    config = {"datasets": ("87_glue_cola", "94_ai_gen"), "regimes": ("scarcity",)}
    _report(fake_results.keep(tmp_path, rows), **config, baselines=("lda", "knn"))
    lines = _csv(tmp_path / "quiver.csv")
    assert [line["regime"] for line in lines] == ["scarcity"] * 2
    mine = [r for r in rows if r.dataset in config["datasets"] and r.protocol == "paper"]
    wanted = []
    for dataset in config["datasets"]:
        for level in ALL_REGIMES["scarcity"]:
            two = [
                next(
                    r
                    for r in mine
                    if (r.dataset, r.regime, r.level) == (dataset, "scarcity", level)
                    and (r.features, r.method) == ("activations", method)
                )
                for method in ("lda", "knn")
            ]
            wanted.append(max(two, key=lambda row: row.valid_auroc).test_auroc)
    np.testing.assert_allclose(float(lines[0]["base"]), np.mean(wanted))


def test_without_sae_or_baseline_there_is_a_report(tmp_path):
    for place, wanted in enumerate(("activations", fake_results.SAE)):
        rows = [row for row in fake_results.rows() if row.features == wanted]
        root = fake_results.keep(tmp_path / str(place), rows)
        assert "nothing to compare" in _report(root)
        assert _csv(root / "quiver.csv")[0]["n"] == "0"
        assert "nothing to compare" in (root / "report/index.html").read_text()


def test_several_runs_stand_on_one_page(tmp_path):
    datasets = fake_results.DATASETS[:2]
    for name, seed in (("a", 0), ("b", 1)):
        rows = [
            dataclasses.replace(row, fingerprint=name, converged=True)
            for row in fake_results.rows(datasets, seed=seed)
        ]
        record = fake_results.run_record()
        record["config"]["fit"]["solver"] = f"solver of {name}"
        fake_results.keep(tmp_path / name, rows, record)
    folders = [tmp_path / name for name in "ab"]
    text = report.report_runs(report.ReportConfig(), folders, tmp_path / "both")
    assert "at 2 places" in text or "of 2 places" in text
    page = (tmp_path / "both/report/index.html").read_text()
    for name in "ab":  # what the page says of a run is what its own record says
        assert f"solver of {name}" in page
        assert f"Summary: {fake_results.MODEL} at {fake_results.SITE} ({name})" in page
    assert "../results.parquet" not in page
    assert f"All {2 * len(rows)} fits at 2 places converged." in page
    assert [line["run"] for line in _csv(tmp_path / "both/report/settings.csv")] == [*"aaaabbbb"]
    with pytest.raises(ValueError, match="`runs` must name different work directories, got "):
        report.report_runs(report.ReportConfig(), [folders[0]] * 2, tmp_path / "both")


def test_the_report_stage_needs_no_datasets(tmp_path):
    asked = dataclasses.replace(
        fake_results.config(), model="nowhere", source=str(tmp_path / "gone")
    )
    rows = fake_results.rows(fake_results.DATASETS[:2])
    fake_results.keep(tmp_path, rows, asked=dataclasses.asdict(asked))
    text = run.run(run.RunConfig(job=asked), tmp_path, ("report",))
    assert "On these 2 datasets" in text
    # Leak rates are those of the job that made the results.
    assert (
        "datasets some test prompts are also among the training"
        in (tmp_path / "report/index.html").read_text()
    )


def test_terminal_table(quick):
    _, text = quick
    assert max(map(len, text.splitlines())) <= 100
    assert "Solver: converged" in text
    rows = fake_results.rows()
    row = next(r for r in rows if r.method == "logistic" and r.dataset == "66_living-room")
    line = next(line for line in text.splitlines() if line.startswith("66_living-room"))
    assert line.split()[1] == f"{row.test_auroc:.3f}"
    flat = " ".join(text.split())
    for wanted in (
        "On these 10 datasets adding SAE probes to the baselines",
        "random SAE paper 10 0.7",
        f"{sum(not row.converged for row in rows)} of {len(rows)} fits did not converge",
    ):
        assert wanted in flat


def test_terminal_holds_its_width_with_long_names(tmp_path):
    rows = fake_results.rows(datasets=("x" * 300, "tab\tand\x1b[31mcolour"))
    text = _report(fake_results.keep(tmp_path, rows))
    assert "\x1b" not in text and "\t" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_an_empty_directory_has_nothing_to_report(tmp_path):
    with pytest.raises(results.TableError, match="holds no results"):
        _report(tmp_path)


def test_the_tables_hold_what_the_jobs_found(tmp_path):
    rows = fake_results.rows(datasets=("a",))
    values = [float(at) for at in range(len(rows))]
    fake_results.keep(tmp_path, rows, metrics={"log_loss": values})
    _report(tmp_path)
    kept = results.read_rows(Place.parse(tmp_path / "results.parquet"))
    assert [repr(row) for row in kept] == [repr(row) for row in rows]  # NaN is not equal to itself
    long = pq.read_table(tmp_path / "metrics.parquet").to_pylist()
    assert [line["value"] for line in long] == values
    assert {line["metric"] for line in long} == {"log_loss"}
    assert [line["method"] for line in long] == [row.method for row in rows]


def test_names_that_others_chose_neither_run_in_a_spreadsheet_nor_move_the_cursor(tmp_path):
    escape, formula = "\x1b[31mred\u202e", "=HYPERLINK(1)"
    rows = [
        dataclasses.replace(
            row,
            features=escape if row.features == fake_results.SAE else row.features,
            dataset=formula if row.dataset == "66_living-room" else row.dataset,
        )
        for row in fake_results.rows(fake_results.DATASETS[:3])
    ]
    fake_results.keep(tmp_path, rows)
    shown = report.report(report.ReportConfig(), tmp_path)
    assert all(line.isprintable() for line in shown.split("\n"))
    assert r"\x1b[31mred\u202e" in shown
    for name in ("datasets.csv", "probes.csv"):
        with (tmp_path / "report" / name).open(newline="") as file:
            cells = [cell for line in csv.reader(file) for cell in line]
        assert not [c for c in cells if c.startswith(("=", "@", "\t", "\r"))], name
        numbers = [c for c in cells if c.startswith(("-", "+"))]
        assert all(map(float, numbers)) and (numbers or name == "probes.csv")
        assert f"'{formula}" in cells or name == "probes.csv"
