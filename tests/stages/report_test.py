"""The report: its numbers against plain Python, its page against HTML's rules and a real browser."""

import csv
import dataclasses
import html.parser
import itertools
import json
import math
import re

import numpy as np
import pytest

from jaxprobe import quiver, table
from jaxprobe.stages import report
from jaxprobe.stages.reporting import figures, findings
from tests import chromium, fake_results

ALL_REGIMES = {
    "standard": (math.nan,),
    "scarcity": (2.0, 14.0, 103.0),
    "imbalance": (0.05, 0.5, 0.95),
    "label_noise": (0.0, 0.25),
    "covariate_shift": (math.nan,),
}


def _workdir(root, rows, run=None):
    root.mkdir(parents=True, exist_ok=True)
    table.append(root / "results.parquet", rows)
    if run is not None:
        (root / "run.json").write_text(json.dumps(run))
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


# --- numbers


def _plain_quiver(rows, protocol, saes_first):
    """The quiver of the standard regime in plain Python loops."""
    base, chosen, sae_chosen = [], [], 0
    for dataset in fake_results.DATASETS:
        mine = {
            (row.features, row.method, row.num_latents): row
            for row in rows
            if row.dataset == dataset and row.protocol == protocol
        }
        baseline = mine["activations", "logistic", 0]
        saes = [mine[fake_results.SAE, "logistic_l1", k] for k in (128, 16)]
        best = None
        for row in [*saes, baseline] if saes_first else [baseline, *saes]:
            if best is None or row.valid_auroc > best.valid_auroc:
                best = row
        base.append(baseline.test_auroc)
        chosen.append(best.test_auroc)
        sae_chosen += best is not baseline
    delta = [b - a for a, b in zip(base, chosen, strict=True)]
    n, mean = len(delta), sum(delta) / len(delta)
    se = math.sqrt(sum((d - mean) ** 2 for d in delta) / n) / math.sqrt(n)
    signs = [sum(d > 0 for d in delta), sum(d == 0 for d in delta), sum(d < 0 for d in delta)]
    return [n, sum(base) / n, sum(chosen) / n, mean, se, sae_chosen, *signs]


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
            wanted = _plain_quiver(rows, protocol, line["tie_rule"] == "saes_first")
            np.testing.assert_allclose(got, wanted, rtol=1e-12)


def test_only_dedup_fills_quiver_csv(tmp_path):
    rows = fake_results.rows(protocols=("dedup",))
    root = _workdir(tmp_path, rows)
    _report(root)
    assert not (root / "quiver_dedup.csv").exists()
    wanted = _plain_quiver(rows, "dedup", saes_first=False)[1]
    np.testing.assert_allclose(float(_csv(root / "quiver.csv")[0]["base"]), wanted)


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
    assert [level for level, _ in scarcity.level_effects] == [2, 14, 103]
    name = fake_results.DATASETS[3]
    mine = [
        row.test_auroc
        for row in rows
        if (row.dataset, row.regime, row.protocol) == (name, "scarcity", "paper")
        and (row.features, row.method) == ("activations", "logistic")
    ]
    assert len(mine) == 3
    np.testing.assert_allclose(scarcity.lines[3].base, np.mean(mine))


def test_p_values_are_corrected_over_regimes():
    rows = fake_results.rows(regimes=ALL_REGIMES)
    alone = {
        part.regime: part.alone_effect.p_value
        for part in findings.find(rows).parts
        if part.protocol == "paper"
    }
    lonely = {
        regime: findings.find([r for r in rows if r.regime == regime]).parts[0].alone_effect.p_value
        for regime in ALL_REGIMES
    }
    first = min(lonely, key=lonely.get)
    np.testing.assert_allclose(alone[first], min(1, 5 * lonely[first]))
    assert all(alone[regime] >= lonely[regime] for regime in ALL_REGIMES)


def test_other_k_are_said():
    rows = [row for row in fake_results.rows() if row.num_latents in (0, 1, 4, 8)]
    found = findings.find(rows)
    assert found.parts[0].arrow_names == (f"{fake_results.SAE} k=8", f"{fake_results.SAE} k=4")
    assert any("its quiver arrows are k = 8, 4" in note for note in found.notes)


def test_rows_of_two_runs_are_refused():
    rows = fake_results.rows(datasets=("a",))
    other = [dataclasses.replace(row, fingerprint="another") for row in rows]
    with pytest.raises(ValueError, match=r"twice for dataset 'a'.*separate work directories"):
        findings.find([*rows, *other])


