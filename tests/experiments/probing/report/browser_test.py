"""The report's page in a real headless Chromium: sorting, search, tooltips, sizes, downloads, print."""

import math
import time

import pytest

from jaxprobe.experiments.probing.report import findings
from jaxprobe.experiments.probing.report.inputs import Results
from tests import chromium, fake_results


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A quickstart-like work directory, reported."""
    return fake_results.reported(tmp_path_factory.mktemp("quick"), fake_results.rows())


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
    found = findings.find(Results(rows=fake_results.rows()))[0]
    header = "#standard-datasets th[data-sort]:nth-child(5)"
    rounds = []
    for wanted in ("ascending", "descending"):
        tab.click(f"{header} button")
        assert tab.run(f"document.querySelector('{header}').getAttribute('aria-sort')") == wanted
        rounds.append(tab.run(NAMES))
    lines = sorted(found.parts[0].lines, key=lambda line: line.difference)
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
    tab.run("document.querySelector('#standard .scatter .dot').focus()")
    assert tab.run(tip).startswith("5_hist_fig_ismale: ")
    tab.press("ArrowLeft")
    assert tab.run(tip).startswith("<script>alert('x')</script>: ")
    assert tab.run("document.querySelectorAll('.scatter .dot[tabindex=\"0\"]').length") == 4
    assert tab.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_page_fits_its_window(quick, tab, width, scheme):
    tab.open(quick[0] / "report/index.html", width=width, height=844, scheme=scheme)
    assert tab.run("document.documentElement.scrollWidth") <= width
    background = tab.run("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(16, 22, 29)"}[scheme]
    assert tab.errors == []


def test_tooltip_goes_with_escape_and_with_the_focus(quick, tab):
    tab.open(quick[0] / "report/index.html")
    hidden = "document.querySelector('.tip').hidden"
    for leave in ("Escape", None):
        tab.run("document.querySelector('#standard .scatter .dot').focus()")
        assert tab.run(hidden) is False
        if leave:
            tab.press(leave)
        tab.run("document.activeElement.blur()")
        assert tab.run(hidden) is True


def test_focus_is_seen(quick, tab):
    tab.open(quick[0] / "report/index.html")
    seen = set()
    for _ in range(24):
        tab.press("Tab")
        name = tab.run("document.activeElement.tagName")
        seen.add(name)
        if name == "g":  # a dot grows a ring
            ring = "getComputedStyle(document.activeElement.querySelector('.hit'))"
            assert tab.run(f"{ring}.strokeWidth") == "2px"
            continue
        style = "getComputedStyle(document.activeElement)"
        assert tab.run(f"{style}.outlineStyle") == "solid"
        assert float(tab.run(f"{style}.outlineWidth").removesuffix("px")) >= 2
    assert seen == {"A", "DIV", "g", "INPUT", "BUTTON"}


def test_probes_sort_by_number_and_by_kind(quick, tab):
    tab.open(quick[0] / "report/index.html")
    column = "[...document.querySelectorAll('#standard-probes tbody tr')].map(r => r.cells[{}].textContent)"
    header = "#standard-probes thead tr:last-child th:nth-child({})"
    tab.click(header.format(5) + " button")
    numbers = [float(text) for text in tab.run(column.format(4))]
    assert numbers == sorted(numbers)
    tab.click(header.format(2) + " button")
    kinds = tab.run(column.format(1))
    assert kinds == sorted(kinds, key=str.lower) and "control" in kinds
    sorts = "[...document.querySelectorAll('#standard-probes th[aria-sort]')].map(h => h.ariaSort)"
    assert tab.run(sorts).count("ascending") == 1
    tab.click("#standard-probes-search")
    tab.type("k=512")
    status = "[...document.querySelectorAll('#standard .search [role=status]')][1].textContent"
    assert tab.run(status) == f"4 of {len(kinds)} probes"
    assert tab.errors == []


def test_numbers_inside_the_page_can_be_saved(quick, tab, tmp_path):
    tab.open(quick[0] / "report/index.html")
    tab.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    tab.click("#downloads a[download='quiver.csv'][href^='data:']")
    saved = tmp_path / "quiver.csv"
    end = time.monotonic() + 20
    while not saved.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert saved.read_bytes() == (quick[0] / "quiver.csv").read_bytes()
    assert tab.errors == []


def test_page_makes_no_request(quick, tab):
    tab.call("Network.enable")
    tab.open(quick[0] / "report/index.html")
    names = "performance.getEntriesByType('resource').map(e => e.name)"
    assert [name for name in tab.run(names) if not name.startswith("data:")] == []


def test_prints_light_and_without_controls(quick, tab):
    tab.open(quick[0] / "report/index.html", scheme="dark", media="print")
    assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.run("document.querySelector('.search').offsetParent") is None
    boxes = "[...document.querySelectorAll('.scroll')]"
    assert tab.run(f"{boxes}.every(e => getComputedStyle(e).overflowY === 'visible')")


CUT = (
    "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
    ".map(e => e.ariaLabel + ' ' + e.scrollWidth + ' of ' + e.clientWidth)"
)


@pytest.mark.parametrize("full", [False, True])
def test_nothing_is_cut_on_an_ordinary_screen(tab, tmp_path, full):
    regimes = {"standard": (math.nan,), "scarcity": (2.0, 14.0)} if full else None
    root, _ = fake_results.reported(tmp_path, fake_results.rows(full=full, regimes=regimes))
    tab.open(root / "report/index.html", width=1280)
    cut = tab.run(CUT)
    assert cut == []
