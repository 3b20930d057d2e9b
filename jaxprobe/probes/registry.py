"""All probes by name, one line each."""

from collections.abc import Mapping

from jaxprobe.probes import (
    best_latents,
    knn,
    lat,
    lda,
    logistic,
    logistic_l1,
    logistic_l1_saga,
    mean_difference,
    mlp,
    pca,
    ridge,
    xgboost_trees,
)
from jaxprobe.probes.host_probe import HostProbe
from jaxprobe.probes.probe import Probe

PROBES: Mapping[str, Probe | HostProbe] = {
    "logistic": logistic.PROBE,
    "logistic_standardised": logistic.STANDARDISED,
    "logistic_l1": logistic_l1.PROBE,
    "pca": pca.PROBE,
    "knn": knn.PROBE,
    "mlp": mlp.PROBE,
    "xgboost": xgboost_trees.PROBE,
    "mean_difference": mean_difference.PROBE,
    "lda": lda.PROBE,
    "ridge": ridge.PROBE,
    "lat": lat.PROBE,
    "best_latents": best_latents.PROBE,
    "logistic_l1_saga": logistic_l1_saga.PROBE,
}

# The paper's five, in the order in which ties between them are broken.
PAPER_BASELINES = ("logistic", "pca", "knn", "xgboost", "mlp")