def test_sites_are_reported_apart():
    rows = fake_results.rows(datasets=("a", "b"))
    deeper = [dataclasses.replace(row, site="blocks.17.resid_post") for row in rows]
    both = [*rows, *deeper]
    assert findings.find(both).num_rows == len(rows)
    assert "also holds results of" in findings.find(both).notes[0]
    assert findings.find(both, site="blocks.17.resid_post").site == "blocks.17.resid_post"
    with pytest.raises(ValueError, match=r"at site blocks\.3, got .* at blocks\.12\.resid_post"):
        findings.find(both, site="blocks.3")
    with pytest.raises(ValueError, match="got no rows at all"):
        findings.find([])


def test_without_sae_or_baseline_there_is_a_report(tmp_path):
    for place, wanted in enumerate(("activations", fake_results.SAE)):
        rows = [row for row in fake_results.rows() if row.features == wanted]
        root = _workdir(tmp_path / str(place), rows)
        assert "nothing to compare" in _report(root)
        assert _csv(root / "quiver.csv")[0]["n"] == "0"
        assert "nothing to compare" in (root / "report/index.html").read_text()


# --- the terminal


def test_terminal_table(quick):
    _, text = quick
    assert max(map(len, text.splitlines())) <= 100
    assert "solver converged" in text
    rows = fake_results.rows()
    row = next(r for r in rows if r.method == "logistic" and r.dataset == "66_living-room")
    line = next(line for line in text.splitlines() if line.startswith("66_living-room"))
    assert line.split()[1] == f"{row.test_auroc:.3f}"
    flat = " ".join(text.split())
    for wanted in (
        "On these 10 datasets adding SAE probes to the baselines",
        "shuffled labels, logistic on activations: 0.5",
        "random SAE: 0.7",
        f"{sum(not row.converged for row in rows)} of {len(rows)} fits did not converge",
    ):
        assert wanted in flat


def test_terminal_holds_its_width_with_long_names(tmp_path):
    rows = fake_results.rows(datasets=("x" * 300, "tab\tand\x1b[31mcolour"))
    text = _report(_workdir(tmp_path, rows))
    assert "\x1b" not in text and "\t" not in text
    assert max(map(len, text.splitlines())) <= 100


# --- bad input


