"""A whole experiment in one place: its config, split rule, metric and report, run from config to page."""

import dataclasses

import numpy as np
import pytest

from jaxprobe import metrics, regimes, rendering, results
from jaxprobe.base import ACTIVATIONS, Arrow, Column
from jaxprobe.experiments import EXPERIMENTS
from jaxprobe.experiments import config as common
from jaxprobe.experiments.experiment import Experiment, Pages, product
from jaxprobe.methods.probes import Engine
from jaxprobe.place import Place
from jaxprobe.stages import run as stage
from tests import fakes

# --- the experiment: does a probe rely on a word that goes along with the label in training?


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(common.Common):
    shares: tuple[float, ...] = (0.5, 0.9)  # of training rows in which word and label agree
    num_train: int = 60


def load(name, source):
    data = fakes.dataset(name, 260)
    word_N = np.array(["w7 " in f"{text} " or len(text) % 2 for text in data.texts], np.int32)
    return dataclasses.replace(data, columns={"word": Column(code_N=word_N, names=("no", "yes"))})


def split(config, data, share):
    y_N, word_N = data.y_N, data.column("word").code_N
    agree_N, rng = y_N == word_N, np.random.default_rng([config.seed, int(100 * share)])
    count = round(share * config.num_train)
    rows = [rng.permutation(np.flatnonzero(kept))[:n]
            for kept, n in ((agree_N, count), (~agree_N, config.num_train - count))]  # fmt: skip
    train_N = np.sort(np.concatenate(rows))
    test_M = np.setdiff1d(np.arange(len(y_N)), train_N)
    return regimes.split_of(
        data, train_N, {"test": test_M}, regime="spurious", level=share, seed=config.seed, group="word"
    )  # fmt: skip


def jobs(config, workspace, name):
    data = workspace.dataset(name)
    arrows = [(Arrow(features=ACTIVATIONS, method="mean_difference"),)]
    splits = [split(config, data, share) for share in config.shares]
    for site in common.sites_of(config):
        yield from product(data, splits, arrows, site, Engine(dtype="float64"))


def report(config, runs):
    (found,) = runs
    lines = list(zip(found.rows, found.metrics["gap"], strict=True))
    rows = [(row.dataset, row.level, row.test_auroc, gap) for row, gap in lines]
    titles = ("dataset", "share", "AUROC", "gap between groups")
    columns = [rendering.Column(title=title) for title in titles]
    table = rendering.Table(
        caption="A word that goes along.", columns=columns, rows=rows, name="gaps"
    )
    section = rendering.Section(name="words", title="Spurious words", blocks=[table])
    whole = rendering.Report(
        title="A word that goes along",
        question="Does a probe rely on a word that goes along?",
        sections=[section],
    )
    return Pages(report=whole, inside={"gaps.csv": table}, names=("gaps.csv",))


def gap(y_M, score_M, weight_M, group_M):
    right_M = ((score_M > 0) == (y_M > 0)) * weight_M
    of = lambda g: (right_M * (group_M == g)).sum() / (weight_M * (group_M == g)).sum()
    return abs(of(0) - of(1))


SPURIOUS = Experiment(
    config=Config, jobs=jobs, load=load, report=report, version=1,
    metrics=("gap", "worst_group_accuracy"),
)  # fmt: skip

# --- what the house makes of it


def test_an_experiment_is_one_file(tmp_path, monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, "spurious", SPURIOUS)
    monkeypatch.setitem(metrics.METRICS, "gap", metrics.Metric(gap))
    fakes.stand_in(monkeypatch)
    content = {"experiment": "spurious", "model": "fake", "dtype": "float32", "datasets": ("a", "b"),
               "site": "blocks.1.resid_post", "shares": (0.5, 0.9)}  # fmt: skip
    config = stage.RunConfig.from_mapping(content)
    text = stage.run(config, tmp_path, tell=lambda text: None)
    assert "A word that goes along" in text
    assert "Spurious words" in (tmp_path / "report" / "index.html").read_text()
    assert (tmp_path / "report" / "gaps.csv").read_text().count("\n") == 5
    work = Place.parse(tmp_path)
    parts = [results.read_job(work / "results" / name) for name in (work / "results").children()]
    assert len(parts) == 2
    for part in parts:
        data = load(part.rows[0].dataset, "")
        assert [row.level for row in part.rows] == [0.5, 0.9]
        assert {row.regime for row in part.rows} == {"spurious"}
        # By hand: the difference of class means, and how often it is right in each group.
        for row, got, worst in zip(
            part.rows, part.metrics["gap"], part.metrics["worst_group_accuracy"], strict=True
        ):
            its = split(config.job, data, row.level)
            tokenizer, site = fakes.FakeTokenizer(), common.sites_of(config.job)[0]
            x_ND = np.stack(
                [fakes.activations([1, *tokenizer.encode(t)], site)[-1] for t in data.texts]
            ).astype(np.float64)
            assert (row.num_train, row.num_test) == (60, 200)
            means = [x_ND[its.train_N][its.y_train_N == y].mean(0) for y in (0, 1)]
            score_M = x_ND[its.test_N] @ (means[1] - means[0])
            positive_M, negative_M = (score_M[its.y_test_N == y] for y in (1, 0))
            wins = (positive_M[:, None] > negative_M[None]).mean()
            assert row.test_auroc == pytest.approx(wins, abs=1e-6)
            assert 0 <= got <= 1 and 0 <= worst <= row.test_accuracy
            groups = [(its.tests[0].group_M == g).mean() for g in (0, 1)]
            high = worst + got  # the better group's accuracy
            assert any(
                groups[g] * worst + groups[1 - g] * high
                == pytest.approx(row.test_accuracy, abs=1e-5)
                for g in (0, 1)
            )
    with pytest.raises(ValueError, match=r"unknown key of config 'sharse'; known: shares"):
        stage.RunConfig.from_mapping({"experiment": "spurious", "sharse": (0.5,)})
