"""A job's config as the stages' own, each with what it shares with the others."""

import dataclasses
from typing import Any

from jaxprobe.experiments import config
from jaxprobe.experiments.probing import config as probing
from jaxprobe.stages.arrows import FitConfig
from jaxprobe.stages.encode import EncodeConfig
from jaxprobe.stages.extract import ExtractConfig
from jaxprobe.stages.report import ReportConfig
from jaxprobe.stages.train_sae import TrainSaeConfig


def of_job(job: config.Common) -> dict[str, Any]:
    """Name of a stage -> its config.

    Raises:
        ValueError: Another experiment than `probing`, or more than one site or SAE to train.
    """
    if not isinstance(job, probing.Config):
        raise ValueError(f"the stages run the experiment `probing` alone, got {job.experiment!r}")
    sites, trained = config.sites_of(job), config.saes_to_train(job)
    for key, several in (("sites", sites), ("train_sae", trained)):
        if len(several) > 1:
            raise ValueError(
                f"`config.{key}` asks for {len(several)}, and the stages take one; run one job each"
            )
    return {
        "extract": ExtractConfig(
            model=job.model,
            dtype=job.dtype,
            bos=job.bos,
            sites=tuple(map(str, sites)),
            token_sites=tuple(str(one.site) for one in trained),
            source=job.source,
            datasets=job.datasets,
            **vars(job.extract),
        ),
        "train_sae": _training(job.train_sae, trained[0]) if trained else None,
        "encode": EncodeConfig(
            source=job.source, datasets=job.datasets, seed=job.seed, **vars(job.encode)
        ),
        "fit": FitConfig(**vars(job.fit)),
        "report": ReportConfig(**vars(job.report)),
    }


def _training(section: config.TrainSae, one: config.SaeToTrain) -> TrainSaeConfig:
    names = {field.name for field in dataclasses.fields(TrainSaeConfig)}
    given = {key: value for key, value in vars(section).items() if key in names}
    return TrainSaeConfig(**(given | vars(one) | {"site": str(one.site)}))
