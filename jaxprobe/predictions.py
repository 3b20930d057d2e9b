"""Per-example scores and fitted probes that a job keeps, in addition to its result object."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxprobe import sealed
from jaxprobe.jobs import Evaluation, Job
from jaxprobe.place import Place
from jaxprobe.workdir import Workdir

ABOUT = "about.json"  # in the folder of a job's probes
_ENTRY = "predictions"
_AGAIN = "delete the job's object below results/ and run the fit stage again"


def keep(work: Workdir, name: str, job: Job, found: Sequence[Evaluation]) -> None:
    """Writes a job's predictions and probes, before the job's object marks it as done.

    Args:
        work: The work directory.
        name: The job's object, without its ending.
        job: The job.
        found: The job's evaluations, split by split, arrow by arrow.
    """
    arrays, probes = {}, []
    for number, one in enumerate(found):
        split, arrow = divmod(number, len(job.arrows))
        if one.probe is not None:
            one.probe.save(work.probes / name / f"{split}-{arrow}.safetensors")
            probes.append(f"{split}-{arrow}")
        if one.prediction is not None:
            for test in job.splits[split].tests:
                key = f"{split}-{arrow}/{test.name}"
                arrays[key] = np.asarray(one.prediction.score_M[test.name], np.float32)
                arrays[f"{key}/row"] = np.asarray(test.row_M, np.int64)
                arrays[f"{key}/y"] = np.asarray(test.y_M, np.int8)
    about = _about(job)
    if probes:
        (work.probes / name / ABOUT).replace(sealed.to_json({**about, "probes": probes}))
    if arrays:
        place = work.predictions / f"{name}.safetensors"
        place.replace(sealed.to_safetensors(arrays, _ENTRY, about))


def _about(job: Job) -> dict[str, Any]:
    """What the numbers in the names `SPLIT-ARROW` of files and arrays stand for."""
    return {
        "dataset": job.dataset.name,
        "site": str(job.site),
        "splits": [
            {
                "regime": split.regime,
                "level": None if math.isnan(split.level) else split.level,
                "protocol": split.protocol,
                "seed": split.seed,
            }
            for split in job.splits
        ],
        "arrows": [dataclasses.asdict(arrow) for arrow in job.arrows],
    }


def read(place: Place) -> tuple[dict, dict[str, np.ndarray]]:
    """The scores that `keep` wrote: their record, and the log-odds per split, arrow and test set.

    Raises:
        FileNotFoundError: There is no file.
        FileError: The file is not what was written.
    """
    return sealed.read_safetensors(place, _ENTRY, _AGAIN)
