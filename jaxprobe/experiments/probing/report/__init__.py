"""The report of the paper's main grid: results -> findings -> blocks.

`inputs` says what it is made of, `findings` holds its numbers, `layout` its order.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxprobe.experiments.probing.report import files, findings, layout
from jaxprobe.experiments.probing.report.inputs import ChosenLatent, Record, Results
from jaxprobe.experiments.probing.report.selecting import Selection
from jaxprobe.rendering import Report, Table

__all__ = ["ChosenLatent", "Made", "Record", "Results", "Selection", "make"]


class Made(NamedTuple):
    """A report, and the tables of its CSV files.

    Attributes:
        report: Its blocks.
        beside: Tables of the files in the work directory, by name: `quiver.csv`.
        inside: Tables of the files in `report/`, by name, which the page carries as well.
    """

    report: Report
    beside: Mapping[str, Table]
    inside: Mapping[str, Table]


def make(results: Results | Sequence[Results], selection: Selection | None = None) -> Made:
    """Lays out the report of one or several runs.

    Args:
        results: Of one run, or of several with names of their own.
        selection: What to report of them; everything where None.

    Raises:
        ValueError: No rows, a name that no row has, or rows of two runs mixed.
    """
    found = findings.find(results, selection)
    return Made(layout.lay_out(found), files.beside(found[0]), files.inside(found))
