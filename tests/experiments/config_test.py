"""What a config asks for: sites, SAEs to train, defaults that only the schema says."""

import dataclasses

import pytest

from jaxprobe import settings
from jaxprobe.base import Site
from jaxprobe.experiments import config, schemas
from jaxprobe.experiments.probing import config as probing
from jaxprobe.stages import report
from jaxprobe.training.settings import SaeToTrain

ONE, TWO = "blocks.1.resid_post", "blocks.2.resid_post"


def test_every_key_is_documented():
    def kinds(kind):
        yield kind
        for hint in settings.keys(kind).values():
            if settings.is_section(hint):
                yield from kinds(hint)

    for kind in kinds(probing.Config):
        own = {*settings.keys(kind)} - (
            {*settings.keys(config.Common)} if kind is probing.Config else set()
        )
        for key in own:
            assert f"        {key}: " in kind.__doc__, f"{kind.__name__}.{key}"


def test_the_stages_have_the_schemas_defaults():
    for section, stage in (
        (config.TrainSae, SaeToTrain),
        (probing.Report, report.ReportConfig),
    ):
        theirs = {field.name: field.default for field in dataclasses.fields(stage)}
        shared = {*settings.keys(section)} & {*theirs} - {"site"}
        assert len(shared) > 3
        for key in shared:
            assert settings.defaults(section)[key] == theirs[key], key


def test_one_site_or_several():
    assert config.sites_of(schemas.read({})) == (Site.parse("blocks.12.resid_post"),)
    assert config.sites_of(schemas.read({"site": ONE})) == (Site.parse(ONE),)
    both = schemas.read({"sites": [TWO, ONE]})
    assert config.sites_of(both) == (Site.parse(TWO), Site.parse(ONE))
    for sites in ((ONE, "model.layers.1"), ("blocks.x.resid_post",)):
        with pytest.raises(ValueError, match=r"twice|a site is"):
            config.sites_of(schemas.read({"sites": sites}))


@pytest.mark.parametrize(
    ("section", "count"),
    [
        (None, 0),
        ({}, 0),
        ({"train": False, "d_sae": 64}, 0),
        ({"train": True}, 2),
        ({"d_sae": 64}, 2),
        ({"sites": (TWO,), "d_saes": (8, 16), "target_l0s": (2.0, 4, 8.0)}, 6),
        ({"architectures": ("topk", "relu"), "d_saes": (8,)}, 4),
    ],
)
def test_every_combination_is_trained_once(section, count):
    job = schemas.read({"sites": (ONE, TWO), "train_sae": section})
    wanted = config.saes_to_train(job)
    assert len({*wanted}) == len(wanted) == count


def test_what_a_combination_says():
    section = {"d_sae": 7, "target_l0s": (2,), "architectures": ("topk",), "held_out": 0.2}
    (one,) = config.saes_to_train(schemas.read({"site": ONE, "train_sae": section}))
    own = {"architecture": "topk", "d_sae": 7, "target_l0": 2.0}
    assert one == SaeToTrain(site=Site.parse(ONE), held_out=0.2, **own)
    assert one.id == f"topk/{ONE}/width_7/l0_2"
    with pytest.raises(
        ValueError, match=rf"sites that baselines read, got {TWO}; add it to config"
    ):
        config.saes_to_train(schemas.read({"site": ONE, "train_sae": {"sites": (TWO,)}}))


def test_a_files_content_stays_as_it_is():
    content = {"train_sae": {"d_sae": 3}}
    schemas.read(content)
    assert content == {"train_sae": {"d_sae": 3}}


def test_an_experiment_that_is_not_known():
    with pytest.raises(ValueError, match=r"unknown config.experiment 'probe'; known: probing"):
        schemas.read({"experiment": "probe"})


@pytest.mark.parametrize(
    ("content", "overridden", "message"),
    [
        ({}, ["site"], None),
        ({"sites": (ONE,)}, ["sites"], None),
        ({"sites": (ONE,)}, ["site", "sites"], None),
        ({"sites": (ONE,)}, ["site"], "config.site has no effect, .* override config.sites$"),
        ({"train_sae": {"d_saes": (8,)}}, ["train_sae.target_l0"], None),
        (
            {"train_sae": {"d_saes": (8,)}},
            ["train_sae.d_sae"],
            "config.train_sae.d_sae has no effect, .* override config.train_sae.d_saes$",
        ),
        ({"train_sae": {"train": False, "seed": 3}}, ["train_sae.train"], None),
        (
            {"train_sae": {"train": False}},
            ["train_sae.seed"],
            "config.train_sae.seed has no effect, .* add --config.train_sae.train=True",
        ),
        ({}, ["train_sae"], None),
    ],
)
def test_an_override_that_would_change_nothing_is_refused(content, overridden, message):
    job = schemas.read(content)
    if message is None:
        config.check_overrides(job, overridden)
        return
    with pytest.raises(ValueError, match=message):
        config.check_overrides(job, overridden)