def test_bad_input_is_refused_by_name(tmp_path):
    with pytest.raises(table.TableError, match="there are no results"):
        _report(tmp_path)
    _workdir(tmp_path, fake_results.rows(datasets=("a",)))
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json must be JSON"):
        _report(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(TypeError, match=r"run\.json must be a JSON object, got a list"):
        _report(tmp_path)


# --- the page as a document

VOID = {"meta", "link", "input", "br"}


class Document(html.parser.HTMLParser):
    """Elements in order, with a check that every one is closed where it should be."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data

    def all(self, *tags):
        return [attrs for tag, attrs in self.elements if tag in tags]


@pytest.fixture(scope="module")
def document(quick):
    return Document((quick[0] / "report/index.html").read_text(encoding="utf-8"))


def test_page_is_whole_and_reaches_for_nothing(document):
    addresses = [a[name] for _, a in document.elements for name in ("href", "src") if name in a]
    ids = {attrs["id"] for _, attrs in document.elements if "id" in attrs}
    for address in addresses:
        inside = address.startswith("#") and address[1:] in ids
        assert inside or address in (
            *("../results.parquet", "../quiver.csv", "../quiver_dedup.csv"),
            "data:,",
        )
    assert not {"iframe", "img", "object", "embed", "form"} & {tag for tag, _ in document.elements}


def test_names_from_data_stay_text(quick, document):
    assert len(document.all("script")) == 1
    assert not document.all("b")
    assert "<script>alert('x')</script>" in document.text
    assert "<b>not markup</b>" in document.text
    assert not any(name.startswith("on") for _, attrs in document.elements for name in attrs)
    assert "alert('x')" not in (quick[0] / "report/index.html").read_text()


def test_page_is_accessible(document):
    ids = [attrs["id"] for _, attrs in document.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    tables, captions = document.all("table"), document.all("caption")
    assert len(tables) == len(captions) >= 8
    assert all("scope" in attrs for attrs in document.all("th"))
    drawn = [attrs for attrs in document.all("svg") if "aria-hidden" not in attrs]
    assert len(drawn) == 6
    for attrs in drawn:
        assert set(attrs["aria-labelledby"].split()) <= set(ids)
    levels = [int(tag[1]) for tag, _ in document.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    for attrs in document.all("input"):
        assert any(label.get("for") == attrs["id"] for label in document.all("label"))


def test_page_says_what_was_run(document):
    for wanted in (
        "variance_explained",
        "cpu, 2 cores",
        "88.2 s",
        "0.10.2",
        "a5fd3b62",
        "converged",
    ):
        assert wanted in document.text


def test_page_of_all_regimes(tmp_path):
    root = _workdir(tmp_path, fake_results.rows(regimes=ALL_REGIMES))
    _report(root)
    document = Document((root / "report/index.html").read_text())
    for words in ("Covariate shift", "Fraction of flipped training labels", "Training rows"):
        assert words in document.text
    assert len(_csv(root / "quiver.csv")) == 10


def _luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_have_contrast(quick):
    text = (quick[0] / "report/index.html").read_text()
    schemes = re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    assert len(schemes) == 3  # light, dark, print
    for scheme in schemes:
        colours = dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6});", scheme))
        behind = [colours[name] for name in ("paper", "panel") if name in colours]
        names = (
            "ink",
            "soft",
            "link",
            "base",
            "sae",
            "sae1",
            "sae2",
            "sae3",
            "up",
            "down",
            "random",
        )
        for name, back in itertools.product(names, behind):
            if name in colours:
                dark, light = sorted((_luminance(colours[name]), _luminance(back)))
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, back)


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.52, 0.99, math.nan], (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)),
        ([-0.0012, 0.0004], (-0.0015, -0.001, -0.0005, 0, 0.0005)),
        ([0.7], (0.7, 0.7002, 0.7004, 0.7006, 0.7008, 0.701)),
        ([], (0, 0.2, 0.4, 0.6, 0.8, 1)),
    ],
)
def test_scale_ends_on_round_ticks(values, ticks):
    scale = figures.nice_scale(values, 100, 0)
    np.testing.assert_allclose(scale.ticks, ticks, atol=1e-12)
    assert (scale(ticks[0]), scale(ticks[-1])) == (100, 0)


# --- the page in a browser


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    binary = chromium.find()
    if binary is None:
        pytest.skip("no Chromium on PATH; name one in CHROME")
    with chromium.page(binary, tmp_path_factory.mktemp("profile")) as page:
        yield page


NAMES = (
    "[...document.querySelectorAll('#standard-datasets tbody tr')].map(r => r.cells[0].textContent)"
)


def test_sorting_by_a_header(quick, tab):
    tab.open(quick[0] / "report/index.html")
    assert tab.run(NAMES) == list(fake_results.DATASETS)
    found = findings.find(fake_results.rows())
    header = "#standard-datasets th[data-sort]:nth-child(4)"
    rounds = []
    for wanted in ("ascending", "descending"):
        tab.click(f"{header} button")
        assert tab.run(f"document.querySelector('{header}').getAttribute('aria-sort')") == wanted
        rounds.append(tab.run(NAMES))
    lines = sorted(found.parts[0].lines, key=lambda line: line.sae - line.base)
    assert rounds[0] == [line.dataset for line in lines]
    assert rounds[1] == rounds[0][::-1]
    tab.run("document.querySelector('#standard-datasets th[data-sort] button').focus()")
    tab.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", text="\r")
    # Numbers within names sort as numbers.
    by_name = [n for n in tab.run(NAMES) if n[0].isdigit()]
    assert by_name == sorted(by_name, key=lambda name: int(name.split("_")[0]))
    assert tab.errors == []


def test_search_filters_rows(quick, tab):
    tab.open(quick[0] / "report/index.html")
    tab.click("#standard-datasets-search")
    tab.type("AI")
    visible = (
        "[...document.querySelectorAll('#standard-datasets tbody tr')]"
        ".filter(r => r.offsetParent !== null).map(r => r.cells[0].textContent)"
    )
    assert tab.run(visible) == ["94_ai_gen", "110_aimade_humangpt3"]
    status = "document.querySelector('#standard .search [role=status]').textContent"
    assert tab.run(status) == "2 of 10 datasets"
    assert tab.errors == []


def test_dots_name_their_dataset(quick, tab):
    tab.open(quick[0] / "report/index.html")
    tip = (
        "(() => {const t = document.querySelector('.tip'); return t.hidden ? '' : t.textContent})()"
    )
    assert tab.run(tip) == ""
    tab.hover("#standard .scatter .dot:nth-of-type(3) circle")
    assert tab.run(tip).startswith("66_living-room: baseline 0.")
    tab.hover("h1")
    assert tab.run(tip) == ""
    tab.run("document.querySelector('.scatter .dot').focus()")
    assert tab.run(tip).startswith("5_hist_fig_ismale: ")
    tab.press("ArrowLeft")
    assert tab.run(tip).startswith("<script>alert('x')</script>: ")
    assert tab.run("document.querySelectorAll('.scatter .dot[tabindex=\"0\"]').length") == 2
    assert tab.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_page_fits_its_window(quick, tab, width, scheme):
    tab.open(quick[0] / "report/index.html", width=width, height=844, scheme=scheme)
    assert tab.run("document.documentElement.scrollWidth") <= width
    background = tab.run("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(16, 22, 29)"}[scheme]
    assert tab.errors == []


def test_prints_light_and_without_controls(quick, tab):
    tab.open(quick[0] / "report/index.html", scheme="dark", media="print")
    assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.run("document.querySelector('.search').offsetParent") is None
