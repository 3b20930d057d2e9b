"""The report of the paper's main grid: results -> findings -> blocks.

`inputs` reads the records, `findings` holds the numbers, `layout` puts the blocks in order.
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
    """Makes the report of one or several runs.

    Args:
        results: Results of one run, or of several runs with distinct names.
        selection: Which results to report; all where None.

    Raises:
        ValueError: No rows, a name that no row has, or rows of two different runs mixed.
    """
    found = findings.find(results, selection)
    return Pages(
        report=layout.lay_out(found),
        beside=files.beside(found[0]),
        inside=files.inside(found),
        names=(*files.BESIDE, *files.INSIDE),
    )
