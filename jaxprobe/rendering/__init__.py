"""A report as blocks, and what turns blocks into a page, a terminal's text and CSV files.

Nothing here depends on an experiment: a report is built once, as blocks, and every back end shows the same.
"""

from jaxprobe.rendering.blocks import (
    Block,
    Cell,
    Column,
    Download,
    Figure,
    Grid,
    Headline,
    Points,
    Prose,
    Report,
    Section,
    Table,
)
from jaxprobe.rendering.csv import to_csv
from jaxprobe.rendering.html import to_html
from jaxprobe.rendering.terminal import to_terminal

__all__ = [
    "Block",
    "Cell",
    "Column",
    "Download",
    "Figure",
    "Grid",
    "Headline",
    "Points",
    "Prose",
    "Report",
    "Section",
    "Table",
    "to_csv",
    "to_html",
    "to_terminal",
]
