"""Do sparse autoencoders help to detect concepts? Sparse probing in JAX."""

from jaxprobe import datasets as datasets
from jaxprobe.assets import AssetError as AssetError
from jaxprobe.assets import fetch as fetch
from jaxprobe.base import Arrow as Arrow
from jaxprobe.base import Column as Column
from jaxprobe.base import Site as Site
from jaxprobe.base import Split as Split
from jaxprobe.base import TestSet as TestSet
from jaxprobe.base import TextDataset as TextDataset
from jaxprobe.checkpoints import LoadedSae as LoadedSae
from jaxprobe.checkpoints import decode as decode
from jaxprobe.checkpoints import encode as encode
from jaxprobe.checkpoints import load_sae as load_sae
from jaxprobe.checkpoints import save_sae as save_sae
from jaxprobe.compiling import cache_compiled_programs as cache_compiled_programs
from jaxprobe.extraction.in_memory import extract_texts as extract
from jaxprobe.features.read import Features as Features
from jaxprobe.metrics import METRICS as METRICS
from jaxprobe.metrics import accuracy as accuracy
from jaxprobe.metrics import auroc as auroc
from jaxprobe.metrics import average_precision as average_precision
from jaxprobe.metrics import expected_calibration_error as expected_calibration_error
from jaxprobe.metrics import f1 as f1
from jaxprobe.metrics import log_loss as log_loss
from jaxprobe.models import Model as Model
from jaxprobe.models import device_mesh as device_mesh
from jaxprobe.models import load_model as load_model
from jaxprobe.models import make_forward as make_forward
from jaxprobe.probes import PROBES as PROBES
from jaxprobe.probes import FittedProbe as FittedProbe
from jaxprobe.probes import ProbeResult as ProbeResult
from jaxprobe.probes import Scores as Scores
from jaxprobe.probes import fit_grid as fit_grid
from jaxprobe.probes import fit_probe as fit_probe
from jaxprobe.probes import load_probe as load_probe
from jaxprobe.regimes import splits as splits
from jaxprobe.saes import JumpReluSae as JumpReluSae
from jaxprobe.selection import class_weights as class_weights
from jaxprobe.selection import top_latents as top_latents
from jaxprobe.stages.report import ReportConfig as ReportConfig
from jaxprobe.stages.report import report as report
from jaxprobe.stages.report import report_runs as report_runs
from jaxprobe.stages.report_published import report_published as report_published
from jaxprobe.stages.run import RunConfig as RunConfig
from jaxprobe.stages.run import run as run
from jaxprobe.store import ActivationStore as ActivationStore

__version__ = "0.1.0"
__all__ = [
    "METRICS",
    "PROBES",
    "ActivationStore",
    "Arrow",
    "AssetError",
    "Column",
    "Features",
    "FittedProbe",
    "JumpReluSae",
    "LoadedSae",
    "Model",
    "ProbeResult",
    "ReportConfig",
    "RunConfig",
    "Scores",
    "Site",
    "Split",
    "TestSet",
    "TextDataset",
    "__version__",
    "accuracy",
    "auroc",
    "average_precision",
    "cache_compiled_programs",
    "class_weights",
    "datasets",
    "decode",
    "device_mesh",
    "encode",
    "expected_calibration_error",
    "extract",
    "f1",
    "fetch",
    "fit_grid",
    "fit_probe",
    "load_model",
    "load_probe",
    "load_sae",
    "log_loss",
    "make_forward",
    "report",
    "report_published",
    "report_runs",
    "run",
    "save_sae",
    "splits",
    "top_latents",
]


def __dir__() -> list[str]:
    """What completion shows: the public names, not the packages that define them."""
    return sorted(__all__)
