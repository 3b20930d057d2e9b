"""The methods that the paper's main grid fits: a config's choices as arrows."""

from jaxprobe.base import ACTIVATIONS, RANDOM_SAE, Arrow
from jaxprobe.experiments.probing.config import Fit

Group = tuple[Arrow, ...]  # arrows that differ only in k


def baselines(config: Fit, standard: bool) -> list[Group]:
    """Methods on activations of every pooling, and the control of shuffled labels."""
    names = [name for name in config.baselines if standard or name not in config.standard_only]
    found: list[Group] = [
        (Arrow(features=ACTIVATIONS, method=name, pooling=pooling),)
        for pooling in config.poolings
        for name in names
    ]
    if config.controls:
        found.append((_control(ACTIVATIONS, "logistic", 0, "shuffled_labels"),))
    return found


def of_sae(config: Fit, sae: str, standard: bool) -> list[Group]:
    """Methods on an SAE's latents, and their controls."""
    counts = config.num_latents if standard else config.regime_num_latents
    found = [
        tuple(Arrow(features=sae, method=method, k=k, kind="sae") for k in counts)
        for method in latent_methods(config)
    ]
    if config.controls:
        method = l1_method(config)
        found += [
            tuple(_control(sae, method, k, control) for k in config.regime_num_latents)
            for control in ("shuffled_labels", "random_latents")
        ]
    return found


def of_random_sae(config: Fit) -> list[Group]:
    """The first method on the random SAE's latents: one method is enough for a control."""
    methods = latent_methods(config)
    if not config.controls or not methods:
        return []
    return [
        tuple(_control(RANDOM_SAE, methods[0], k, RANDOM_SAE) for k in config.regime_num_latents)
    ]


def latent_methods(config: Fit) -> tuple[str, ...]:
    """Methods on latents, by their names in result rows."""
    logistic = {"l1": l1_method(config), "l2": "logistic_l2"}
    return tuple(
        dict.fromkeys((*(logistic[name] for name in config.penalties), *config.latent_methods))
    )


def l1_method(config: Fit) -> str:
    """The L1 probe of the config's solver."""
    return "logistic_l1_saga" if config.solver == "saga" else "logistic_l1"


def _control(features: str, method: str, k: int, control: str) -> Arrow:
    return Arrow(features=features, method=method, k=k, control=control, kind="other")
