"""The paper's published result files: `layout` knows the folders, `cells` the CSV files."""

from jaxprobe.published.cells import number
from jaxprobe.published.layout import MARK, SEED, Published, models, read

__all__ = ["MARK", "SEED", "Published", "models", "number", "read"]
