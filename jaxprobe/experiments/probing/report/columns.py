"""Columns and cells that several tables share: differences, intervals, p-values."""

from jaxprobe import quiver
from jaxprobe.experiments.probing.report import words
from jaxprobe.rendering import Cell, Column, forms
from jaxprobe.rendering.forms import Form

TONES = {1: "up", -1: "down", 0: "even"}
SIGNED = Form(quiver.signed)
DIFFERENCE = Form(lambda x: f"{x:+.3f}" if round(x, 3) else "0.000")
INTERVAL = Form(lambda ends: f"{quiver.signed(ends[0])} to {quiver.signed(ends[1])}")
P_VALUE = Form(words.p_value)
SIX, SIGNED_SIX = forms.decimals(6), forms.decimals(6, "+")  # as published tables are compared


def effect_columns(title: str, group: str = "", only: str = "") -> list[Column]:
    """A difference and its interval."""
    return [
        Column(title=title, form=SIGNED, group=group, only=only),
        Column(title="95 % interval", form=INTERVAL, group=group, only=only),
    ]


def effect_cells(effect: quiver.Effect, *, claim: bool = True) -> list[Cell]:
    """A difference, coloured only where it may be claimed, and its interval."""
    way = quiver.direction(effect) if claim else 0
    return [Cell(effect.mean, tone=TONES[way] if way else ""), Cell((effect.low, effect.high))]


def stacked(effect: quiver.Effect | None, *, claim: bool) -> Cell:
    """A difference above its interval."""
    if effect is None:
        return Cell(None)
    mean, ends = effect_cells(effect, claim=claim)
    return mean._replace(below="" if forms.is_missing(ends.value) else INTERVAL.show(ends.value))
