"""Which methods are fitted: a config's choices as arrows, each a method with what it reads."""

import dataclasses

from jaxprobe import checks
from jaxprobe.probes import PROBES, grid
from jaxprobe.stages import encode as encoding


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Which probes to fit.

    Attributes:
        baselines: Methods on activations, keys of `probes.PROBES`.
        standard_only: Those of them that run in the standard regime alone.
        num_latents: Values of k in the standard regime.
        regime_num_latents: Values of k in the other regimes, and of the controls.
        penalties: Of logistic SAE probes: `l1`, `l2`.
        latent_methods: Further methods on the best k latents, keys of `probes.PROBES`.
        controls: Whether to fit shuffled labels, random latents and the random SAE.
        solver: Of L1 probes: `converged`, or `saga`: scikit-learn's as published, stopped early.
        dtype: Arithmetic of fits: `float64`, `float32`, or `auto`: float64 on CPUs.
        memory_gib: What the probes of one compiled program may take together on a device.
        workers: Calls of the probe engine at once.
    """

    baselines: tuple[str, ...] = ("logistic",)
    standard_only: tuple[str, ...] = ("xgboost",)
    num_latents: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    regime_num_latents: tuple[int, ...] = (16, 128)
    penalties: tuple[str, ...] = ("l1",)
    latent_methods: tuple[str, ...] = ()
    controls: bool = True
    solver: str = "converged"
    dtype: str = "auto"
    memory_gib: float = grid.MEMORY_GIB
    workers: int = 1


def check_config(config: FitConfig, encode_config: encoding.EncodeConfig) -> None:
    """Raises ValueError for a choice that does not exist, or more latents than are encoded."""
    checks.check_choice("solver", config.solver, ("converged", "saga"))
    checks.check_choice("dtype", config.dtype, ("auto", "float32", "float64"))
    checks.check_positive("workers", config.workers)
    checks.check_positive("memory_gib", config.memory_gib)
    for penalty in config.penalties:
        checks.check_choice("penalty", penalty, ("l1", "l2"))
    for method in (*config.baselines, *config.standard_only, *config.latent_methods):
        checks.check_choice("method", method, PROBES)
    for name in ("num_latents", "regime_num_latents"):
        for count in getattr(config, name):
            if not 0 < count <= encode_config.max_latents:
                raise ValueError(
                    f"`{name}` must lie between 1 and encode.max_latents ="
                    f" {encode_config.max_latents}, got {count}; encode more, or ask for fewer"
                )
    most = max(config.regime_num_latents, default=0)
    if config.controls and most > encode_config.random_latents:
        raise ValueError(
            f"`regime_num_latents` asks the random-latents control for {most} latents, more than"
            f" encode.random_latents = {encode_config.random_latents}; encode more, or set"
            " fit.controls to False"
        )


def num_probes(config: FitConfig, regime: str, num_saes: int, random_sae: bool) -> int:
    """Rows that a split yields: what `Planner.jobs` lists, counted without features."""
    found = arrows(config, regime == "standard", config.controls)
    total = sum(len(arrow.counts) for arrow in found if not arrow.on_latents)
    total += num_saes * sum(len(arrow.counts) for arrow in found if arrow.on_latents)
    if config.controls and random_sae:
        total += len(config.regime_num_latents)
    return total


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrow:
    """A method as the results know it.

    Attributes:
        method: Its name in result rows.
        probe: Its key in `probes.PROBES`.
        on_latents: Whether it reads an SAE's latents, not activations.
        counts: Values of k; (0,) on activations.
        control: ``, `shuffled_labels` or `random_latents`.
    """

    method: str
    probe: str
    on_latents: bool
    counts: tuple[int, ...]
    control: str = ""


def arrows(config: FitConfig, standard: bool, controls: bool) -> list[Arrow]:
    """Every method of a split."""
    found = [
        Arrow(method=name, probe=name, on_latents=False, counts=(0,))
        for name in config.baselines
        if standard or name not in config.standard_only
    ]
    counts = config.num_latents if standard else config.regime_num_latents
    latent = {f"logistic_{penalty}": penalty for penalty in config.penalties}
    probes = {"l1": "logistic_l1", "l2": "logistic"}
    if config.solver == "saga":
        latent = {f"{name}_saga" if p == "l1" else name: p for name, p in latent.items()}
        probes["l1"] = "logistic_l1_saga"
    methods = {name: probes[penalty] for name, penalty in latent.items()}
    methods |= {name: name for name in config.latent_methods}
    found += [
        Arrow(method=method, probe=probe, on_latents=True, counts=counts)
        for method, probe in methods.items()
    ]
    if controls:
        few, l1 = config.regime_num_latents, probes["l1"]
        shuffled, random = "shuffled_labels", "random_latents"
        name = f"logistic_{shuffled}"
        found.append(
            Arrow(method=name, probe="logistic", on_latents=False, counts=(0,), control=shuffled)
        )
        found += [
            Arrow(method=f"{l1}_{control}", probe=l1, on_latents=True, counts=few, control=control)
            for control in (shuffled, random)
        ]
    return found
