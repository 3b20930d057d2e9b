"""Configs as dataclasses: a schema of the test's own, which the module cannot know."""

import dataclasses
import math
from typing import Annotated

import pytest

from jaxprobe import settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Engine:
    power: Annotated[float, settings.Range(0, 9)] = 1.5
    gears: tuple[settings.Count, ...] = (1, 2)
    name: str = "e"
    size: tuple[int, int] = (1, 1)
    fuels: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Car:
    wheels: settings.Count = 4
    name: str = "c"
    fast: bool = False
    engine: Engine = Engine()


def test_defaults_are_the_fields_own_and_build_back():
    nested = settings.defaults(Car)
    assert nested == {
        "wheels": 4,
        "name": "c",
        "fast": False,
        "engine": {
            "power": 1.5,
            "gears": (1, 2),
            "name": "e",
            "size": (1, 1),
            "fuels": None,
        },
    }
    assert settings.build(Car, nested) == settings.build(Car, {}) == Car()
    assert settings.build(Car, {"engine": None}) == Car()


def test_values_become_what_the_keys_want():
    engine = {"power": 3, "gears": [4], "size": [2, 2], "fuels": ["a", "b"]}
    built = settings.build(Car, {"wheels": 3, "engine": engine})
    assert built == Car(
        wheels=3, engine=Engine(power=3.0, gears=(4,), size=(2, 2), fuels=("a", "b"))
    )
    assert type(built.engine.power) is float and type(built.engine.gears) is tuple
    assert settings.build(Car, {"engine": {"gears": (), "fuels": ()}}).engine.fuels == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"whels": 3}, "unknown key of config 'whels'; known: wheels, name"),
        ({"gears": (1,)}, "unknown key of config 'gears'; .*; 'gears' is a key of config.engine$"),
        (
            {"engine": {"wheels": 2}},
            "unknown key of config.engine 'wheels'; .*; 'wheels' is a key of config$",
        ),
        ({"engine": 3}, "`config.engine` must hold keys and values, got 3"),
        ({"wheels": 0}, "`config.wheels` must lie between 1 and 2,147,483,647, got 0"),
        ({"wheels": 2.0}, "`config.wheels` must be a whole number, got 2.0"),
        ({"wheels": True}, "`config.wheels` must be a whole number, got True"),
        ({"fast": 1}, "`config.fast` must be True or False, got 1"),
        ({"name": 1}, "`config.name` must be a text, got 1"),
        ({"name": None}, "`config.name` must be a text, got None"),
        ({"engine": {"power": 10}}, "`config.engine.power` must lie between 0 and 9, got 10"),
        ({"engine": {"power": math.nan}}, "must be a finite number, got nan"),
        ({"engine": {"power": 10**400}}, "must be a finite number"),
        ({"engine": {"gears": (1, 0)}}, "`config.engine.gears` must lie between 1 and .*, got 0"),
        ({"engine": {"gears": (2, 2)}}, "`config.engine.gears` names 2 twice"),
        ({"engine": {"gears": 2}}, r"must be several values in brackets, got 2; write \(2,\)"),
        ({"engine": {"size": (1,)}}, r"must hold 2 values, got \(1,\)"),
        ({"engine": {"fuels": "a"}}, "`config.engine.fuels` must be several values in brackets"),
        ({"engine": {"fuels": (1,)}}, "`config.engine.fuels` must be a text, got 1"),
    ],
)
def test_what_is_refused_is_named(content, message):
    with pytest.raises(ValueError, match=message):
        settings.build(Car, content)


def test_a_dotted_key_is_followed_through_sections():
    for good in ("wheels", "engine", "engine.gears"):
        settings.check_path(Car, good)
    for bad, message in (
        ("engine.gear", "unknown key of config.engine 'gear'; known: gears"),
        ("motor.gears", "unknown key of config 'motor'"),
        ("name.first", "`config.name` is a value and has no key 'first'"),
    ):
        with pytest.raises(ValueError, match=message):
            settings.check_path(Car, bad)
