"""The layout of a work directory."""

import dataclasses
import os

from jaxprobe.place import Place


@dataclasses.dataclass(frozen=True)
class Workdir:
    """The names of a run's artefacts below its root.

    Attributes:
        root: The directory, or a bucket's folder.
    """

    root: Place

    @classmethod
    def parse(cls, text: "str | os.PathLike | Place | Workdir") -> "Workdir":
        """A path, `memory://`, `gs://` or `s3://`."""
        if isinstance(text, Workdir):
            return text
        return cls(text if isinstance(text, Place) else Place.parse(text))

    def __str__(self) -> str:
        """The text that was parsed."""
        return str(self.root)

    @property
    def activations(self) -> Place:
        """The activation store."""
        return self.root / "activations"

    @property
    def saes(self) -> Place:
        """Trained SAEs and random ones, a folder each."""
        return self.root / "saes"

    @property
    def latents(self) -> Place:
        """Kept latents, a file per SAE, dataset and settings."""
        return self.root / "latents"

    @property
    def jobs(self) -> Place:
        """Finished jobs of the fit stage, one Parquet object each."""
        return self.root / "results"

    @property
    def predictions(self) -> Place:
        """Log-odds of every test row, where a job keeps them: a file per result object."""
        return self.root / "predictions"

    @property
    def probes(self) -> Place:
        """Fitted probes, where a job keeps them: a folder per result object."""
        return self.root / "probes"

    @property
    def plans(self) -> Place:
        """The jobs of each config, a file per config."""
        return self.root / "plans"

    @property
    def records(self) -> Place:
        """Records of runs: config, versions, processor; a file each, named by its content."""
        return self.root / "records"

    @property
    def begun(self) -> Place:
        """What `auto` was resolved to when the directory was first used."""
        return self.root / "begun.json"

    @property
    def run_file(self) -> Place:
        """The record of the last run."""
        return self.root / "run.json"

    @property
    def results(self) -> Place:
        """The rows of the report, in one table."""
        return self.root / "results.parquet"

    @property
    def metrics(self) -> Place:
        """Further metrics of these rows, in long form."""
        return self.root / "metrics.parquet"

    @property
    def report(self) -> Place:
        """The page and the numbers behind it."""
        return self.root / "report"
