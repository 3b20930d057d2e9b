"""Tables -> CSV text whose cells no spreadsheet takes for formulas."""

import csv
import io

from jaxprobe import outgoing
from jaxprobe.rendering.blocks import Table, cell


def to_csv(table: Table) -> str:
    """The table's raw values, not as formatted for display, below its columns' keys."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(outgoing.cells([column.key or column.title for column in table.columns]))
    writer.writerows(outgoing.cells([cell(value).value for value in row]) for row in table.rows)
    return text.getvalue()
