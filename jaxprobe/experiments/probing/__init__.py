"""The paper's main grid: do probes of SAE latents help when added to strong probes of activations?

References:
    Kantamneni et al., Are Sparse Autoencoders Useful? A Case Study in Sparse Probing, arXiv 2502.16681.
"""

from jaxprobe.experiments.experiment import Experiment
from jaxprobe.experiments.probing import jobs, leaks
from jaxprobe.experiments.probing.checking import check, with_installed
from jaxprobe.experiments.probing.config import Config
from jaxprobe.experiments.probing.report import pages

EXPERIMENT = Experiment(
    config=Config,
    needs=jobs.needs,
    jobs=jobs.jobs,
    metrics=jobs.METRICS,
    report=pages,
    version=1,
    check=check,
    installed=with_installed,
    facts=leaks.facts,
    levels=jobs.levels,
)
