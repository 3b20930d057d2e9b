"""Checks of the main grid's config, made before any work."""

import dataclasses
import importlib.util
from collections.abc import Mapping

from absl import logging

from jaxprobe import base, checks, datasets, regimes, selection
from jaxprobe.experiments.probing.config import Config
from jaxprobe.methods.probes import KEPT
from jaxprobe.probes import PROBES

_POOLINGS = base.POOLINGS[:3]  # those with one row per prompt


def check(config: Config, d_sae: Mapping[str, int]) -> None:
    """Raises ValueError for an unknown choice, or for more latents than there are.

    Args:
        config: The config.
        d_sae: Number of latents of each SAE by its id, as far as known.
    """
    encode = config.encode
    for name, known in (("protocols", base.PROTOCOLS), ("regimes", base.REGIMES)):
        chosen = getattr(encode, name)
        if not chosen:
            raise ValueError(f"`config.encode.{name}` must name at least one of {', '.join(known)}")
        for value in chosen:
            checks.check_choice(name[:-1], value, known)
    checks.check_choice("dedup_by", encode.dedup_by, regimes.DEDUP_BY)
    checks.check_choice("ranking", encode.ranking, selection.RANKINGS)
    _check_fit(config)
    _check_counts(config, d_sae)
    _check_report(config)


def _check_fit(config: Config) -> None:
    fit = config.fit
    checks.check_choice("solver", fit.solver, ("converged", "saga"))
    checks.check_choice("dtype", fit.dtype, ("auto", "float32", "float64"))
    checks.check_positive("workers", fit.workers)
    checks.check_positive("memory_gib", fit.memory_gib)
    for kind in fit.keep:
        checks.check_choice("kind of config.fit.keep", kind, KEPT)
    if not fit.poolings:
        raise ValueError(f"`config.fit.poolings` must name at least one of {', '.join(_POOLINGS)}")
    for pooling in fit.poolings:
        checks.check_choice("pooling of config.fit.poolings", pooling, _POOLINGS)
    for penalty in fit.penalties:
        checks.check_choice("penalty", penalty, ("l1", "l2"))
    for method in (*fit.baselines, *fit.standard_only, *fit.latent_methods):
        checks.check_choice("method", method, PROBES)


def _check_counts(config: Config, d_sae: Mapping[str, int]) -> None:
    """Refuses k above the number of ranked or existing latents: such a probe would read fewer than k."""
    fit, encode = config.fit, config.encode
    for name in ("num_latents", "regime_num_latents"):
        for count in getattr(fit, name):
            if not 0 < count <= encode.max_latents:
                raise ValueError(
                    f"`{name}` must lie between 1 and encode.max_latents = {encode.max_latents}, got"
                    f" {count}; encode more, or ask for fewer"
                )
            for sae, most in d_sae.items():
                if count > most:
                    raise ValueError(
                        f"`fit.{name}` asks for {count:,} latents, but SAE {sae} has {most:,}; ask for fewer"
                    )
    most = max(fit.regime_num_latents, default=0)
    if fit.controls and most > encode.random_latents:
        raise ValueError(
            f"`regime_num_latents` asks the random-latents control for {most} latents, more than"
            f" encode.random_latents = {encode.random_latents}; raise that, or set fit.controls to"
            " False"
        )


def _check_report(config: Config) -> None:
    report = config.report
    for regime in report.regimes:
        checks.check_choice("regime of config.report.regimes", regime, base.REGIMES)
    for method in report.baselines:
        checks.check_choice("method of config.report.baselines", method, PROBES)
    if report.site:
        base.Site.parse(report.site)
    known = [datasets.name_of(entry) for entry in config.datasets]
    for name in report.datasets if known else ():
        checks.check_choice("dataset of config.report.datasets", name, known)


def with_installed(config: Config) -> Config:
    """The config without methods that need an extra that is not installed; a warning says so.

    Raises:
        ValueError: No baseline would be left.
    """
    fit = config.fit
    if "xgboost" not in (*fit.baselines, *fit.latent_methods) or _has_xgboost():
        return config
    install = "pip install 'jaxprobe[xgboost]'"
    if fit.baselines == ("xgboost",):
        raise ValueError(f"`fit.baselines` names only xgboost, which is not installed: {install}")
    logging.warning("xgboost is not installed, so the job runs without it; to add it: %s", install)
    fewer = dataclasses.replace(
        fit,
        baselines=tuple(name for name in fit.baselines if name != "xgboost"),
        latent_methods=tuple(name for name in fit.latent_methods if name != "xgboost"),
    )
    return dataclasses.replace(config, fit=fewer)


def _has_xgboost() -> bool:
    return importlib.util.find_spec("xgboost") is not None
