"""Metrics of a probe's predictions: kernels, and the registry of metrics by name."""

from jaxprobe.metrics.decisions import group_codes as group_codes
from jaxprobe.metrics.decisions import recall as recall
from jaxprobe.metrics.decisions import threshold_at_fpr as threshold_at_fpr
from jaxprobe.metrics.decisions import worst_group_accuracy as worst_group_accuracy
from jaxprobe.metrics.kernels import accuracy as accuracy
from jaxprobe.metrics.kernels import auroc as auroc
from jaxprobe.metrics.kernels import average_precision as average_precision
from jaxprobe.metrics.kernels import expected_calibration_error as expected_calibration_error
from jaxprobe.metrics.kernels import f1 as f1
from jaxprobe.metrics.kernels import log_loss as log_loss
from jaxprobe.metrics.kernels import pair_counts as pair_counts
from jaxprobe.metrics.registry import DEFAULT as DEFAULT
from jaxprobe.metrics.registry import METRICS as METRICS
from jaxprobe.metrics.registry import HeldOut as HeldOut
from jaxprobe.metrics.registry import Metric as Metric
from jaxprobe.metrics.registry import chosen as chosen
from jaxprobe.metrics.registry import evaluate as evaluate
