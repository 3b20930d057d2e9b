"""The report stage: its files against plain Python, the terminal, bad input."""

import csv
import dataclasses
import os

import numpy as np
import pytest

from jaxprobe import boundary, sealed, table
from jaxprobe.stages import report, run, run_file
from tests import fake_results
from tests.fake_results import ALL_REGIMES

"""The report: its numbers against plain Python, the terminal, bad input."""


def _workdir(root, rows, run=None):
    root.mkdir(parents=True, exist_ok=True)
    table.append(root / "results.parquet", rows)
    if run is not None:
        (root / "run.json").write_bytes(sealed.to_json(run))
    return root


def _report(root, **config):
    return report.report(report.ReportConfig(**config), root)


def _csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A quickstart-like work directory, reported; and the terminal's text."""
    root = _workdir(
        tmp_path_factory.mktemp("quick"), fake_results.rows(), fake_results.run_record()
    )
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
    root = _workdir(tmp_path, rows)
    _report(root)
    assert not (root / "quiver_dedup.csv").exists()
    wanted = fake_results.plain_quiver(rows, "dedup", saes_first=False)[1]
    np.testing.assert_allclose(float(_csv(root / "quiver.csv")[0]["base"]), wanted)


def test_a_table_of_another_run_is_refused(tmp_path):
    rows = fake_results.rows(datasets=("a", "b"))
    run = {"results": report.fingerprints(rows)}
    root = _workdir(tmp_path / "own", rows, run)
    assert "Solver" in _report(root)
    other = [dataclasses.replace(row, fingerprint="another") for row in rows]
    root = _workdir(tmp_path / "other", other, run)
    with pytest.raises(
        table.TableError, match=r"with fingerprint another, run.json beside it tells of 0f3a"
    ):
        _report(root)
    # Results that the run has not recorded yet are its own.
    more = [*rows, *fake_results.rows(datasets=("c",))]
    assert "Solver" in _report(_workdir(tmp_path / "more", more, run))


def test_files_of_an_earlier_report_go(tmp_path):
    root = _workdir(tmp_path, fake_results.rows(datasets=("a", "b"), regimes=ALL_REGIMES))
    _report(root)
    assert (root / "report/levels.csv").exists()
    _report(root, regimes=("standard",))
    assert not (root / "report/levels.csv").exists()
    assert (root / "report/probes.csv").exists()


def test_selected_rows_alone_are_reported(tmp_path):
    rows = fake_results.rows(regimes=ALL_REGIMES, full=True)
    config = {"datasets": ("87_glue_cola", "94_ai_gen"), "regimes": ("scarcity",)}
    _report(_workdir(tmp_path, rows), **config, baselines=("lda", "knn"))
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
        root = _workdir(tmp_path / str(place), rows)
        assert "nothing to compare" in _report(root)
        assert _csv(root / "quiver.csv")[0]["n"] == "0"
        assert "nothing to compare" in (root / "report/index.html").read_text()


def test_several_runs_stand_on_one_page(tmp_path):
    datasets = fake_results.DATASETS[:2]
    record = fake_results.run_record()
    for name, seed in (("a", 0), ("b", 1)):
        rows = [
            dataclasses.replace(row, fingerprint=name)
            for row in fake_results.rows(datasets, seed=seed)
        ]
        _workdir(tmp_path / name, rows, record | {"solver": f"solver of {name}"})
    folders = [tmp_path / name for name in "ab"]
    text = report.report_runs(report.ReportConfig(), folders, tmp_path / "both")
    assert "at 2 places" in text or "of 2 places" in text
    page = (tmp_path / "both/report/index.html").read_text()
    for name in "ab":  # what the page says of a run is what its own record says
        assert f"solver of {name}" in page
        assert f"Summary: {fake_results.MODEL} at {fake_results.SITE} ({name})" in page
    assert "../results.parquet" not in page
    assert [line["run"] for line in _csv(tmp_path / "both/report/settings.csv")] == [*"aaaabbbb"]
    with pytest.raises(ValueError, match="`runs` must name different work directories, got "):
        report.report_runs(report.ReportConfig(), [folders[0]] * 2, tmp_path / "both")


def test_the_report_stage_needs_no_datasets(tmp_path):
    record = fake_results.run_record()
    _workdir(tmp_path, fake_results.rows(fake_results.DATASETS[:2]), record)
    given = {"model": "nowhere", "source": str(tmp_path / "gone"), "site": fake_results.SITE}
    text = run.run(run.RunConfig.from_mapping(given), tmp_path, ("report",))
    assert "On these 2 datasets" in text
    leaks = run_file.read(tmp_path / "run.json")["leaks"]
    assert leaks == record["leaks"]  # those of the job that made the results


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
    text = _report(_workdir(tmp_path, rows))
    assert "\x1b" not in text and "\t" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_bad_input_is_refused_by_name(tmp_path):
    with pytest.raises(table.TableError, match="there are no results"):
        _report(tmp_path)
    _workdir(tmp_path, fake_results.rows(datasets=("a",)))


DEEP = "[" * 200_000
NOT_RECORDS = {
    "{": r"Expecting property name",
    "[]": "it must hold a JSON object, got a list",
    DEEP: "nested too deep",
    '{"x": ' + DEEP[:900] + "]" * 900 + "}": "nested deeper than 64 levels",
    '{"x": 1' + "0" * 400 + "}": "a number of 1329 bits",
    '{"times": [1]}': "its `times` must be an object, got a list",
    '{"times": {"fit": "x"}}': "the `times` of 'fit' must be a number of seconds",
    '{"times": {"fit": null}}': "the `times` of 'fit'",
    '{"times": {"fit": -1}}': "the `times` of 'fit'",
    '{"times": {"fit": Infinity}}': "the `times` of 'fit'",
    '{"config": [1]}': "its `config` must be an object, got a list",
    '{"results": 3}': "its `results` must be an object, got a int",
    '{"results": {"a": 3}}': "the `results` of 'a' must be lists of fingerprints",
    '{"results": {"a": {"activations": "x"}}}': "the `results` of 'a'",
    '{"versions": {}}': "must hold a digest of its content",
}


def test_a_record_of_another_shape_is_one_sentence_in_the_report_and_the_run(tmp_path):
    _workdir(tmp_path, fake_results.rows(datasets=("a",)))
    path = tmp_path / "run.json"
    for content, told in NOT_RECORDS.items():
        path.write_text(content)
        with pytest.raises(boundary.FileError, match=rf"^{path} .*{told}.*delete it to report"):
            _report(tmp_path)
        assert run_file.earlier(path) == {}
    path.unlink()
    for make in (os.mkdir, os.mkfifo):
        make(path)
        with pytest.raises(boundary.FileError, match=rf"{path} must be a regular file, got a "):
            _report(tmp_path)
        assert run_file.earlier(path) == {}
        os.rmdir(path) if path.is_dir() else path.unlink()
    # What a person wrote needs no digest, and what a run wrote is a record.
    path.write_text('{"times": {"fit": 0, "encode": 2.5}, "note": [1, {"a": null}]}')
    assert run_file.earlier(path)["times"] == {"fit": 0, "encode": 2.5}
    assert _report(tmp_path)
    path.write_bytes(sealed.to_json(fake_results.run_record()))
    assert run_file.earlier(path) == fake_results.run_record()


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
    table.write(tmp_path / "results.parquet", table.of_rows(rows))
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
