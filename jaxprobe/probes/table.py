"""All probes by name, one line each."""

from collections.abc import Mapping

from jaxprobe.probes import (
    best_latents,
    discriminant,
    knn,
    l1_logistic,
    lat,
    logistic,
    mean_difference,
    mlp,
    pca,
    ridge,
    saga,
    trees,
)
from jaxprobe.probes.host import HostProbe
from jaxprobe.probes.probe import Probe

PROBES: Mapping[str, Probe | HostProbe] = {
    "logistic": logistic.PROBE,
    "logistic_standardised": logistic.STANDARDISED,
    "logistic_l1": l1_logistic.PROBE,
    "pca": pca.PROBE,
    "knn": knn.PROBE,
    "mlp": mlp.PROBE,
    "xgboost": trees.PROBE,
    "mean_difference": mean_difference.PROBE,
    "lda": discriminant.PROBE,
    "ridge": ridge.PROBE,
    "lat": lat.PROBE,
    "best_latents": best_latents.PROBE,
    "logistic_l1_saga": saga.PROBE,
}

# The paper's five, in the order in which ties between arrows are broken.
PAPER_BASELINES = ("logistic", "pca", "knn", "xgboost", "mlp")
