"""Sets of several classes: the published ones as the csv module reads them, and a job of a user's own."""

import collections
import csv
import io
from types import SimpleNamespace

import numpy as np
import pytest

from jaxprobe import datasets, predictions, results
from jaxprobe.experiments import EXPERIMENTS, schemas
from jaxprobe.place import Place
from jaxprobe.stages import fit
from jaxprobe.stages import run as stage
from jaxprobe.workdir import Workdir
from jaxprobe.workspace import Workspace
from tests import fakes

WORDS = {"sun": "hot", "moon": "cold", "star": "far"}  # class -> the word that gives it away


def write(folder, rows_of_class=120):
    """A CSV file of three classes; returns its path and its (prompt, target) pairs."""
    draw = np.random.default_rng(3)
    pairs = []
    for number in range(rows_of_class * len(WORDS)):
        label = [*WORDS][number % len(WORDS)]
        words = [f"w{n}" for n in draw.integers(0, 300, int(draw.integers(1, 12)))]
        pairs.append((" ".join([*words, WORDS[label] if draw.random() < 0.7 else "none"]), label))
    path = folder / "sky.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("prompt", "target"), *pairs])
    return str(path), pairs


def test_published_sets_are_read_whole(sae_probes_wheel):
    names = datasets.class_names()
    assert len(names) == 20
    layout = datasets._Layout.open(datasets.DEFAULT_SOURCE)
    classes = 0
    for name in names:
        found = datasets.load_classes(name)
        text = layout.read(f"cleaned_data/{name}.csv").decode()
        lines = list(csv.DictReader(io.StringIO(text, newline="")))
        assert found.texts == tuple(line["prompt"] for line in lines)
        column = found.column("class")
        assert [column.names[code] for code in column.code_N] == [line["target"] for line in lines]
        classes += len(column.names)
    assert classes == 89


def test_every_class_of_a_users_file_is_a_dataset_of_its_own(tmp_path, monkeypatch):
    fakes.stand_in(monkeypatch)
    path, pairs = write(tmp_path)
    content = fakes.job(
        [path],
        experiment="one_against_rest",
        train_sae=None,
        encode={"protocols": ("paper",)},
        fit={"controls": False, "keep": ("scores",)},
    )
    stage.run(stage.RunConfig.from_mapping(content), tmp_path / "work")
    work = Place.parse(tmp_path / "work")
    rows = results.read_rows(work / "results.parquet")
    assert collections.Counter(row.dataset for row in rows) == {
        f"sky[class={label}]": 1 for label in WORDS
    }
    for name in (work / "predictions").children():
        record, arrays = predictions.read(work / "predictions" / name)
        label = record["dataset"].partition("=")[2].rstrip("]")
        wanted = [pairs[row][1] == label for row in arrays["0-0/test/row"]]
        assert arrays["0-0/test/y"].tolist() == wanted
        assert set(wanted) == {True, False}
    activations = (work / "activations" / "segments").children()
    assert len(activations) == 2  # the prompts of all classes were run once, in one segment


def test_levels_that_a_class_is_too_small_for_are_told(tmp_path, caplog):
    path, _ = write(tmp_path)
    experiment = EXPERIMENTS["one_against_rest"]
    regimes = {"regimes": ("scarcity",), "protocols": ("paper",)}
    config = schemas.read(
        fakes.job([path], experiment="one_against_rest", train_sae=None, encode=regimes)
    )
    space = Workspace(Workdir.parse(tmp_path), load=experiment.load)
    space.store = SimpleNamespace(digest="fake")
    with caplog.at_level("INFO", logger="absl"):
        fit.outline(experiment, config, space, [path])
    # A class of 120 rows and as many others, less 100 for testing, leave 140: 13 of 20 sizes, 3 classes.
    told = "scarcity, paper: 39 splits; 21 levels skipped, their datasets are too small"
    assert told in [record.getMessage() for record in caplog.records]


def test_a_shifted_set_is_not_to_be_had(tmp_path):
    path, _ = write(tmp_path)
    content = fakes.job([path], experiment="one_against_rest", train_sae=None)
    content["encode"] = {"regimes": ("covariate_shift",), "max_latents": 512}
    with pytest.raises(ValueError, match="must not name covariate_shift"):
        stage.RunConfig.from_mapping(content)
