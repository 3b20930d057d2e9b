"""The report's page as a document: HTML's rules, what it says, what it reaches for."""

import base64
import csv
import dataclasses
import html.parser
import io
import itertools
import re

import numpy as np
import pytest

from jaxprobe import datasets, quiver, records, regimes, rendering
from jaxprobe.experiments.probing import leaks
from jaxprobe.experiments.probing import report as probing_report
from jaxprobe.experiments.probing.report import words
from tests import fake_results


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A quickstart-like work directory, reported."""
    return fake_results.reported(tmp_path_factory.mktemp("quick"), fake_results.rows())


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
        assert (
            inside
            or address.startswith("data:")
            or address in (*("../results.parquet", "../quiver.csv", "../quiver_dedup.csv"),)
        )
    assert not {"iframe", "img", "object", "embed", "form"} & {tag for tag, _ in document.elements}


def test_page_carries_its_numbers(quick, document):
    root, _ = quick
    carried = {
        a["download"]: base64.b64decode(a["href"].partition("base64,")[2])
        for a in document.all("a")
        if a.get("href", "").startswith("data:text/csv")
    }
    assert carried.keys() == {"quiver.csv", "quiver_dedup.csv", "probes.csv", "datasets.csv"}
    for name, content in carried.items():
        path = root / name if name.startswith("quiver") else root / "report" / name
        assert content == path.read_bytes()
    lines = list(csv.DictReader(io.StringIO(carried["datasets.csv"].decode())))
    assert len(lines) == 20
    assert lines[0]["dataset"] == fake_results.DATASETS[0]
    for name in ("baseline", "sae_probe", "difference", "random_SAE", "shuffled_labels"):
        assert 0 <= abs(float(lines[0][name])) <= 1


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
    assert len(drawn) == 8  # per protocol: quiver, effects, AUROC by k, scatter
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
        records.device(),
        "88.2 s",
        records.versions()["jax"],
        "a5fd3b62",
        "converged",
    ):
        assert wanted in document.text


def made(results, **selection):
    """The page and the terminal's text of typed results."""
    report = probing_report.make(results, probing_report.Selection(**selection)).report
    return Document(rendering.to_html(report)), rendering.to_terminal(report)


def test_both_answers_stand_first(quick, document):
    text = document.text
    first = "On these 10 datasets the SAE probes were worse than the baselines by 0.013 AUROC (95 %"
    joined = "Adding SAE probes to the baselines made the result worse by 0.001 AUROC"
    assert text.index("Verdict") < text.index(first) < text.index(joined) < text.index("Quiver of")
    lines = " ".join(quick[1].split())
    assert lines.index(first) < lines.index(joined) < lines.index("Standard, paper split")
    assert lines.index("Standard, paper split") < 1000
    cards = [attrs["class"] for attrs in document.all("article")]
    assert cards == ["card even", "card down"]  # the loss has a card of its own


@pytest.mark.parametrize(
    ("effect", "said"),
    [
        (
            (-0.014, -0.02, -0.01, 0.004),
            "worse than b by 0.014 AUROC (95 % interval of the difference",
        ),
        ((0.014, 0.01, 0.02, 0.0004), "+0.010 to +0.020, p < 0.001)"),
        ((0.004, -0.01, 0.02, 0.4), "-0.010 to +0.020, which chance alone could explain)"),
        ((0.0, 0.0, 0.0, 1.0), "neither better nor worse than b"),
    ],
)
def test_a_comparison_in_words(effect, said):
    mean, low, high, p_value = effect
    fields = {"mean": mean, "low": low, "high": high, "p_value": p_value}
    effect = quiver.Effect(**fields, num_datasets=8, num_cases=8)
    assert said in words._compared(effect, "than b")


def test_a_broken_sae_is_said_above_the_numbers():
    tokens = {"variance_explained": 0.11, "dead": 0.95}
    record = probing_report.Record(sae_quality={fake_results.SAE: {"all_tokens": tokens}})
    rows = fake_results.rows(fake_results.DATASETS[:2])
    for shown in made(probing_report.Results(rows=rows, records=[record])):
        text = " ".join(getattr(shown, "text", shown).split())
        at = text.index("95 % of its latents are dead")
        assert text.index("On these 2 datasets") < at < text.index("Standard, paper split")
        assert "it explains only 11 % of the activations' variance" in text


def test_latents_and_metrics_are_shown_where_they_are_given(document):
    rows = fake_results.rows(fake_results.DATASETS[:2], protocols=("paper",))
    latents = [
        probing_report.ChosenLatent("66_a", fake_results.SAE, 1234, -0.25, ("<i>a text</i>", "b"))
    ]
    metrics = {"log_loss": np.full(len(rows), 0.625)}
    results = probing_report.Results(rows=rows, latents=latents, metrics=metrics)
    page, _ = made(results)
    for wanted in (
        "what do they fire on?",
        "1234",
        "-0.250",
        "<i>a text</i> | b",
        "log loss",
        "0.625",
    ):
        assert wanted in page.text
    assert "what do they fire on?" not in document.text
    table = probing_report.make(results).inside["probes.csv"]
    assert [row[-1] for row in table.rows] == [0.625] * len(table.rows)


