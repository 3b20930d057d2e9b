"""The report of the paper's main grid: results -> findings -> blocks.

`inputs` says what it is made of, `findings` holds its numbers, `layout` its order.
"""

from collections.abc import Sequence

from jaxprobe.experiments.experiment import Pages
from jaxprobe.experiments.probing.config import Config
from jaxprobe.experiments.probing.report import files, findings, layout
from jaxprobe.experiments.probing.report.inputs import ChosenLatent, Record, Results
from jaxprobe.experiments.probing.report.selecting import Selection

__all__ = ["ChosenLatent", "Record", "Results", "Selection", "make", "pages"]


def pages(config: Config, results: Sequence[Results]) -> Pages:
    """The report of a job's config."""
    return make(results, Selection(**vars(config.report)))


def make(results: Results | Sequence[Results], selection: Selection | None = None) -> Pages:
    """Lays out the report of one or several runs.

    Args:
        results: Of one run, or of several with names of their own.
        selection: What to report of them; everything where None.

    Raises:
        ValueError: No rows, a name that no row has, or rows of two runs mixed.
    """
    found = findings.find(results, selection)
    return Pages(
        report=layout.lay_out(found),
        beside=files.beside(found[0]),
        inside=files.inside(found),
        names=(*files.BESIDE, *files.INSIDE),
    )
