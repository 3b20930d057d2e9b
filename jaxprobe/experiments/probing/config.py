"""The keys of the main grid's config file, with their defaults."""

import dataclasses

from jaxprobe import base
from jaxprobe.experiments import config
from jaxprobe.probes import grid
from jaxprobe.settings import Count, CountOrZero, Gib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encode:
    """`config.encode`: the splits for which latents are ranked, and how.

    Attributes:
        regimes: Some of `base.REGIMES`.
        protocols: Some of `base.PROTOCOLS`.
        dedup_by: When protocol dedup treats two prompts as the same: `exact` or `normalised`.
        max_latents: Latents kept per split: the largest k of a probe.
        ranking: `normalised` or `raw`, see `selection.score`.
        random_sae: Whether to encode with an SAE of random weights too, as a control.
        random_latents: Latents of the random-latents control; 0 leaves it out.
    """

    regimes: tuple[str, ...] = ("standard",)
    protocols: tuple[str, ...] = base.PROTOCOLS
    dedup_by: str = "exact"
    max_latents: Count = 512
    ranking: str = "normalised"
    random_sae: bool = True
    random_latents: CountOrZero = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    """`config.fit`: which probes are fitted.

    Attributes:
        baselines: Methods on activations, keys of `probes.PROBES`.
        standard_only: Those of them that run only in the standard regime.
        num_latents: Values of k in the standard regime.
        regime_num_latents: Values of k in the other regimes, and of the controls.
        penalties: Penalties of logistic SAE probes: `l1`, `l2`.
        latent_methods: Further methods on the best k latents, keys of `probes.PROBES`.
        controls: Whether to fit shuffled labels, random latents and the random SAE.
        solver: Solver of L1 probes: `converged`, or `saga`, which is scikit-learn's as published, stopped
            early.
        poolings: How the tokens of a prompt become what baselines read: `last`, `mean` or `max`.
            SAE probes and controls read the last token.
        dtype: Arithmetic of fits: `float64`, `float32`, or `auto`: float64 on CPUs.
        memory_gib: Most memory in GiB that the probes of one compiled program take together on a
            device.
        workers: Concurrent calls of the probe engine.
        keep: What is kept in addition to the results: `scores`, every test row's log-odds, in
            `predictions/`; `probes`, every fitted probe, in `probes/`.
    """

    baselines: tuple[str, ...] = ("logistic",)
    standard_only: tuple[str, ...] = ("xgboost",)
    num_latents: tuple[Count, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    regime_num_latents: tuple[Count, ...] = (16, 128)
    penalties: tuple[str, ...] = ("l1",)
    latent_methods: tuple[str, ...] = ()
    controls: bool = True
    solver: str = "converged"
    poolings: tuple[str, ...] = ("last",)
    dtype: str = "auto"
    memory_gib: Gib = grid.MEMORY_GIB
    workers: Count = 1
    keep: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """`config.report`: which results the page shows.

    Attributes:
        model: The model; "" for that of the first row.
        site: The site; "" for the first site of that model.
        datasets: The datasets; () for all.
        regimes: The regimes; () for all.
        baselines: The quiver's baselines, of which the first wins ties; () for those of the paper's
            five that were run.
    """

    model: str = ""
    site: str = ""
    datasets: tuple[str, ...] = ()
    regimes: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(config.Common):
    """The main grid's config.

    Attributes:
        encode: The splits for which latents are ranked, and how.
        fit: Which probes are fitted.
        report: Which results the page shows.
    """

    encode: Encode = Encode()
    fit: Fit = Fit()
    report: Report = Report()
