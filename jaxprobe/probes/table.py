"""Stub."""

from jaxprobe.probes import l1_logistic, logistic

PROBES = {
    "logistic": logistic.PROBE,
    "logistic_standardised": logistic.STANDARDISED,
    "logistic_l1": l1_logistic.PROBE,
}
