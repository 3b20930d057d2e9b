"""Tables -> CSV text, whose cells no spreadsheet runs."""

import csv
import io

from jaxprobe import outgoing
from jaxprobe.rendering.blocks import Table, cell


def to_csv(table: Table) -> str:
    """The table's values as they are, not as they are shown, below its columns' keys."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(outgoing.cells([column.key or column.title for column in table.columns]))
    writer.writerows(outgoing.cells([cell(value).value for value in row]) for row in table.rows)
    return text.getvalue()