def test_layers_by_saes(tmp_path):
    rows = []
    for seed, layer in enumerate((5, 9, 12, 15, 17)):
        names = {
            fake_results.SAE: f"layer_{layer}/w16",
            fake_results.WIDE_SAE: f"layer_{layer}/w65",
        }
        for row in fake_results.rows(fake_results.DATASETS[:3], seed=seed, full=layer == 9):
            features = names.get(row.features, row.features)
            site = f"blocks.{layer}.resid_post"
            rows.append(dataclasses.replace(row, site=site, features=features))
    root, text = fake_results.reported(tmp_path, rows)
    page = Document((root / "report/index.html").read_text())
    heat = [
        a["aria-label"] for a in page.all("g") if "blocks.9.resid_post, w65: " in a["aria-label"]
    ]
    cells = [a for a in page.all("rect") if a["class"].startswith("heat")]
    assert len(heat) == 1 and len(cells) == 6  # five places, and a second SAE at one of them
    assert "at 5 places" in text or "of 5 places" in text
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    with (root / "report/settings.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 5 * 2 * 2 and lines[4]["site"] == "blocks.9.resid_post"
    with (root / "quiver.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    assert first == {name: lines[0][name] for name in first}
    mine = [row for row in rows if row.site == "blocks.9.resid_post"]
    alone, _ = fake_results.reported(tmp_path / "alone", mine)
    with (alone / "quiver.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    assert first == {name: lines[4][name] for name in first}


def test_page_of_all_regimes(tmp_path):
    rows = fake_results.rows(regimes=fake_results.ALL_REGIMES, full=True)
    root, _ = fake_results.reported(tmp_path, rows)
    document = Document((root / "report/index.html").read_text())
    for wanted in (
        *("Covariate shift", "Fraction of flipped training labels", "Training rows"),
        *("extended baseline", "other SAE probe", "mean_difference", "best_latents"),
        *("random SAE (control)", "SAE probes (all baselines)", "Change with"),
    ):
        assert wanted in document.text
    ids = [attrs["id"] for _, attrs in document.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert len((root / "quiver.csv").read_text().splitlines()) == 11
    levels = list(csv.DictReader(io.StringIO((root / "report/levels.csv").read_text())))
    assert len(levels) == 2 * 2 * (3 + 3 + 2)


@pytest.mark.parametrize("left_out", ["activations", "saes", "controls", "paper", "dedup", "k"])
def test_page_of_any_subset(tmp_path, left_out):
    few = fake_results.DATASETS[:3]
    rows = fake_results.rows(few, regimes=fake_results.ALL_REGIMES, full=True)
    kept = [
        row
        for row in rows
        if not {
            "activations": row.features == "activations",
            "saes": row.features != "activations",
            "controls": row.control != "",
            "paper": row.protocol == "paper",
            "dedup": row.protocol == "dedup",
            "k": row.num_latents in (16, 128),
        }[left_out]
    ]
    # And no regime has all methods on all datasets.
    kept = [row for row in kept if len(row.method + row.regime) % 4 or row.dataset > "2"]
    root, text = fake_results.reported(tmp_path, kept)
    Document((root / "report/index.html").read_text())
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    ("ids", "short"),
    [
        (("one",), ()),
        (("layer_20/width_16k/l0_408", "layer_20/width_131k/l0_276"), ("width_16k", "width_131k")),
        (("block12-4096", "block12-16384"), ("4096", "16384")),
        (("a/b", "c"), ("a/b", "c")),
        (("x" * 40 + "/1/2", "y"), ("xxxxxxxxxxx…xxxxxxxx/1/2", "y")),
    ],
)
def test_saes_have_short_names(ids, short):
    found = words.short_names(ids)
    assert [found[name] for name in ids if found] == list(short)


def test_leaks_are_counted(document):
    flat = " ".join(document.text.split())
    assert "In 9 of 10 datasets some test prompts are also among the training rows" in flat
    assert "6 of 10 datasets hold one prompt under both labels (9 prompts in all)" in flat
    heads = [cell for cell in ("Leak rate", "Prompts under both labels") if cell in flat]
    assert len(heads) == 2


def test_leaks_by_hand(tmp_path):
    path = tmp_path / "mine.csv"
    rows = [(f"text {i % 150}", (i % 150) % 2) for i in range(400)]
    rows[3] = ("text 4", 1)  # one prompt under both labels
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("prompt", "target"), *rows])
    (name, leak), *_ = leaks.measure([datasets.load(str(path), "")], 42).items()
    texts = [text for text, _ in rows]
    assert leak["rows"] == 400
    assert leak["distinct prompts"] == len(set(texts)) == 150
    assert leak["prompts under both labels"] == 1
    assert leak["rows after dedup"] == 149
    dataset = datasets.load(str(path), "")
    split = regimes.splits(dataset, seed=42)[0]
    train = {texts[i] for i in split.train_N}
    shared = [texts[i] in train for i in split.test_N]
    assert leak["leak rate"] == np.mean(shared) > 0.5
    assert name == dataset.name
    said = leaks.sentences({name: leak, "odd": 3})
    assert said[0].startswith("In 1 of 1 dataset some")
    assert said[1] == "1 of 1 dataset holds one prompt under both labels (1 prompt in all)."


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
